"""Maps of the input itself, from the gradient through the whole network: no tap, one cell a pixel."""

from __future__ import annotations

import torch

from edgekit.teacher.methods.protocol import AttributionMethod

__all__ = ["GRADIENT_TIMES_INPUT", "INPUT_GRADIENT", "GradientTimesInput", "InputGradient"]


class InputGradient:
    """`max_c |d(logit)/dx_c|` at every pixel.

    Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and
    Saliency Maps", ICLR workshop 2014, section 3.1.
    """

    name = "input-gradient"
    nonnegative = True
    domain = "input"

    def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The maps of one batch; see `AttributionMethod`."""
        return gradient.expand_as(activation).abs().amax(dim=1)


class GradientTimesInput:
    """`sum_c x_c d(logit)/dx_c` at every pixel, of the prepared input; signed.

    Shrikumar et al., "Not Just a Black Box: Learning Important Features Through Propagating Activation Differences",
    2016 (arXiv 1605.01713), section 2.
    """

    name = "gradient-x-input"
    nonnegative = False
    domain = "input"

    def __call__(self, activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The maps of one batch; see `AttributionMethod`."""
        return (gradient * activation).sum(dim=1)


INPUT_GRADIENT: AttributionMethod = InputGradient()
GRADIENT_TIMES_INPUT: AttributionMethod = GradientTimesInput()
