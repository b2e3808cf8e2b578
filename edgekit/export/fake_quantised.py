"""Fake quantisation: rounded forward, straight through backward.

Rounding has gradient zero, so a head that is quantised in training would have empty maps. torch's fake quantisation
passes the gradient on where the value lies within the range of the integers and stops it outside (the straight-through
estimator; Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons", 2013; Jacob et al., CVPR
2018, section 3). Both halves are written here as plain arithmetic: `q = round(x / scale) + zero_point`, clipped, and
`(q - zero_point) * scale`; the gradient is 1 where `q` before clipping lies in the range. torch's own functions cannot
be traced with a free batch: their backward asks for the number of elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.errors import BadInputError

__all__ = ["FAKE_QUANTISED", "frozen_observers"]


class _StraightThrough(torch.autograd.Function):
    """Answers the values, and passes the gradient to the activation where it is inside the range."""

    @staticmethod
    def forward(activation: torch.Tensor, values: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        del activation, inside
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        del output
        ctx.save_for_backward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return torch.where(inside, gradients[0], 0.0), None, None


def _quantised(
    activation: torch.Tensor, scale: Any, reciprocal: Any, zero_point: Any, low: int, high: int
) -> torch.Tensor:
    fixed = activation.detach()
    integers = torch.round(fixed * reciprocal) + zero_point
    inside = torch.logical_and(integers >= low, integers <= high)
    values = (torch.clamp(integers, low, high) - zero_point) * scale
    result: torch.Tensor = _StraightThrough.apply(activation, values, inside)  # type: ignore[no-untyped-call]
    return result


def _per_tensor(
    input: torch.Tensor,  # noqa: A002 - torch's name
    scale: Any,
    zero_point: Any,
    quant_min: int,
    quant_max: int,
) -> torch.Tensor:
    if isinstance(scale, torch.Tensor):
        return _quantised(
            input,
            scale.reshape(()).to(input.dtype),
            (1.0 / scale.float()).reshape(()).to(input.dtype),
            zero_point.reshape(()).to(input.dtype),
            quant_min,
            quant_max,
        )
    # torch keeps scale and reciprocal in float32 and multiplies; anything else would round some halves the other way.
    single = np.float32(scale)
    return _quantised(input, float(single), float(np.float32(1) / single), zero_point, quant_min, quant_max)


def _per_channel(
    input: torch.Tensor,  # noqa: A002
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    axis: int,
    quant_min: int,
    quant_max: int,
) -> torch.Tensor:
    shape = [-1 if place == axis % input.dim() else 1 for place in range(input.dim())]
    return _quantised(
        input,
        scale.reshape(shape).to(input.dtype),
        (1.0 / scale.float()).reshape(shape).to(input.dtype),
        zero_point.reshape(shape).to(input.dtype),
        quant_min,
        quant_max,
    )


FAKE_QUANTISED: dict[Any, Callable[..., torch.Tensor]] = {
    torch.fake_quantize_per_tensor_affine: _per_tensor,
    torch.fake_quantize_per_channel_affine: _per_channel,
}
"""torch's functions, and what stands for them while a network is traced."""


@contextmanager
def frozen_observers(network: nn.Module) -> Iterator[None]:
    """Let torch.ao's FakeQuantize modules quantise with the numbers they hold, without looking at their switches.

    Their switches are tensors, which a trace cannot branch on.

    Raises:
        BadInputError: An observer still learns its range, so that the network's answers depend on what it saw before.
    """
    from torch.ao.quantization.fake_quantize import FakeQuantizeBase

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if not isinstance(module, FakeQuantizeBase):
                continue
            if int(module.observer_enabled[0]) == 1:
                raise BadInputError(
                    "A fake quantisation still adapts its range to the images it sees.",
                    expected="frozen scales",
                    where=name,
                    hint="call model.apply(torch.ao.quantization.disable_observer) before saving the network",
                )
            module.forward = _frozen(module)  # type: ignore[method-assign]
            stack.callback(module.__dict__.pop, "forward", None)
        yield


def _frozen(module: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    low, high = module.activation_post_process.quant_min, module.activation_post_process.quant_max
    if int(module.fake_quant_enabled[0]) == 0:
        return lambda activation: activation
    if module.is_per_channel:
        return lambda activation: torch.fake_quantize_per_channel_affine(
            # torch takes float32 scales alone, whatever the network was cast to.
            activation,
            module.scale.float(),
            module.zero_point.int(),
            module.ch_axis,
            low,
            high,
        )
    scale, zero_point = float(module.scale), int(module.zero_point)
    return lambda activation: torch.fake_quantize_per_tensor_affine(activation, scale, zero_point, low, high)
