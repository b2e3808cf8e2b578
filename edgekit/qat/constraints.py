"""What holds of the network throughout quantisation-aware training."""

from __future__ import annotations

import torch
from torch import nn

from edgekit.qat.interpreter import Interpreter

__all__ = ["HoldScales", "KeepZeros"]


class KeepZeros:
    """Weights that are exactly zero stay so: that is how the sparsity of a student is written down.

    Biases are free.
    """

    def __init__(self, student: Interpreter) -> None:
        self._gone = {
            name: weight.detach() == 0
            for name, weight in student.trainable.items()
            if weight.dim() > 1 and not bool((weight != 0).all())
        }

    def apply(self, student: nn.Module) -> None:
        """Set them to zero: set, since a product would leave -0.0 behind."""
        assert isinstance(student, Interpreter)
        for name, gone in self._gone.items():
            weight = student.trainable[name]
            weight.masked_fill_(gone.to(weight.device), 0.0)

    @property
    def zeros(self) -> int:
        """How many weights are held."""
        return sum(int(gone.sum()) for gone in self._gone.values())


class HoldScales:
    """Scales stay within what they may be."""

    def apply(self, student: nn.Module) -> None:
        """Put back those that left it."""
        assert isinstance(student, Interpreter)
        if student.quantiser is not None:
            with torch.no_grad():
                student.quantiser.hold()
