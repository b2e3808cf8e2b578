"""Grad-CAM.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
equations 1 and 2.
"""

from __future__ import annotations

import torch

from edgekit.teacher.methods.protocol import AttributionMethod, channel_means, weighted_map

__all__ = ["GRAD_CAM", "GradCam"]


class GradCam:
    """`relu(sum_k alpha_k A_k)` with `alpha_k` the spatial mean of d(logit)/d(A_k)."""

    name = "grad-cam"
    nonnegative = True
    domain = "tap"

    def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The maps of one batch; see `AttributionMethod`."""
        return weighted_map(channel_means(gradient), activation)


GRAD_CAM: AttributionMethod = GradCam()
