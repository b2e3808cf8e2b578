"""Class activation maps beside Grad-CAM: other ways to weight the channels, or cells, of the tapped activation.

A is the activation [C, h, w] of one sample, G = d(logit)/dA its gradient; every map ends in a ReLU, as Grad-CAM's.
"""

from __future__ import annotations

import torch

from edgekit.teacher.methods.protocol import AttributionMethod, weighted_map

__all__ = [
    "GRAD_CAM_PLUS_PLUS",
    "HIRES_CAM",
    "LAYER_CAM",
    "XGRAD_CAM",
    "GradCamPlusPlus",
    "HiResCam",
    "LayerCam",
    "XGradCam",
]

# Keeps the quotients of Grad-CAM++ and XGrad-CAM finite for channels without any activation; the value that
# pytorch-grad-cam uses, so that maps agree with its.
_EPSILON = 1e-6


class HiResCam:
    """`relu(sum_k G_k A_k)`, cell by cell: what each cell adds to the logit, to first order.

    Draelos, Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks", 2020
    (arXiv 2011.08891), section 3.2. Equal to Grad-CAM where the gradient is the same at every cell.
    """

    name = "hires-cam"
    nonnegative = True
    domain = "tap"

    def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The maps of one batch; see `AttributionMethod`."""
        return torch.relu((gradient * activation).sum(dim=1))


class GradCamPlusPlus:
    """`relu(sum_k w_k A_k)` with `w_k = sum_ij a_kij relu(G_kij)`, `a = G^2 / (2 G^2 + (sum_ij A_k) G^3)`.

    Chattopadhay et al., "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks",
    WACV 2018, equations 10 and 19, for the score exp(logit) whose higher derivatives are powers of G; its factor
    exp(logit), one number a sample, is left out. Cells without gradient have weight zero.
    """

    name = "grad-cam++"
    nonnegative = True
    domain = "tap"

    def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The maps of one batch; see `AttributionMethod`."""
        gradient = gradient.expand_as(activation)
        square = gradient * gradient
        total = activation.sum(dim=(2, 3), keepdim=True)
        share = square / (2 * square + total * square * gradient + _EPSILON)
        return weighted_map((share * torch.relu(gradient)).sum(dim=(2, 3)), activation)


class LayerCam:
    """`relu(sum_k relu(G_k) A_k)`, cell by cell: only what speaks for the class, which suits early layers.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 2021, equations 4
    and 5.
    """

    name = "layer-cam"
    nonnegative = True
    domain = "tap"

    def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The maps of one batch; see `AttributionMethod`."""
        return torch.relu((torch.relu(gradient) * activation).sum(dim=1))


class XGradCam:
    """`relu(sum_k w_k A_k)` with `w_k = sum_ij G_kij A_kij / sum_ij A_kij`: gradients weighted by the activation.

    Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs", BMVC 2020, equation 8.
    """

    name = "xgrad-cam"
    nonnegative = True
    domain = "tap"

    def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The maps of one batch; see `AttributionMethod`."""
        total = activation.sum(dim=(2, 3))
        return weighted_map((gradient * activation).sum(dim=(2, 3)) / (total + _EPSILON), activation)


HIRES_CAM: AttributionMethod = HiResCam()
GRAD_CAM_PLUS_PLUS: AttributionMethod = GradCamPlusPlus()
LAYER_CAM: AttributionMethod = LayerCam()
XGRAD_CAM: AttributionMethod = XGradCam()
