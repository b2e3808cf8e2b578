"""Gradients of operators that move, pick, copy or join cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.gradients.tape import InputGradients, Step

__all__ = ["SHAPE_RULES"]

_Rule = Callable[[Step], InputGradients]


def _reshape(step: Step) -> InputGradients:
    return {0: step.tape.reshaped(step.gradient, step.x)}


def _transpose(step: Step) -> InputGradients:
    rank = len(step.tape.dims(step.x))
    order = list(step.attribute("perm", None) or reversed(range(rank)))
    return {0: step.tape.op("Transpose", step.gradient, perm=[order.index(axis) for axis in range(rank)])}


def _concat(step: Step) -> InputGradients:
    tape = step.tape
    names = [str(name) for name in step.node.input]
    axis = step.attribute("axis", 0) % len(tape.dims(step.y))
    sizes = [tape.dims(name)[axis] for name in names]
    known = [size for size in sizes if size is not None]
    if len(known) == len(sizes):
        split = tape.integers(known)
    else:
        place = tape.integers([axis])
        split = tape.op("Concat", *(tape.op("Gather", tape.op("Shape", name), place) for name in names), axis=0)
    parts = tape.ops("Split", (step.gradient, split), len(names), axis=axis)
    return {slot: parts[slot] for slot in sorted(step.wanted)}


def _split(step: Step) -> InputGradients:
    names = zip(step.node.output, step.gradients, strict=True)
    parts = [step.tape.zeros(name) if gradient is None else gradient for name, gradient in names]
    return {0: step.tape.op("Concat", *parts, axis=step.attribute("axis", 0))}


def _slice(step: Step) -> InputGradients:
    tape = step.tape
    dims = tape.dims(step.x)
    starts, ends = step.numbers(1) or [], step.numbers(2) or []
    axes = step.numbers(3) or list(range(len(starts)))
    steps = step.numbers(4) or [1] * len(starts)
    gradient = step.gradient
    for start, end, stride, axis in zip(starts, ends, steps, axes, strict=True):
        size = dims[axis % len(dims)]
        if size is not None:
            gradient = _put_back(step, gradient, _places(start, end, stride, size), axis % len(dims))
        elif start != 0 or stride != 1 or end < np.iinfo(np.int32).max:
            raise step.refused("a part of an axis whose size is open", "the batch as a whole")
    return {0: gradient}


def _places(start: int, end: int, step: int, size: int) -> npt.NDArray[np.int64]:
    # Backwards, an end before the first cell is None to Python, which reads -1 as the last cell.
    last = None if step < 0 and end < -size else end
    return np.arange(size, dtype=np.int64)[slice(start, last, step)]


def _put_back(step: Step, gradient: str, places: npt.NDArray[np.int64], axis: int) -> str:
    """The gradient of picking the cells `places`, none of them twice, along an axis of the first input."""
    tape, dims = step.tape, step.tape.dims(step.x)
    size = int(dims[axis] or 0)
    if np.array_equal(places, np.arange(size)):
        return gradient
    before, after = [0] * len(dims), [0] * len(dims)
    if len(places) and np.array_equal(places, np.arange(places[0], places[0] + len(places))):
        before[axis], after[axis] = int(places[0]), size - len(places) - int(places[0])
        return tape.padded(gradient, before, after, step.x)
    # One zero cell at the end, which every cell that was not picked reads.
    after[axis] = 1
    source = np.full(size, len(places), dtype=np.int64)
    source[places] = np.arange(len(places))
    return tape.op("Gather", tape.padded(gradient, before, after, step.x), tape.integers(source.tolist()), axis=axis)


def _gather(step: Step) -> InputGradients:
    tape, dims = step.tape, step.tape.dims(step.x)
    axis, name = step.attribute("axis", 0) % len(dims), step.node.input[1]
    stored, size = tape.facts.value(name), dims[axis]
    flat = _merged(step, axis, len(tape.dims(name)))
    if stored is not None and size is not None:
        places = stored.reshape(-1).astype(np.int64) % size
        if len(np.unique(places)) == len(places):
            return {0: _put_back(step, flat, places, axis)}
    column = [1] * len(dims)
    column[axis] = -1
    indices = tape.op("Expand", tape.op("Reshape", name, tape.integers(column)), tape.op("Shape", flat))
    return {0: tape.op("ScatterElements", tape.zeros(step.x), indices, flat, axis=axis, reduction="add")}


def _merged(step: Step, axis: int, index_rank: int) -> str:
    """The gradient with the axes of the indices made one, so that it has as many axes as the data."""
    tape, gradient = step.tape, step.gradient
    if index_rank == 1:
        return gradient
    if index_rank == 0:
        return tape.op("Unsqueeze", gradient, tape.integers([axis]))
    shape = tape.op("Shape", gradient)
    before = tape.op("Slice", shape, tape.integers([0]), tape.integers([axis]))
    behind = tape.op("Slice", shape, tape.integers([axis + index_rank]), tape.integers([np.iinfo(np.int64).max]))
    return tape.op("Reshape", gradient, tape.op("Concat", before, tape.integers([-1]), behind, axis=0))


def _gather_elements(step: Step) -> InputGradients:
    axis = step.attribute("axis", 0)
    zeros = step.tape.zeros(step.x)
    return {0: step.tape.op("ScatterElements", zeros, step.node.input[1], step.gradient, axis=axis, reduction="add")}


def _scatter_elements(step: Step) -> InputGradients:
    tape, indices, axis = step.tape, step.node.input[1], step.attribute("axis", 0)
    reduction = step.text("reduction", "none")
    if reduction not in {"none", "add"}:
        raise step.refused(f"reduction {reduction!r}", "reduction none or add")
    found: dict[int, str] = {}
    if 0 in step.wanted:
        overwritten = tape.zeros(step.node.input[2])
        found[0] = (
            step.gradient
            if reduction == "add"
            else tape.op("ScatterElements", step.gradient, indices, overwritten, axis=axis)
        )
    if 2 in step.wanted:
        found[2] = tape.op("GatherElements", step.gradient, indices, axis=axis)
    return found


_TABLE: dict[str, _Rule] = {
    "Concat": _concat,
    "Flatten": _reshape,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Reshape": _reshape,
    "ScatterElements": _scatter_elements,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
SHAPE_RULES: Mapping[str, _Rule] = MappingProxyType(_TABLE)
"""Operator to rule."""
