"""What an attribution method is: a function of an activation and the gradient of a logit with respect to it."""

from __future__ import annotations

from typing import Protocol

import torch

__all__ = ["DOMAINS", "AttributionMethod", "channel_means", "weighted_map"]

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


def channel_means(gradient: torch.Tensor) -> torch.Tensor:
    """The mean over the cells of each channel: [N, C, h, w] or [N, C, 1, 1] to [N, C]."""
    return gradient.flatten(1) if gradient.shape[2:].numel() == 1 else gradient.mean(dim=(2, 3))


def weighted_map(weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """`relu(sum_k weights_k A_k)`: weights [N, C], activation [N, C, h, w], result [N, h, w]."""
    # As one product of matrices: in a graph it costs a tenth of a multiplication and a sum over all channels.
    cells = torch.bmm(weights[:, None, :], activation.flatten(2))
    return torch.relu(cells.reshape(activation.shape[0], *activation.shape[2:]))
