"""One range for all that a concatenation of integers joins, where somebody asks for it.

TensorRT joins integers of one scale by laying them side by side; of several it rounds each input once more. One scale
for all costs the inputs of small range their resolution, so it is a choice. Source of the rule: the propagation of Q/DQ
in TensorRT's documentation, as collected for this project; what it gains was never measured on TensorRT.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.calibrate.formats import Range
from edgekit.calibrate.graph import Edge, ExplainedGraph
from edgekit.calibrate.placement import Placement

__all__ = ["shared_by_concatenations"]


def shared_by_concatenations(
    graph: ExplainedGraph, placement: Placement, ranges: Mapping[str, Range]
) -> dict[str, Range]:
    """Widen ranges until every concatenation on the way to the logits joins integers of one.

    Args:
        graph: The graph that is quantised.
        placement: What is quantised in it.
        ranges: A range for each tensor of `placement.observed`.

    Returns:
        A range for each of them, none narrower than before.
    """
    leader = {name: name for name in ranges}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for index in graph.forward:
        node = graph.nodes[index]
        if node.op_type != "Concat":
            continue
        joined = [
            placement.range_of[name]
            for slot, name in enumerate(node.input)
            if Edge(index, slot) in placement.dequantised_reads.get(name, ())
        ]
        joined += [placement.range_of[name] for name in node.output if name in placement.range_of]
        for name in joined[1:]:
            leader[find(name)] = find(joined[0])
    widest: dict[str, Range] = {}
    for name, limits in ranges.items():
        before = widest.get(find(name), limits)
        widest[find(name)] = Range(min(before.low, limits.low), max(before.high, limits.high))
    return {name: widest[find(name)] for name in ranges}
