"""What is blamed: the tensors that are rounded together, and the names that people know them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import Placement
from edgekit.export.origin import MAP, module_of_node

__all__ = ["Unit", "UnitKind", "forward_positions", "units_of"]

UnitKind: TypeAlias = Literal["activation", "weight"]


@dataclass(frozen=True)
class Unit:
    """Tensors whose rounding is one decision.

    Attributes:
        name: Of the tensor that the unit is called by: the stored weight, or the activation whose range was observed.
        kind: Activations that hold the same integers, or one stored weight with the bias that is stored in its steps.
        tensors: All of them; more than one where data movers copy integers.
        biases: Stored biases that are rounded with a weight.
        node: Name of the ONNX node that makes the activation, or of the first that reads the weight; None for the
            image and for nodes without a name.
        operation: That node's operator, "Input" for the image.
        module: Dotted name of the torch module which that node came from, None where it is not known.
        depth: That node's place among the operations on the way to the logits, from 1; 0 for the image.
    """

    name: str
    kind: UnitKind
    tensors: tuple[str, ...]
    biases: tuple[str, ...]
    node: str | None
    operation: str
    module: str | None
    depth: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "name": self.name,
            "kind": self.kind,
            "tensors": list(self.tensors),
            "biases": list(self.biases),
            "node": self.node,
            "operation": self.operation,
            "module": self.module,
            "depth": self.depth,
        }


def forward_positions(graph: ExplainedGraph) -> Mapping[int, int]:
    """Index of an operation on the way to the logits to its place among them, from 1; stored tensors do not count."""
    operations = [index for index in graph.forward if graph.nodes[index].op_type != "Constant"]
    return {index: place for place, index in enumerate(operations, 1)}


def units_of(graph: ExplainedGraph, placement: Placement) -> tuple[Unit, ...]:
    """Everything that is rounded in a graph, from the image to the logits.

    Args:
        graph: The graph that is quantised, adjusted where its table adjusts it.
        placement: What is quantised in it.
    """
    positions = forward_positions(graph)
    shared: dict[str, list[str]] = {}
    for name in placement.activations:
        shared.setdefault(placement.range_of[name], []).append(name)
    units = [
        _described(graph, positions, name, "activation", tuple(tensors), (), graph.producer.get(name))
        for name, tensors in shared.items()
    ]
    readers: dict[str, int] = {}
    biases: dict[str, dict[str, None]] = {}
    owner = {use.bias: use.weight for use in placement.weights if use.bias is not None}
    for use in placement.weights:
        readers.setdefault(use.weight, use.node)
        # A bias that two operations share is rounded by the steps of the last, as the probe does it.
        if use.bias is not None and owner[use.bias] == use.weight:
            biases.setdefault(use.weight, {})[use.bias] = None
    units += [
        _described(graph, positions, weight, "weight", (weight,), tuple(biases.get(weight, ())), node)
        for weight, node in readers.items()
    ]
    return tuple(sorted(units, key=lambda unit: (unit.depth, unit.kind == "activation")))


def _described(  # noqa: PLR0913, PLR0917 - one place makes both kinds
    graph: ExplainedGraph,
    positions: Mapping[int, int],
    name: str,
    kind: UnitKind,
    tensors: tuple[str, ...],
    biases: tuple[str, ...],
    index: int | None,
) -> Unit:
    if index is None:
        return Unit(name, kind, tensors, biases, None, "Input", None, 0)
    node = graph.nodes[index]
    module = module_of_node(node)
    return Unit(
        name=name,
        kind=kind,
        tensors=tensors,
        biases=biases,
        node=node.name or None,
        operation=node.op_type,
        module=None if module == MAP else module,
        depth=positions.get(index, 0),
    )
