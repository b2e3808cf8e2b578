"""What an attribution method is: a function of an activation and the gradient of a logit with respect to it."""

from __future__ import annotations

from typing import Protocol

import torch

__all__ = ["DOMAINS", "AttributionMethod", "weighted_map"]

# What a map lives on: the activation at a tap, or the network's input.
DOMAINS = ("tap", "input")


class AttributionMethod(Protocol):
    """One definition of a map. Every operation must be traceable: no branches on values, no loops over samples."""

    @property
    def name(self) -> str:
        """Registry name, written into every map's specification."""

    @property
    def nonnegative(self) -> bool:
        """Whether maps are never below zero."""

    @property
    def domain(self) -> str:
        """One of `DOMAINS`."""

    def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The maps of one batch.

        Args:
            activation: [N, C, h, w] at the tap, or the images.
            gradient: d(logit) / d(activation) of the explained class of each sample, [N, C, h, w]; or [N, C, 1, 1]
                where it is the same at every cell of a channel.

        Returns:
            [N, h, w], raw: never rescaled, resized or clipped beyond the method's own definition.
        """


def weighted_map(weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """`relu(sum_k weights_k A_k)`: weights [N, C], activation [N, C, h, w], result [N, h, w]."""
    return torch.relu((weights[:, :, None, None] * activation).sum(dim=1))
