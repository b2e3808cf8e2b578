"""One node of an ONNX graph as the functions that compute it see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgekit.errors import BadInputError

__all__ = ["NodeView", "Operation"]


@dataclass(frozen=True)
class NodeView:
    """What a node says besides its inputs.

    Attributes:
        kind: Its ONNX operator.
        name: Its name, for messages.
        attributes: Its attributes, texts decoded.
        results: How many results are asked for.
    """

    kind: str
    name: str
    attributes: Mapping[str, Any]
    results: int = 1

    def get(self, name: str, default: Any) -> Any:
        """An attribute, or `default` where it is not set."""
        return self.attributes.get(name, default)

    def refused(self, what: str, expected: str) -> BadInputError:
        """The error of a node that says what cannot be computed here."""
        return BadInputError(
            f"The graph cannot be trained with quantisation: {self.kind} {what}.",
            where=self.name,
            expected=expected,
            hint="set qat.epochs to 0",
        )


Operation = Callable[[NodeView, Sequence[torch.Tensor | None]], "torch.Tensor | tuple[torch.Tensor, ...]"]
"""What a node computes from its inputs; an input that is left out is None."""
