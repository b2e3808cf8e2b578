"""What a user says about a model file. Free of torch, so that a command line can be read without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LoadOptions"]


@dataclass(frozen=True)
class LoadOptions:
    """What the user says about a model file.

    Attributes:
        arch: Architecture: a built-in name, "timm:NAME", "torchvision:NAME", or "package.module:factory" of code the
            user trusts.
        arguments: Keyword arguments of the factory; None leaves a checkpoint's own.
        card: Card entries that complete or override the file's, in the form of `ModelCard.to_dict`; "input" is
            merged key by key.
        trust_pickle: Unpickle whole modules. That runs whatever code the file holds, with the user's rights.
    """

    arch: str | None = None
    arguments: Mapping[str, Any] | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    trust_pickle: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, part of the key of every stage that loads a model."""
        arguments = None if self.arguments is None else dict(self.arguments)
        said = {"arch": self.arch, "arguments": arguments, "card": dict(self.card)}
        # Only where it was given, so that work done before the option existed is not done again.
        return {**said, "trust_pickle": True} if self.trust_pickle else said
