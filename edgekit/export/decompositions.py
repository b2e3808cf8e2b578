"""Gradients that have no ONNX counterpart, written as operations that have one.

torch knows most of them; the ones below it either keeps whole or writes in a way that ONNX cannot say. Sizes of maps
and windows are constants of an exported graph, only the batch is free, so they may be turned into plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgekit.export.spread import SPREADING

__all__ = ["DECOMPOSITIONS"]

_aten = torch.ops.aten


def _convolution_backward(  # noqa: PLR0913, PLR0917 - the signature is torch's
    grad_output: torch.Tensor,
    activation: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor, None, None]:
    """The input gradient of a convolution is the transposed convolution of the output gradient, and the reverse.

    The output padding given to the transposed convolution restores the rows and columns that the stride
    dropped: of the input sizes that give one output size, the transposed convolution must hit the one that was there.
    """
    del bias_sizes, output_padding, output_mask  # they concern gradients that never enter a map
    convolution = _aten.convolution.default
    if transposed:
        none = [0] * len(stride)
        return convolution(grad_output, weight, None, stride, padding, dilation, False, none, groups), None, None
    restored = [
        activation.shape[2 + axis]
        - ((grad_output.shape[2 + axis] - 1) * stride[axis] - 2 * padding[axis])
        - (dilation[axis] * (weight.shape[2 + axis] - 1) + 1)
        for axis in range(len(stride))
    ]
    gradient = convolution(grad_output, weight, None, stride, padding, dilation, True, restored, groups)
    return gradient, None, None


def _empty_permuted(size: Sequence[int], physical_layout: Sequence[int], **options: Any) -> torch.Tensor:
    """Backward formulas allocate with a memory layout and fill at once; ONNX has no layouts to keep."""
    del physical_layout
    empty: torch.Tensor = _aten.empty.memory_format(size, **options)
    return empty


# Average pooling is linear and acts on rows and columns alike: y = R x C^T with the means of windows in R and C. Its
# gradient is therefore R^T g C: two products with small constant matrices, whatever the windows look like.


def _spread(
    grad_output: torch.Tensor, rows: list[list[float]], columns: list[list[float]], divisor: int = 1
) -> torch.Tensor:
    """`rows^T @ grad_output @ columns / divisor`; rows [h, H] and columns [w, W] for a gradient [N, C, h, w]."""
    left = torch.tensor(rows, dtype=grad_output.dtype).t()
    right = torch.tensor(columns, dtype=grad_output.dtype)
    spread: torch.Tensor = left @ (grad_output @ right)
    return spread / divisor if divisor != 1 else spread


def _window_weights(windows: Sequence[range], size: int, counts: Sequence[int]) -> list[list[float]]:
    return [
        [1 / count if place in window else 0.0 for place in range(size)]
        for window, count in zip(windows, counts, strict=True)
    ]


def _avg_pool2d_backward(  # noqa: PLR0913, PLR0917 - the signature is torch's
    grad_output: torch.Tensor,
    activation: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> torch.Tensor:
    """Each output's gradient, shared evenly by the cells of its window."""
    del ceil_mode  # it decided how many windows there are, which the gradient's own size tells
    weights = []
    for axis in (0, 1):
        size, outputs = int(activation.shape[2 + axis]), int(grad_output.shape[2 + axis])
        kernel, pad = kernel_size[min(axis, len(kernel_size) - 1)], padding[min(axis, len(padding) - 1)]
        step = stride[min(axis, len(stride) - 1)] if stride else kernel
        starts = [index * step - pad for index in range(outputs)]
        windows = [range(max(start, 0), min(start + kernel, size)) for start in starts]
        padded = [min(start + kernel, size + pad) - start for start in starts]
        counts = padded if count_include_pad else [len(window) for window in windows]
        weights.append(_window_weights(windows, size, [1] * outputs if divisor_override else counts))
    return _spread(grad_output, weights[0], weights[1], divisor_override or 1)


def _adaptive_avg_pool2d_backward(grad_output: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    """As average pooling, with windows from `floor(i * size / outputs)` to `ceil((i + 1) * size / outputs)`."""
    weights = []
    for axis in (2, 3):
        size, outputs = int(activation.shape[axis]), int(grad_output.shape[axis])
        windows = [range(index * size // outputs, -(-(index + 1) * size // outputs)) for index in range(outputs)]
        weights.append(_window_weights(windows, size, [len(window) for window in windows]))
    return _spread(grad_output, weights[0], weights[1])


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    _aten.convolution_backward.default: _convolution_backward,
    _aten.empty_permuted.default: _empty_permuted,
    _aten.avg_pool2d_backward.default: _avg_pool2d_backward,
    _aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool2d_backward,
    **SPREADING,
    **torch._decomp.get_decompositions(
        [
            _aten.silu_backward,
            _aten.hardswish_backward,
            _aten.hardsigmoid_backward,
            _aten.hardtanh_backward,
            _aten.gelu_backward,
            _aten.sigmoid_backward,
            _aten.threshold_backward,
            _aten.native_batch_norm_backward,
            _aten._softmax_backward_data,
        ]
    ),
}
