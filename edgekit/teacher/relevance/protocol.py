"""What a relevance method is: a function of network, images and class, made from what it has to know beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.interface.card import InputSpec
from edgekit.teacher.relevance.network import LayeredNetwork

__all__ = ["RelevanceMethod", "RelevanceOptions"]

_LARGEST_PIXEL = 255.0


@dataclass(frozen=True)
class RelevanceOptions:
    """What every method is made from.

    Attributes:
        low: Smallest value of each input channel after preprocessing.
        high: Largest value of each input channel after preprocessing.
        tap: Dotted name of the module whose output the map lives on; None for the input pixels.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    tap: str | None = None

    def __post_init__(self) -> None:
        usable = len(self.low) == len(self.high) > 0
        usable = usable and all(map(math.isfinite, (*self.low, *self.high)))
        if not (usable and all(low < high for low, high in zip(self.low, self.high, strict=True))):
            raise BadInputError(
                "The bounds of the input cannot be used.",
                expected="one finite low and one higher high for each channel",
                found=f"low {self.low}, high {self.high}",
            )

    @classmethod
    def from_input(cls, spec: InputSpec, tap: str | None = None) -> RelevanceOptions:
        """The bounds that 8-bit pixels have after the card's preprocessing, `(pixels / divisor - mean) / std`."""
        low = tuple((0.0 - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True))
        high = tuple(
            (_LARGEST_PIXEL / spec.divisor - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)
        )
        return cls(low, high, tap)


class RelevanceMethod(Protocol):
    """One way to hand the explained class's score back through the layers."""

    @property
    def name(self) -> str:
        """Registry name."""

    def __call__(
        self, model: nn.Module | LayeredNetwork, images: torch.Tensor, class_index: torch.Tensor
    ) -> torch.Tensor:
        """Explain one batch; every sample for itself.

        Args:
            model: In evaluation mode. A module is taken apart anew at each call (seconds for a deep network);
                who has many batches passes the result of `layered` instead.
            images: float32 or float64 [N, C, H, W], prepared; the model has the same dtype.
            class_index: int32 [N], the class to explain; -1 for the network's own top-1.

        Returns:
            [N, H, W] in the dtype of `images`: relevance summed over the input's channels; with `options.tap`
            [N, h, w], summed over the channels of that module's output. Raw: never rescaled, clipped or resized.

        Raises:
            BadInputError: The network holds an operation without a rule, the tap is unsuitable, or pixels lie
                outside the bounds.
        """
