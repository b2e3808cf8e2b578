"""What a clean-up pass is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import onnx

__all__ = ["GraphPass", "PassReport"]


class GraphPass(Protocol):
    """Rewrites a graph into an equal one that is smaller, or that engines like better.

    Applying it twice is applying it once: what it promises it reaches in one go.
    """

    @property
    def name(self) -> str:
        """As the registry has it."""

    @property
    def needs(self) -> str:
        """The precondition, in words."""

    @property
    def promise(self) -> str:
        """The postcondition, in words."""

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        """What of the precondition does not hold, or None."""

    def apply(self, model: onnx.ModelProto) -> int:
        """Change `model` in place and return how many changes there were."""

    def violation(self, model: onnx.ModelProto) -> str | None:
        """What of the postcondition does not hold, or None."""


@dataclass(frozen=True)
class PassReport:
    """What became of one pass.

    Attributes:
        name: Of the pass.
        changes: How many there were; 0 where it was rolled back.
        rolled_back: Why its work was undone, or None where it stands.
    """

    name: str
    changes: int
    rolled_back: str | None = None
