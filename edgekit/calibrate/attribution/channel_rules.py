"""How each operation carries channel factors from its inputs to its output.

A rule gets unknowns of the inputs and gives those of the output, uniting what must be equal. An operation without a
rule fixes all its factors at one. The rules hold for positive factors: `relu(x / s) = relu(x) / s`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.attribution.channel_unions import ChannelUnions, Unknowns
from edgekit.calibrate.graph import ExplainedGraph

__all__ = ["RULES", "Refused", "Visit"]


class Refused(Exception):  # noqa: N818 - control flow between rules and their one caller
    """Factors do not pass here: all of the operation's are one."""


@dataclass(frozen=True)
class Visit:
    """One operation being looked at.

    Attributes:
        graph: The FP32 graph.
        index: The operation.
        inputs: Unknowns of each input slot; None for stored tensors and what is not float.
        unions: Where unknowns are made equal.
    """

    graph: ExplainedGraph
    index: int
    inputs: tuple[Unknowns | None, ...]
    unions: ChannelUnions

    @property
    def node(self) -> Any:
        """The ONNX node."""
        return self.graph.nodes[self.index]

    def data(self, slot: int = 0) -> Unknowns:
        """Unknowns of an input that must be computed."""
        found = self.inputs[slot] if slot < len(self.inputs) else None
        if found is None:
            raise Refused
        return found

    def stored(self, slot: int, attribute: str = "") -> npt.NDArray[Any] | None:
        """A stored input, or the attribute that older operator sets have in its place; None where it is left out."""
        name = self.node.input[slot] if slot < len(self.node.input) else ""
        if not name:
            value = self.graph.attribute(self.index, attribute, None) if attribute else None
            return None if value is None else np.asarray(value)
        if not self.graph.is_constant(name):
            raise Refused
        return self.graph.constant(name)

    def sizes(self, name: str) -> tuple[int, ...]:
        """A tensor's shape without the batch."""
        shape = self.graph.shapes.get(name)
        if shape is None or any(size is None for size in shape[1:]):
            raise Refused
        return tuple(int(size or 0) for size in shape[1:])

    def axis(self, number: int) -> int:
        """An axis of the first input, counted without the batch."""
        rank = len(self.sizes(self.node.input[0])) + 1
        found = int(number) % rank - 1
        if found < 0:
            raise Refused
        return found


_Rule: TypeAlias = Callable[[Visit], Unknowns | tuple[Unknowns, ...]]


def _same(visit: Visit) -> Unknowns:
    return visit.data()


def _pooled(visit: Visit) -> Unknowns:
    """Windows mix positions, so a channel must have one factor."""
    unknowns = visit.data()
    return visit.unions.merged(unknowns, tuple(range(1, unknowns.ndim)))


def _reduced(visit: Visit) -> Unknowns:
    unknowns = visit.data()
    wanted = visit.stored(1, "axes")
    if wanted is None or wanted.size == 0:
        raise Refused
    axes = tuple(visit.axis(number) for number in wanted)
    unknowns = visit.unions.merged(unknowns, axes)
    return unknowns if visit.graph.attribute(visit.index, "keepdims", 1) else unknowns.squeeze(axes)


def _clipped(visit: Visit) -> Unknowns:
    """Only a bound at zero scales with the values."""
    low, high = visit.stored(1, "min"), visit.stored(2, "max")
    if any(bound is not None and bound != 0 and not np.isinf(bound) for bound in (low, high)):
        raise Refused
    return visit.data()


def _summed(visit: Visit) -> Unknowns:
    first, *others = (visit.data(slot) for slot in range(len(visit.inputs)))
    for other in others:
        if other.ndim != first.ndim:
            raise Refused
        visit.unions.unite(first, other)
        first = np.maximum(*np.broadcast_arrays(first, other))
    return first


def _multiplied(visit: Visit) -> Unknowns:
    """By something stored, or by a tensor that has no factors of its own."""
    first, second = visit.inputs
    if first is None or second is None:
        slot = 0 if second is None else 1
        return _by_stored(visit, slot)
    if first.ndim != second.ndim:
        raise Refused
    if visit.unions.all_fixed(second):
        kept = first
    elif visit.unions.all_fixed(first):
        kept = second
    else:
        raise Refused
    return kept


def _divided(visit: Visit) -> Unknowns:
    if visit.inputs[1] is None:
        return _by_stored(visit, 0)
    if not visit.unions.all_fixed(visit.data(1)):
        raise Refused
    return visit.data()


def _by_stored(visit: Visit, slot: int) -> Unknowns:
    if not visit.graph.is_constant(visit.node.input[1 - slot]):
        raise Refused
    if visit.sizes(visit.node.input[slot]) != visit.sizes(visit.node.output[0]):
        raise Refused
    return visit.data(slot)


def _padded(visit: Visit) -> Unknowns:
    """Zeros have any factor."""
    if visit.graph.attribute(visit.index, "mode", b"constant") != b"constant" or len(visit.node.input) > 3:
        raise Refused
    value = visit.stored(2, "value")
    pads = visit.stored(1, "pads")
    unknowns = visit.data()
    if (value is not None and value != 0) or pads is None or len(pads) != 2 * (unknowns.ndim + 1):
        raise Refused
    if pads[0] or pads[unknowns.ndim + 1]:
        raise Refused
    for axis in range(unknowns.ndim):
        before, after = int(pads[axis + 1]), int(pads[unknowns.ndim + 2 + axis])
        if unknowns.shape[axis] == 1 or not (before or after):
            continue
        if unknowns.size != unknowns.shape[axis] or min(before, after) < 0:
            raise Refused
        zeros = visit.unions.fresh(before + after, 1)
        flat = np.concatenate([zeros[:before], unknowns.ravel(), zeros[before:]])
        unknowns = flat.reshape([-1 if other == axis else 1 for other in range(unknowns.ndim)])
    return unknowns


def _sliced(visit: Visit) -> Unknowns:
    starts, ends = visit.stored(1, "starts"), visit.stored(2, "ends")
    if starts is None or ends is None:
        raise Refused
    axes, steps = visit.stored(3, "axes"), visit.stored(4)
    unknowns = visit.data()
    wanted = range(len(starts)) if axes is None else axes
    for position, number in enumerate(wanted):
        step = 1 if steps is None else int(steps[position])
        start, end = int(starts[position]), int(ends[position])
        if int(number) % (unknowns.ndim + 1) == 0:
            if start or step != 1 or end < np.iinfo(np.int32).max:
                # Whole batches only, whatever their number.
                raise Refused
            continue
        axis = visit.axis(number)
        if unknowns.shape[axis] > 1:
            # Python reads a negative end of a walk backwards as ONNX does, but for the one that means "to the start".
            chosen = np.arange(unknowns.shape[axis])[slice(start, None if end < -unknowns.shape[axis] else end, step)]
            unknowns = np.take(unknowns, chosen, axis=axis)
    return unknowns


def _joined(visit: Visit) -> Unknowns:
    axis = visit.axis(visit.graph.attribute(visit.index, "axis", 1))
    parts = []
    for slot, name in enumerate(visit.node.input):
        unknowns = visit.data(slot)
        shape = list(unknowns.shape)
        shape[axis] = visit.sizes(name)[axis]
        parts.append(np.broadcast_to(unknowns, shape))
    common = np.broadcast_shapes(*([*part.shape[:axis], 1, *part.shape[axis + 1 :]] for part in parts))
    wide = [np.broadcast_to(part, [*common[:axis], part.shape[axis], *common[axis + 1 :]]) for part in parts]
    return np.concatenate(wide, axis=axis)


def _split(visit: Visit) -> tuple[Unknowns, ...]:
    axis = visit.axis(visit.graph.attribute(visit.index, "axis", 0))
    unknowns = visit.data()
    if unknowns.shape[axis] == 1:
        return (unknowns,) * len(visit.node.output)
    sizes = [visit.sizes(name)[axis] for name in visit.node.output]
    return tuple(np.split(unknowns, np.cumsum(sizes)[:-1], axis=axis))


def _turned(visit: Visit) -> Unknowns:
    order = [int(axis) for axis in visit.graph.attribute(visit.index, "perm", ())]
    unknowns = visit.data()
    if len(order) != unknowns.ndim + 1 or order[0] != 0:
        raise Refused
    return unknowns.transpose([axis - 1 for axis in order[1:]])


def _reshaped(visit: Visit) -> Unknowns:
    """Any way of writing the same numbers in the same order, image by image."""
    before, after = visit.sizes(visit.node.input[0]), visit.sizes(visit.node.output[0])
    batches = [visit.graph.shapes[name][0] for name in (visit.node.input[0], visit.node.output[0])]
    if math.prod(before) != math.prod(after) or batches[0] != batches[1]:
        raise Refused
    full = np.broadcast_to(visit.data(), before).reshape(after)
    for axis in range(full.ndim):
        first = np.take(full, [0], axis=axis)
        if full.shape[axis] > 1 and (full == first).all():
            full = first
    return full


RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(("Identity", "LeakyRelu", "Relu", "Abs", "Neg"), _same),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), _pooled),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduced),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshaped),
    **dict.fromkeys(("Add", "Sub", "Sum"), _summed),
    "Clip": _clipped,
    "Concat": _joined,
    "Div": _divided,
    "Mul": _multiplied,
    "Pad": _padded,
    "Slice": _sliced,
    "Split": _split,
    "Transpose": _turned,
}
"""Operation to its rule. Those with weights are `channel_factors`' business, which remembers the weights."""
