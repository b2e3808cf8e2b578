"""An assignment of precisions: operations lifted out of INT8, as patterns that `calibrate.exclude` takes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import DATA_MOVERS, WEIGHTED_OPS, Placement

__all__ = ["Operation", "exclude_patterns", "leaves_nothing", "pattern_of", "quantised_operations"]

_GLOB = re.compile(r"([*?[])")


@dataclass(frozen=True)
class Operation:
    """What is lifted as one: every quantised node of one name. ONNX does not ask for names to differ, or to be there.

    Attributes:
        name: The nodes' name, perhaps empty.
        kind: Their type, such as "Conv"; of several, joined by "+".
        nodes: Their indices, in graph order.
        weighted: One of them has weights.
    """

    name: str
    kind: str
    nodes: tuple[int, ...]
    weighted: bool


def quantised_operations(
    graph: ExplainedGraph, placement: Placement, known: Collection[str], *, joins: bool
) -> tuple[Operation, ...]:
    """The operations that compute in integers and can be lifted, in graph order.

    Data movers are left out: they round nothing of their own, and the placement leaves them in float with their
    neighbours.

    Args:
        graph: The adjusted FP32 graph.
        placement: What is quantised in it.
        known: Names that can be lifted: those of the graph before adjustment.
        joins: Additions and poolings are lifted by themselves too. TensorRT wants an addition in integers wherever its
            result is; there they follow the convolutions around them.
    """
    found: dict[str, list[int]] = {}
    for index in sorted(placement.quantised):
        node = graph.nodes[index]
        liftable = node.op_type in WEIGHTED_OPS or (joins and node.op_type not in DATA_MOVERS)
        if liftable and node.name in known:
            found.setdefault(node.name, []).append(index)
    operations = []
    for name, nodes in found.items():
        kinds = dict.fromkeys(graph.nodes[index].op_type for index in nodes)
        operations.append(Operation(name, "+".join(kinds), tuple(nodes), not WEIGHTED_OPS.isdisjoint(kinds)))
    return tuple(operations)


def pattern_of(name: str) -> str:
    """The pattern of `calibrate.exclude` that matches this name and no other: its glob characters are escaped."""
    return _GLOB.sub(r"[\1]", name)


def exclude_patterns(given: tuple[str, ...], lifted: Iterable[str]) -> tuple[str, ...]:
    """The recipe's own exclusions, and those that lift operations, sorted so that equal sets give equal tables."""
    further = sorted(pattern_of(name) for name in lifted)
    return (*given, *(pattern for pattern in further if pattern not in given))


def leaves_nothing(operations: Iterable[Operation], lifted: Collection[str]) -> bool:
    """True where no operation with weights is left in INT8: such an assignment is the FP32 graph."""
    return all(item.name in lifted for item in operations if item.weighted)
