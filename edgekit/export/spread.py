"""Gradients of layers that pick or copy cells, written without scattering.

torch writes the gradient of picking (max pooling, a slice, one row) as a scatter to computed places. Engines read that
badly: TensorRT has it as a plugin or not at all. Sizes of maps and windows are constants of an exported graph, only the
batch is free, so the same gradients can be said with comparisons, padding and products with constant matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from edgekit.export.plain_functions import separated

__all__ = ["SPREADING"]

_aten = torch.ops.aten


def _pair(values: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int]:
    given = list(values) or list(default)
    return int(given[0]), int(given[-1])


def _padded(tensor: torch.Tensor, before: Sequence[int], after: Sequence[int], value: float) -> torch.Tensor:
    """The last two axes padded, or cut where a number is negative."""
    rows, columns = (
        slice(max(-low, 0), int(size) - max(-high, 0))
        for low, high, size in zip(before, after, tensor.shape[-2:], strict=True)
    )
    kept = tensor[..., rows, columns]
    pads = [max(before[1], 0), max(after[1], 0), max(before[0], 0), max(after[0], 0)]
    return functional.pad(kept, pads, value=value) if any(pads) else kept


def _max_pool2d_backward(  # noqa: PLR0913, PLR0917 - the signature is torch's
    grad_output: torch.Tensor,
    activation: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: torch.Tensor,
) -> torch.Tensor:
    """Each output's gradient goes to the first cell of its window, row by row, that holds the window's maximum.

    All cells that stand at one place in their windows are one strided slice of the map. The slices side by side, one a
    place, are compared with the pooled map; the smallest place that is equal is the one torch chose. A transposed
    convolution with one-hot kernels then puts every place's gradient where the place came from, and adds up where
    windows overlap. A NaN in a window gets no gradient here.
    """
    del ceil_mode, indices  # how many windows there are is in the gradient's size, and the maxima are found anew
    kernel, step = _pair(kernel_size), _pair(stride, kernel_size)
    pad, spacing = _pair(padding), _pair(dilation)
    outputs = [int(size) for size in grad_output.shape[-2:]]
    sizes = [int(size) for size in activation.shape[-2:]]
    covered = [(outputs[axis] - 1) * step[axis] + spacing[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    after = [covered[axis] - sizes[axis] - pad[axis] for axis in (0, 1)]
    # A window never lies in the padding alone, so the lowest number is never its maximum but where all cells are that.
    field = _padded(activation, pad, after, torch.finfo(activation.dtype).min)
    places = [
        field[
            ...,
            row * spacing[0] : row * spacing[0] + (outputs[0] - 1) * step[0] + 1 : step[0],
            column * spacing[1] : column * spacing[1] + (outputs[1] - 1) * step[1] + 1 : step[1],
        ]
        for row in range(kernel[0])
        for column in range(kernel[1])
    ]
    windows = torch.stack(places, dim=-3)
    given = _at_first_maximum(windows, grad_output.unsqueeze(-3), -3)
    channels = int(activation.shape[-3])
    whole = given.reshape(*given.shape[:-4], channels * len(places), *outputs)
    weight = _one_hot_kernels(kernel, channels, activation.dtype)
    spread = _aten.convolution.default(whole, weight, None, list(step), [0, 0], list(spacing), True, [0, 0], channels)
    return _padded(spread, [-size for size in pad], [-size for size in after], 0.0)


def _one_hot_kernels(kernel: tuple[int, int], channels: int, dtype: torch.dtype) -> torch.Tensor:
    """[channels * places, 1, h, w]: the kernel of place p is 1 at p."""
    with _disable_current_modes():
        count = kernel[0] * kernel[1]
        return torch.eye(count, dtype=dtype).reshape(count, 1, *kernel).repeat(channels, 1, 1, 1)


def _at_first_maximum(windows: torch.Tensor, gradient: torch.Tensor, axis: int) -> torch.Tensor:
    """`gradient` where `windows` has its first maximum along `axis`, zero elsewhere."""
    count = int(windows.shape[axis])
    with _disable_current_modes():
        # As floats, since engines reduce those everywhere; exact up to 2^24 places.
        place = torch.arange(count, dtype=windows.dtype).reshape(-1, *[1] * (-axis - 1))
    equal = windows == windows.amax(dim=axis, keepdim=True)
    first = torch.where(equal, place, float(count)).amin(dim=axis, keepdim=True)
    return torch.where(place == first, gradient, 0.0)


def _adaptive_max_pool2d_backward(
    grad_output: torch.Tensor, activation: torch.Tensor, indices: torch.Tensor
) -> torch.Tensor:
    """As max pooling, with windows from `floor(i * size / outputs)` to `ceil((i + 1) * size / outputs)`."""
    sizes, outputs = ([int(size) for size in tensor.shape[-2:]] for tensor in (activation, grad_output))
    if all(size % count == 0 for size, count in zip(sizes, outputs, strict=True)):
        kernel = [size // count for size, count in zip(sizes, outputs, strict=True)]
        if outputs != [1, 1]:
            return _max_pool2d_backward(grad_output, activation, kernel, kernel, [0, 0], [1, 1], False, indices)
    windows = [
        [(index * size // count, -(-(index + 1) * size // count)) for index in range(count)]
        for size, count in zip(sizes, outputs, strict=True)
    ]
    parts = []
    for row, (top, bottom) in enumerate(windows[0]):
        for column, (left, right) in enumerate(windows[1]):
            cells = activation[..., top:bottom, left:right]
            flat = cells.reshape(*activation.shape[:-2], (bottom - top) * (right - left))
            # Slices, not places: a place is written as a gather.
            own = grad_output[..., row : row + 1, column : column + 1].reshape(*activation.shape[:-2], 1)
            given = _at_first_maximum(flat, own, -1)
            block = given.reshape(*activation.shape[:-2], bottom - top, right - left)
            parts.append(_padded(block, [top, left], [sizes[0] - bottom, sizes[1] - right], 0.0))
    return sum(parts[1:], start=parts[0])


def _select_backward(grad_output: torch.Tensor, input_sizes: Sequence[Any], dim: int, index: int) -> torch.Tensor:
    """The gradient of one row is that row among zeros."""
    axis = dim % len(input_sizes)
    size = int(input_sizes[axis])
    before = index % size
    return _between_zeros(grad_output.unsqueeze(axis), axis, before, size - before - 1)


def _slice_backward(
    grad_output: torch.Tensor, input_sizes: Sequence[Any], dim: int, start: int, end: int, step: int
) -> torch.Tensor:
    """The gradient of a slice lies between zeros, and where rows were left out, among them."""
    del end
    axis = dim % len(input_sizes)
    # The batch may be sliced as a whole; it is not a number, and must not be asked for one.
    if start == 0 and step == 1 and _same(grad_output.shape[axis], input_sizes[axis]):
        return grad_output.clone()
    count, size = int(grad_output.shape[axis]), int(input_sizes[axis])
    first = min(max(start + size if start < 0 else start, 0), size)
    if step > 1:
        apart = _between_zeros(grad_output.unsqueeze(axis + 1), axis + 1, 0, step - 1)
        shape = list(grad_output.shape)
        shape[axis] = count * step
        grad_output = apart.reshape(shape)
        reach = min(count * step, size - first)
        grad_output = grad_output.narrow(axis, 0, reach)
        count = reach
    return _between_zeros(grad_output, axis, first, size - first - count)


def _same(left: Any, right: Any) -> bool:
    return left is right or str(left) == str(right)


def _between_zeros(tensor: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    pads = [0, 0] * (tensor.dim() - axis - 1) + [before, after]
    return functional.pad(tensor, pads) if before or after else tensor.clone()


def _transposed(forward: Callable[[torch.Tensor], torch.Tensor], gradient: torch.Tensor, sizes: Sequence[Any]) -> Any:
    """The gradient of a layer that is linear and treats rows and columns alike: `R^T gradient C`."""
    rows, columns = separated(forward, int(sizes[-2]), int(sizes[-1]), gradient.dtype)
    return rows.t() @ (gradient @ columns)


def _padding_backward(pad: Any) -> Callable[..., torch.Tensor]:
    def backward(grad_output: torch.Tensor, activation: torch.Tensor, padding: Sequence[int]) -> torch.Tensor:
        """Each cell collects the gradients of its copies in the border."""
        amounts = [int(amount) for amount in padding]

        def forward(probe: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = pad(probe, amounts)
            return result

        return _transposed(forward, grad_output, activation.shape)  # type: ignore[no-any-return]

    return backward


def _scatter(activation: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor) -> Any:
    """One place a row: where the places count up to it. More than one is left as it is."""
    axis = dim % activation.dim()
    if str(index.shape[axis]) != "1":
        return NotImplemented
    with _disable_current_modes():
        place = torch.arange(int(activation.shape[axis])).reshape(-1, *[1] * (activation.dim() - axis - 1))
    return torch.where(place == index, source, activation)


SPREADING: dict[Any, Callable[..., Any]] = {
    _aten.max_pool2d_with_indices_backward.default: _max_pool2d_backward,
    _aten.adaptive_max_pool2d_backward.default: _adaptive_max_pool2d_backward,
    _aten.select_backward.default: _select_backward,
    _aten.slice_backward.default: _slice_backward,
    _aten.reflection_pad2d_backward.default: _padding_backward(_aten.reflection_pad2d.default),
    _aten.replication_pad2d_backward.default: _padding_backward(_aten.replication_pad2d.default),
    # The gradient of `max(dim)` and the like, at the index that was chosen.
    _aten.scatter.src: _scatter,
}
