"""What an attribution method is: a function of head, activation and class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["AttributionMethod", "Explained", "Head", "chosen_class", "one_hot"]

Head = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Explained:
    """An answer and its map.

    Attributes:
        logits: [N, classes].
        attribution: [N, h, w], raw: never rescaled, resized or clipped beyond the method's own definition.
    """

    logits: torch.Tensor
    attribution: torch.Tensor


class AttributionMethod(Protocol):
    """One definition of a map. Every operation must be traceable: no branches on values, no loops over samples."""

    @property
    def name(self) -> str:
        """Registry name, written into every map's specification."""

    @property
    def nonnegative(self) -> bool:
        """Whether maps are never below zero."""

    def __call__(self, head: Head, activation: torch.Tensor, class_index: torch.Tensor) -> Explained:
        """Explain one batch.

        Args:
            head: The network from the tap to the logits.
            activation: [N, C, h, w] at the tap.
            class_index: int32 [N], the class to explain; -1 for the network's own top-1.
        """


def chosen_class(logits: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
    """The class each map explains, int32 [N]: `class_index`, or the top-1 where that is negative."""
    return torch.where(class_index < 0, logits.argmax(dim=1).to(torch.int32), class_index)


def one_hot(logits: torch.Tensor, class_index: torch.Tensor) -> torch.Tensor:
    """The output gradient that selects one logit a sample, [N, classes] in the dtype of `logits`."""
    classes = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)
    return (classes[None, :] == chosen_class(logits, class_index)[:, None]).to(logits.dtype)
