"""Fake quantisation with gradients: rounded forward, straight through backward, and scales that learn (LSQ).

Forward is `calibrate.formats` digit for digit, in float32: `q - z = clamp(round_half_even(x / s))` to the limits less
the zero point z, then `(q - z) * s`.
Backward is that of Esser et al., "Learned Step Size Quantization", ICLR 2020, equations 3 and 5: to x it is 1 inside
the range and 0 outside; to s it is `round(x / s) - x / s` inside and `q - z` outside. Both are linear in the gradient
that comes in, so that they can be differentiated once more, which matching maps does.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["round_activation", "round_bias", "round_weight"]

_BIAS_LIMIT = 2.0**31 - 1


class _Rounding(torch.autograd.Function):
    """Values on the grid; gradients by a mask and a slope, both constants of the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: float, high: float) -> torch.Tensor:
        steps = torch.div(x, scale).round_()
        values = torch.clamp(steps, low, high)
        inside = values == steps
        values.mul_(scale)
        # What is kept besides the mask are the two ends, which their neighbours keep anyway.
        ctx.save_for_backward(inside, *((x, scale, values) if ctx.needs_input_grad[1] else ()))
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inside, *ends = ctx.saved_tensors
        to_x = torch.where(inside, gradients[0], 0.0) if ctx.needs_input_grad[0] else None
        to_scale = None
        if ends:
            x, scale, values = (tensor.detach() for tensor in ends)
            # (q - z) - x / s inside and q - z outside, times s.
            slope = torch.addcmul(values, x, inside.to(x.dtype), value=-1)
            to_scale = (gradients[0] * slope).sum_to_size(scale.shape) / scale
        return to_x, to_scale, None, None


def round_activation(x: torch.Tensor, scale: torch.Tensor, zero_point: int, low: int, high: int) -> torch.Tensor:
    """An activation float32 [...] behind its pair, with a scale [] and integers `low` to `high`."""
    result: torch.Tensor = _Rounding.apply(  # type: ignore[no-untyped-call]
        x, scale, float(low - zero_point), float(high - zero_point)
    )
    return result


def round_weight(weight: torch.Tensor, scales: torch.Tensor, axis: int, limit: int) -> torch.Tensor:
    """A weight behind its pair: scales [channels] along `axis`, integers -limit to limit."""
    shape = [1] * weight.dim()
    shape[axis] = -1
    result: torch.Tensor = _Rounding.apply(  # type: ignore[no-untyped-call]
        weight, scales.reshape(shape), float(-limit), float(limit)
    )
    return result


def round_bias(bias: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """A bias [channels] as int32 of these scales, and back; rounded in float64, as it is when the graph is written.

    The gradient goes straight through to the bias. Scales get none of it: their steps are a millionth of the bias.
    """
    with torch.no_grad():
        steps = torch.round(bias.double() / scales.double()).clamp(-_BIAS_LIMIT, _BIAS_LIMIT)
        rounded = steps.float() * scales
    result: torch.Tensor = _Replaced.apply(bias, rounded)  # type: ignore[no-untyped-call]
    return result


class _Replaced(torch.autograd.Function):
    """Answers other values, and hands the gradient on."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        del ctx, x
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        del ctx
        return gradients[0], None
