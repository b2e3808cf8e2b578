"""Functions of torch that are computed another way while a network is traced, so that a graph can say them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from edgekit.export.fake_quantised import FAKE_QUANTISED

__all__ = ["PlainFunctions", "separated"]

# Under names of their own, since `functional`'s are exchanged while attention is computed.
_torch_linear, _torch_attention = functional.linear, functional.scaled_dot_product_attention
_SEPARABLE = ("nearest", "nearest-exact", "bilinear", "bicubic")


class PlainFunctions(TorchFunctionMode):
    """Computes some functions by hand, each because of what torch's own way leaves in a graph.

    `linear` on more than two axes: under `torch.func.vjp` torch flattens its input by asking for the batch as a number,
    which nails it to that of the example; every vision transformer would be exported for one batch size.
    `adaptive_avg_pool2d` to one cell, of maps whose channels lie together in memory: torch rewrites the strides of the
    result, and ONNX has no strides. `interpolate`: torch writes it as indexing, which engines run as a gather and whose
    gradient is a scatter. Attention without a mask: torch guards against rows that are masked as a whole, with integers
    that TensorRT cannot reduce. `multi_head_attention_forward`: it calls two of these. Fake quantisation: see
    `fake_quantised`.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        plain = _PLAIN.get(func, func)
        return plain(*args, **(kwargs or {}))


def _linear(
    input: torch.Tensor,  # noqa: A002 - torch's name, as below
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    if input.dim() <= 2:
        return _torch_linear(input, weight, bias)
    rows = input.reshape(-1, weight.shape[1])
    product = rows @ weight.t() if bias is None else torch.addmm(bias, rows, weight.t())
    return product.reshape(*input.shape[:-1], weight.shape[0])


def _adaptive_avg_pool2d(input: torch.Tensor, output_size: Any) -> torch.Tensor:  # noqa: A002
    if output_size in (1, (1, 1), [1, 1]):
        return input.mean((-2, -1), keepdim=True)
    return functional.adaptive_avg_pool2d(input, output_size)


def _interpolate(
    input: torch.Tensor,  # noqa: A002
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Copies where every cell becomes a block of equal cells, and products with two constant matrices otherwise."""
    if input.dim() != 4 or mode not in _SEPARABLE:
        return functional.interpolate(input, size, scale_factor, mode, *args, **kwargs)

    def forward(probe: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(probe, size, scale_factor, mode, *args, **kwargs)

    height, width = int(input.shape[-2]), int(input.shape[-1])
    rows, columns = separated(forward, height, width, input.dtype)
    factors = [len(rows) // height, len(columns) // width]
    if mode.startswith("nearest") and _copies(rows, factors[0]) and _copies(columns, factors[1]):
        blocks = input[..., :, None, :, None].expand(*input.shape[:-2], height, factors[0], width, factors[1])
        return blocks.reshape(*input.shape[:-2], height * factors[0], width * factors[1])
    return rows @ (input @ columns.t())


def _copies(matrix: torch.Tensor, factor: int) -> bool:
    with _disable_current_modes():
        count = matrix.shape[1]
        if matrix.shape[0] != count * factor:
            return False
        return torch.equal(matrix, torch.eye(count, dtype=matrix.dtype).repeat_interleave(factor, 0))


def separated(
    forward: Callable[[torch.Tensor], torch.Tensor], height: int, width: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrices R [h, H] and C [w, W] of a layer that is linear and acts on rows and columns alike: `y = R x C^T`.

    Args:
        forward: The layer, from [N, 1, H, W] to [N, 1, h, w], with weights that sum to one along each axis.
        height: H.
        width: W.
        dtype: Of the result; the weights are found in float64.
    """
    with _disable_current_modes(), torch.no_grad():
        by_row = forward(torch.eye(height, dtype=torch.float64)[:, None, :, None].expand(-1, 1, -1, width).contiguous())
        by_column = forward(torch.eye(width, dtype=torch.float64)[:, None, None].expand(-1, 1, height, -1).contiguous())
        # Over columns that are all alike the answer to a row does not depend on the column, and the reverse.
        return by_row[:, 0, :, 0].t().contiguous().to(dtype), by_column[:, 0, 0].t().contiguous().to(dtype)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **others: Any,
) -> torch.Tensor:
    scale = others.pop("scale", None)
    # The switch for grouped queries means nothing where it is off.
    grouped = others.pop("enable_gqa", False)
    if attn_mask is not None or dropout_p or is_causal or grouped or others:
        return _torch_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=grouped, **others
        )
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    return torch.softmax(scores, dim=-1) @ value


def _multi_head_attention(*args: Any, **kwargs: Any) -> Any:
    """Torch's own, a function of python that calls others of this table: it has to find them in their places.

    A mode is off while it computes a function, and with the mode on the function would only call the mode again.
    """
    with _in_place({name: _PLAIN[getattr(functional, name)] for name in ("linear", "scaled_dot_product_attention")}):
        return functional.multi_head_attention_forward(*args, **kwargs)


@contextmanager
def _in_place(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    originals = {name: getattr(functional, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(functional, name, function)
        yield
    finally:
        for name, function in originals.items():
            setattr(functional, name, function)


_PLAIN: dict[Any, Callable[..., Any]] = {
    **FAKE_QUANTISED,
    functional.linear: _linear,
    functional.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    functional.interpolate: _interpolate,
    functional.scaled_dot_product_attention: _attention,
    functional.multi_head_attention_forward: _multi_head_attention,
}
