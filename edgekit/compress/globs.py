"""Glob patterns of module names, as recipes give them for layers to leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from edgekit.errors import BadInputError

__all__ = ["check_patterns", "matches"]

_SHOWN = 6


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether any of the patterns is about the module called `name`."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(model: nn.Module, patterns: Sequence[str], where: str) -> None:
    """Raise `BadInputError` where a pattern of the recipe's `where` matches no module of `model`."""
    names = [name for name, _ in model.named_modules() if name]
    idle = [pattern for pattern in patterns if not any(matches(name, (pattern,)) for name in names)]
    if idle:
        raise BadInputError(
            "A pattern of layers to ignore matches none.",
            where=where,
            expected="names such as " + ", ".join(names[:_SHOWN]),
            found=", ".join(idle),
        )
