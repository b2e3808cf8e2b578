"""Convolution and pooling as ONNX defines them, in torch: paddings of each side their own, and automatic ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from edgekit.qat.nodes import NodeView

__all__ = ["average_pool", "convolve", "max_pool"]

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_MAXIMA = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_MEANS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def convolve(node: NodeView, inputs: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """Conv of [N, C, ...] with weights [M, C / groups, ...]."""
    x, weight, bias = _given(inputs[0]), _given(inputs[1]), inputs[2] if len(inputs) > 2 else None
    kernel = list(weight.shape[2:])
    strides = _sizes(node, "strides", len(kernel), 1)
    dilations = _sizes(node, "dilations", len(kernel), 1)
    begin, end = _pads(node, x, kernel, strides, dilations)
    if begin != end:
        x, begin = _padded(x, begin, end, 0.0), [0] * len(kernel)
    result: torch.Tensor = _CONVOLUTIONS[len(kernel)](x, weight, bias, strides, begin, dilations, node.get("group", 1))
    return result


def max_pool(node: NodeView, inputs: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """MaxPool's first result. The second, the positions, is refused where something asks for it."""
    if node.results > 1:
        raise node.refused("answers positions", "a pooling that answers maxima alone")
    x = _given(inputs[0])
    kernel = _sizes(node, "kernel_shape", x.dim() - 2, 1)
    strides = _sizes(node, "strides", len(kernel), 1)
    dilations = _sizes(node, "dilations", len(kernel), 1)
    begin, end = _pads(node, x, kernel, strides, dilations)
    # torch refuses a padding of more than half the kernel, which ONNX allows.
    if begin != end or any(pad > size // 2 for pad, size in zip(begin, kernel, strict=True)):
        x, begin = _padded(x, begin, end, -torch.inf), [0] * len(kernel)
    result: torch.Tensor = _MAXIMA[len(kernel)](
        x, kernel, strides, begin, dilations, ceil_mode=bool(node.get("ceil_mode", 0))
    )
    return result


def average_pool(node: NodeView, inputs: Sequence[torch.Tensor | None]) -> torch.Tensor:
    """AveragePool, over the padding too where the node says so."""
    x = _given(inputs[0])
    kernel = _sizes(node, "kernel_shape", x.dim() - 2, 1)
    strides = _sizes(node, "strides", len(kernel), 1)
    if any(size != 1 for size in node.get("dilations", ())):
        raise node.refused("has dilations", "an average of neighbours")
    begin, end = _pads(node, x, kernel, strides, [1] * len(kernel))
    up, counted = bool(node.get("ceil_mode", 0)), bool(node.get("count_include_pad", 0))
    mean = _MEANS[len(kernel)]
    if begin == end and all(pad <= size // 2 for pad, size in zip(begin, kernel, strict=True)):
        result: torch.Tensor = mean(x, kernel, strides, begin, up, counted)
        return result
    if up:
        raise node.refused("pads one side more than the other and rounds its size up", "one of both")
    total: torch.Tensor = mean(_padded(x, begin, end, 0.0), kernel, strides)
    if counted:
        return total
    # Of how many cells each mean is: the same pooling of ones.
    inside: torch.Tensor = mean(_padded(torch.ones_like(x[:1, :1]), begin, end, 0.0), kernel, strides)
    return total / inside


def _given(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None, "the ONNX checker refuses a node without its first inputs"
    return tensor


def _sizes(node: NodeView, name: str, rank: int, default: int) -> list[int]:
    return list(node.get(name, None) or [default] * rank)


def _pads(
    node: NodeView, x: torch.Tensor, kernel: list[int], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """Cells added before and behind each spatial dimension."""
    rank = len(kernel)
    way = node.get("auto_pad", "NOTSET")
    if way == "VALID":
        return [0] * rank, [0] * rank
    if way in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = [], []
        for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            wanted = (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1
            total = max(wanted - size, 0)
            less, more = total // 2, total - total // 2
            begin.append(less if way == "SAME_UPPER" else more)
            end.append(more if way == "SAME_UPPER" else less)
        return begin, end
    pads = list(node.get("pads", None) or [0] * 2 * rank)
    return pads[:rank], pads[rank:]


def _padded(x: torch.Tensor, begin: list[int], end: list[int], value: float) -> torch.Tensor:
    # torch wants the last dimension first.
    pads = [pad for pair in reversed(list(zip(begin, end, strict=True))) for pad in pair]
    return functional.pad(x, pads, value=value)
