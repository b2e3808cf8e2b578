"""The conditions that operator tables put on the use of an operator, as checks of one node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import helper

from edgekit.export.passes.graph_index import Dim, GraphIndex

__all__ = ["RULES", "NodeContext"]


class NodeContext:
    """A node and what its graph says of its inputs."""

    def __init__(self, node: onnx.NodeProto, index: GraphIndex, shapes: Mapping[str, tuple[Dim, ...]]) -> None:
        self.node = node
        self._index = index
        self._shapes = shapes

    def given(self, place: int) -> str | None:
        """The name of an input, or None where the node has none there."""
        return self.node.input[place] or None if place < len(self.node.input) else None

    def is_constant(self, name: str) -> bool:
        """Whether the graph holds the value: an initialiser or a Constant node."""
        producer = self._index.producers.get(name)
        return name in self._index.initialisers or (producer is not None and producer.op_type == "Constant")

    def rank(self, place: int) -> int | None:
        """How many axes an input has, where that is known."""
        shape = self._shapes.get(self.given(place) or "")
        return None if shape is None else len(shape)

    def is_zero(self, name: str) -> bool:
        """Whether a constant is zero everywhere."""
        value = self._index.constant(name)
        return value is not None and not value.any()

    def attribute(self, name: str, default: Any) -> Any:
        """The value of an attribute, texts as str."""
        for item in self.node.attribute:
            if item.name == name:
                value = helper.get_attribute_value(item)
                return value.decode() if isinstance(value, bytes) else value
        return default


def _constant_input(context: NodeContext, arguments: Mapping[str, Any]) -> bool:
    name = context.given(arguments["input"])
    return name is None or context.is_constant(name)


def _only_first_output(context: NodeContext, arguments: Mapping[str, Any]) -> bool:
    del arguments
    return not any(context.node.output[1:])


def _unit_dilations(context: NodeContext, arguments: Mapping[str, Any]) -> bool:
    del arguments
    return all(value == 1 for value in context.attribute("dilations", []))


def _input_rank(context: NodeContext, arguments: Mapping[str, Any]) -> bool:
    rank = context.rank(0)
    return rank is None or rank in arguments["ranks"]


def _spatial_rank(context: NodeContext, arguments: Mapping[str, Any]) -> bool:
    rank = context.rank(0)
    return rank is None or rank - 2 in arguments["ranks"]


def _zero_point_zero(context: NodeContext, arguments: Mapping[str, Any]) -> bool:
    del arguments
    name = context.given(2)
    return name is None or context.is_zero(name)


def _attribute(context: NodeContext, arguments: Mapping[str, Any]) -> bool:
    return context.attribute(arguments["name"], arguments["default"]) in arguments["allowed"]


RULES: Mapping[str, Callable[[NodeContext, Mapping[str, Any]], bool]] = {
    "attribute": _attribute,
    "constant-input": _constant_input,
    "input-rank": _input_rank,
    "note": lambda _context, _arguments: True,
    "only-first-output": _only_first_output,
    "spatial-rank": _spatial_rank,
    "unit-dilations": _unit_dilations,
    "zero-point-zero": _zero_point_zero,
}
"""Rule to whether a node keeps to it. What cannot be known, such as the rank of an untyped tensor, counts as kept."""
