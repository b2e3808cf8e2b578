"""How far an activation matters: where all that read it answer alike beyond a value, no integers are spent on it.

Hard-swish is zero below -3, and a convolution before it reaches far below. Nothing is lost by clipping there, and what
is left of the range gets finer steps. A method that only looks at a tensor's own values cannot know.
"""

from __future__ import annotations

import math

from edgekit.calibrate.formats import Range
from edgekit.calibrate.graph import ExplainedGraph

__all__ = ["live_limits", "within"]

_HARD_SWISH_LOW = -3.0
_EVERYTHING = (-math.inf, math.inf)


def live_limits(graph: ExplainedGraph, tensor: str) -> tuple[float, float]:
    """Below the first and above the second number every reader of a tensor answers as at that number.

    Infinite where that is not so, or where the tensor is an answer itself.
    """
    readers = graph.readers.get(tensor, ())
    if not readers or tensor in graph.outputs:
        return _EVERYTHING
    limits = [_reader_limits(graph, edge.node, edge.slot) for edge in readers]
    return min(low for low, _ in limits), max(high for _, high in limits)


def within(limits: Range, live: tuple[float, float]) -> Range:
    """A range without what does not matter. Zero stays in it."""
    return Range(min(max(limits.low, live[0]), 0.0), max(min(limits.high, live[1]), 0.0))


def _reader_limits(graph: ExplainedGraph, index: int, slot: int) -> tuple[float, float]:
    kind = graph.nodes[index].op_type
    if slot != 0:
        return _EVERYTHING
    if kind == "HardSwish":
        return _HARD_SWISH_LOW, math.inf
    if kind == "HardSigmoid":
        slope = float(graph.attribute(index, "alpha", 0.2))
        offset = float(graph.attribute(index, "beta", 0.5))
        return (-offset / slope, (1 - offset) / slope) if slope > 0 else _EVERYTHING
    if kind == "Relu":
        return 0.0, math.inf
    return _EVERYTHING
