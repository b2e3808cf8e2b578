"""A network explains images: the function the teacher runs and the exporter traces."""

from __future__ import annotations

import torch
from torch import nn

from edgekit.teacher.methods.protocol import AttributionMethod, Explained
from edgekit.teacher.tap import forward_with_tap, head_from_tap

__all__ = ["explain"]


def explain(
    model: nn.Module, tap: str, method: AttributionMethod, images: torch.Tensor, class_index: torch.Tensor
) -> Explained:
    """Answer and explain one batch.

    Args:
        model: In evaluation mode.
        tap: Name of the tapped module.
        method: The attribution method.
        images: float [N, 3, H, W], prepared.
        class_index: int32 [N]; -1 for the network's own top-1.
    """
    activation = forward_with_tap(model, tap, images).activation
    return method(head_from_tap(model, tap, images), activation, class_index)
