"""What the student runs behind its taps, so that a gradient of its answer can be differentiated again.

A sensitivity is a gradient, and matching differentiates it. Three things torch does otherwise:

Slowly. A convolution's second derivative is made by convolving with a kernel as large as the map, one group after the
    other: hundreds of calls for a depthwise layer. With v the gradient that arrives at `dx = conv_T(g, W)` it is
    `d/dg = conv(v, W)` and, for W, the weight gradient of conv(v, W) at g: the kernels that first derivatives have.

Through the batch. In training mode a batch normalisation ties every sample to every other, and so does a gradient
    through its statistics. The deployed network has no such ties. A sensitivity is therefore taken with the statistics
    held: `dx = G s g`, with G the scale and s one over the standard deviation, a constant. The loss itself
    is differentiated through them as ever.

Not at all. `hardsigmoid` and fused attention have no second derivative; they are written as what they are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

__all__ = ["differentiable_twice"]

_aten = torch.ops.aten
_Optional = torch.Tensor | None


@contextmanager
def differentiable_twice() -> Iterator[None]:
    """Within, operations record the nodes of this module, wherever a gradient will be asked for.

    Values are torch's up to rounding, and so are all derivatives but one: a gradient that is asked for with a graph
    (`create_graph=True`) holds the statistics of batch normalisations. Convolutions with padding by name, and those
    under autocast, whose casts belong inside of torch's own nodes, are left to torch, which is slower.
    """
    with _Replacing(), sdpa_kernel(SDPBackend.MATH):
        yield


class _Replacing(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        replacement = _REPLACEMENTS.get(function)
        if replacement is not None and torch.is_grad_enabled():
            found = replacement(*args, **(kwargs or {}))
            if found is not None:
                return found
        return function(*args, **(kwargs or {}))


def _suits(x: torch.Tensor) -> bool:
    return x.requires_grad and type(x) is torch.Tensor


def _apply(function: type[torch.autograd.Function], *values: Any) -> Any:
    return function.apply(*values)  # type: ignore[no-untyped-call]


def _wanted(ctx: Any) -> list[bool]:
    """Which gradients this backward pass uses; `needs_input_grad` only says which could be."""
    # Arguments that are no tensors have no edge; in this module they come last.
    nodes = [node for node, _ in ctx.next_functions]
    return [needed and _will_run(node) for needed, node in zip_longest(ctx.needs_input_grad, nodes)]


def _will_run(node: Any) -> bool:
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:
        # Torch refuses to say for a leaf whose gradient is itself asked for.
        return True


class _Settings(NamedTuple):
    """How a convolution is called."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int

    def forward(self, x: torch.Tensor, weight: torch.Tensor, bias: _Optional) -> torch.Tensor:
        found: torch.Tensor = _aten.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, False, [0, 0], self.groups
        )
        return found

    def backward(
        self, g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: Sequence[bool]
    ) -> tuple[_Optional, _Optional, _Optional]:
        found: tuple[_Optional, _Optional, _Optional] = _aten.convolution_backward(
            g,
            x,
            weight,
            [weight.shape[0]],
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0, 0],
            self.groups,
            list(wanted),
        )
        return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: _Optional, settings: _Settings) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.settings = settings
        return settings.forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[_Optional, _Optional, _Optional, None]:
        x, weight = ctx.saved_tensors
        settings: _Settings = ctx.settings
        wanted = _wanted(ctx)[:3]
        if not torch.is_grad_enabled():
            return (*settings.backward(g, x, weight, wanted), None)
        own = _apply(_InputGradient, g, weight, x.detach(), settings) if wanted[0] else None
        if not any(wanted[1:]):
            return own, None, None, None
        # Not asked for by the losses here; torch differentiates it as ever.
        _, of_weight, of_bias = settings.backward(g, x, weight, [False, *wanted[1:]])
        return own, of_weight, of_bias, None


class _InputGradient(torch.autograd.Function):
    """`conv_T(g, W)`, linear in both; of `x` only the shape counts."""

    @staticmethod
    def forward(
        ctx: Any, g: torch.Tensor, weight: torch.Tensor, x: torch.Tensor, settings: _Settings
    ) -> torch.Tensor | None:
        ctx.save_for_backward(g, weight)
        ctx.settings = settings
        return settings.backward(g, x, weight, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[_Optional, _Optional, None, None]:
        g, weight = ctx.saved_tensors
        settings: _Settings = ctx.settings
        wanted = _wanted(ctx)
        of_g = settings.forward(v, weight, None) if wanted[0] else None
        of_weight = settings.backward(g, v, weight, [False, True, False])[1] if wanted[1] else None
        return of_g, of_weight, None, None


def _convolved(  # noqa: PLR0913, PLR0917 - torch's own
    input: torch.Tensor,  # noqa: A002 - torch's name, by which it may be called
    weight: torch.Tensor,
    bias: _Optional = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor | None:
    casts = torch.is_autocast_enabled(input.device.type)
    if isinstance(padding, str) or input.dim() != 4 or not _suits(input) or casts:
        return None
    settings = _Settings(_pair(stride), _pair(padding), _pair(dilation), groups)
    found: torch.Tensor = _apply(_Convolution, input, weight, bias, settings)
    return found


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else [*value] * (2 if len(value) == 1 else 1)


class _BatchNorm(torch.autograd.Function):
    """Normalisation by the batch's own statistics, which a gradient with a graph holds."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, shift: _Optional, settings: _NormSettings
    ) -> torch.Tensor:
        found: torch.Tensor
        found, mean, inverse = _aten.native_batch_norm(
            x, scale, shift, settings.running_mean, settings.running_var, True, settings.momentum, settings.eps
        )
        ctx.save_for_backward(x, scale, mean, inverse)
        ctx.eps = settings.eps
        return found

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[_Optional, ...]:
        x, scale, mean, inverse = ctx.saved_tensors
        wanted = _wanted(ctx)[:3]
        if torch.is_grad_enabled():
            return (*_held(g, x, scale, (mean, inverse), wanted), None)
        found: tuple[_Optional, ...] = _aten.native_batch_norm_backward(
            g, x, scale, None, None, mean, inverse, True, ctx.eps, wanted
        )
        return (*found, None)


class _StoredBatchNorm(torch.autograd.Function):
    """Normalisation by stored statistics."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, shift: _Optional, settings: _NormSettings
    ) -> torch.Tensor:
        running = (settings.running_mean, settings.running_var)
        found: torch.Tensor
        found, _, _ = _aten.native_batch_norm(x, scale, shift, *running, False, 0.0, settings.eps)
        ctx.save_for_backward(x, scale, *running)
        ctx.eps = settings.eps
        return found

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[_Optional, ...]:
        x, scale, mean, variance = ctx.saved_tensors
        wanted = _wanted(ctx)[:3]
        if torch.is_grad_enabled():
            return (*_held(g, x, scale, (mean, (variance + ctx.eps).rsqrt()), wanted), None)
        found: tuple[_Optional, ...] = _aten.native_batch_norm_backward(
            g, x, scale, mean, variance, None, None, False, ctx.eps, wanted
        )
        return (*found, None)


class _NormSettings(NamedTuple):
    """How a batch normalisation is called."""

    running_mean: _Optional
    running_var: _Optional
    momentum: float
    eps: float


def _held(
    g: torch.Tensor,
    x: torch.Tensor,
    scale: torch.Tensor,
    statistics: tuple[torch.Tensor, torch.Tensor],
    wanted: Sequence[bool],
) -> tuple[_Optional, _Optional, _Optional]:
    """The gradient of `scale (x - mean) inverse + shift`, mean and inverse held; differentiable."""
    mean, inverse = statistics
    over = (-1, *(1,) * (x.dim() - 2))
    others = [axis for axis in range(x.dim()) if axis != 1]
    of_x = (g * (scale * inverse).reshape(over)).to(g.dtype) if wanted[0] else None
    of_scale = (g * (x - mean.reshape(over))).sum(dim=others) * inverse if wanted[1] else None
    return of_x, of_scale, g.sum(dim=others) if wanted[2] else None


def _normalised(  # noqa: PLR0913, PLR0917 - torch's own
    input: torch.Tensor,  # noqa: A002 - torch's name, by which it may be called
    running_mean: _Optional,
    running_var: _Optional,
    weight: _Optional = None,
    bias: _Optional = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor | None:
    # Torch itself refuses to normalise one value by itself.
    if not _suits(input) or (training and input.numel() == input.shape[1]):
        return None
    if weight is None:
        weight = torch.ones(input.shape[1], dtype=_parameter_type(input), device=input.device)
    settings = _NormSettings(running_mean, running_var, momentum, eps)
    found: torch.Tensor = _apply(_BatchNorm if training else _StoredBatchNorm, input, weight, bias, settings)
    return found


def _parameter_type(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _hard_sigmoid(input: torch.Tensor, inplace: bool = False) -> torch.Tensor:  # noqa: A002 - torch's name
    found = functional.hardtanh(input + 3, 0.0, 6.0) / 6
    return input.copy_(found) if inplace else found


_REPLACEMENTS: dict[Any, Callable[..., torch.Tensor | None]] = {
    functional.conv2d: _convolved,
    functional.batch_norm: _normalised,
    functional.hardsigmoid: _hard_sigmoid,
}
