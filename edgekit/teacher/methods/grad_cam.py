"""Grad-CAM.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
equations 1 and 2.
"""

from __future__ import annotations

import torch

from edgekit.teacher.methods.protocol import AttributionMethod, Explained, Head, one_hot

__all__ = ["GRAD_CAM", "GradCam", "weighted_map"]


def weighted_map(weights: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """`relu(sum_k weights_k A_k)`: weights [N, C], activation [N, C, h, w], result [N, h, w]."""
    return torch.relu((weights[:, :, None, None] * activation).sum(dim=1))


class GradCam:
    """`relu(sum_k alpha_k A_k)` with `alpha_k` the spatial mean of d(logit)/d(A_k)."""

    name = "grad-cam"
    nonnegative = True

    def __call__(self, head: Head, activation: torch.Tensor, class_index: torch.Tensor) -> Explained:
        """Explain one batch; see `AttributionMethod`."""
        logits: torch.Tensor
        logits, pullback = torch.func.vjp(head, activation)  # type: ignore[misc]  # has_aux is False: two results
        (gradient,) = pullback(one_hot(logits, class_index))
        return Explained(logits, weighted_map(gradient.mean(dim=(2, 3)), activation))


GRAD_CAM: AttributionMethod = GradCam()
