"""The exponential moving average of a student's weights, which is steadier than its last weights.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992, in the form with a decay that is
common since: after every step `average = decay * average + (1 - decay) * weights`. It begins at the student's weights
before the first step, with no correction: a compressed network begins near its end, not at random weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edgekit.compress.training.weights import copied, tensors_of

__all__ = ["Average"]


class Average:
    """The average of parameters and floating buffers (running statistics too); whole numbers are the latest."""

    def __init__(self, student: nn.Module, decay: float) -> None:
        self._decay = decay
        self._tensors = copied(tensors_of(student))

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The average by name, as `edgekit.compress.training.weights.put` takes it."""
        return self._tensors

    def update(self, student: nn.Module) -> None:
        """Take in the weights after a step."""
        with torch.no_grad():
            for name, latest in tensors_of(student).items():
                if latest.is_floating_point():
                    self._tensors[name].lerp_(latest, 1 - self._decay)
                else:
                    self._tensors[name].copy_(latest)

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from an average that was stored."""
        for name, own in self._tensors.items():
            own.copy_(tensors[name])
