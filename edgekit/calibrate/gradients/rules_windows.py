"""Gradients of pooling over windows and of padding with an edge's or a mirror's cells.

Averages and paddings are linear and treat each axis alike: `y = R x C^T` with constant matrices, and so the gradient is
`R^T g C`, whatever windows overlap or hang over the edge. Maxima are put back where they were found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from edgekit.calibrate.gradients.tape import InputGradients, Step

__all__ = ["WINDOW_RULES"]

_MODES = {"edge": "edge", "reflect": "reflect", "wrap": "wrap"}


def _average_pool(step: Step) -> InputGradients:
    tape, gradient = step.tape, step.gradient
    sizes, outputs = tape.dims(step.x), tape.dims(step.y)
    for axis in range(2, len(sizes)):
        weights = _window_means(step, axis - 2, int(sizes[axis] or 0), int(outputs[axis] or 0))
        gradient = tape.along(gradient, weights.T.astype(tape.facts.dtype(step.x)), axis, len(sizes))
    return {0: gradient}


def _window_means(step: Step, place: int, size: int, outputs: int) -> npt.NDArray[np.float64]:
    """[outputs, size]: the share of each cell in each window's mean, along one axis."""
    kernel = list(step.attribute("kernel_shape", []))
    count = len(kernel)
    length = kernel[place]
    stride = list(step.attribute("strides", [1] * count))[place]
    gap = list(step.attribute("dilations", [1] * count))[place]
    begin, end = _pool_pads(step, place, size, outputs)
    # Of a rounded-up size ONNX's inference counts windows that begin behind the map, which runtimes leave out.
    outputs = min(outputs, -(-(size + begin) // stride))
    found = np.zeros((outputs, size))
    for window in range(outputs):
        cells = window * stride - begin + gap * np.arange(length)
        inside = cells[(cells >= 0) & (cells < size)]
        # The padding counts where the node says so, but never what a rounded-up size hangs over it.
        counted = np.count_nonzero(cells < size + end) if step.attribute("count_include_pad", 0) else len(inside)
        found[window, inside] = 1 / max(counted, 1)
    return found


def _pool_pads(step: Step, place: int, size: int, outputs: int) -> tuple[int, int]:
    kernel = list(step.attribute("kernel_shape", []))
    count = len(kernel)
    automatic = step.text("auto_pad", "NOTSET")
    if automatic in {"NOTSET", "VALID"}:
        pads = list(step.attribute("pads", [0, 0] * count)) if automatic == "NOTSET" else [0, 0] * count
        return pads[place], pads[place + count]
    stride = list(step.attribute("strides", [1] * count))[place]
    gap = list(step.attribute("dilations", [1] * count))[place]
    total = max((outputs - 1) * stride + gap * (kernel[place] - 1) + 1 - size, 0)
    smaller, larger = total // 2, total - total // 2
    return (smaller, larger) if automatic == "SAME_UPPER" else (larger, smaller)


def _max_pool(step: Step) -> InputGradients:
    """Each maximum's gradient is added where the runtime found it, which its second output tells."""
    tape = step.tape
    attributes = {
        item.name: helper.get_attribute_value(item) for item in step.node.attribute if item.name != "storage_order"
    }
    places = tape.ops("MaxPool", (step.x,), 2, **attributes)[1]
    whole = tape.integers([-1])
    cells = tape.op("Reshape", tape.op("Size", step.x), whole)
    zeros = tape.op("Expand", tape.number(0.0, step.x), cells)
    flat = tape.op("Reshape", step.gradient, whole)
    spread = tape.op("ScatterElements", zeros, tape.op("Reshape", places, whole), flat, axis=0, reduction="add")
    return {0: tape.reshaped(spread, step.x)}


def _pad(step: Step) -> InputGradients:
    tape, dims = step.tape, step.tape.dims(step.x)
    rank = len(dims)
    given = step.numbers(1) or []
    axes = [axis % rank for axis in (step.numbers(3) or range(rank))]
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = given[place], given[place + len(axes)]
    mode, gradient = step.text("mode", "constant"), step.gradient
    if mode == "constant":
        return {0: tape.padded(gradient, [-count for count in before], [-count for count in after], step.x)}
    if mode not in _MODES:
        raise step.refused(f"mode {mode!r}", "constant, " + ", ".join(_MODES))
    for axis in range(rank):
        if before[axis] or after[axis]:
            if dims[axis] is None or min(before[axis], after[axis]) < 0:
                raise step.refused("padding of the batch, or less than none", "padding of maps")
            copies: Any = np.pad(np.eye(int(dims[axis] or 0)), ((before[axis], after[axis]), (0, 0)), mode=mode)  # type: ignore[call-overload]
            gradient = tape.along(gradient, copies.T.astype(tape.facts.dtype(step.x)), axis, rank)
    return {0: gradient}


WINDOW_RULES: Mapping[str, Callable[[Step], InputGradients]] = MappingProxyType(
    {"AveragePool": _average_pool, "MaxPool": _max_pool, "Pad": _pad}
)
"""Operator to rule."""
