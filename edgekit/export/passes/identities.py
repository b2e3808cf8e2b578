"""Nodes that hand on what they get."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgekit.export.origin import module_of_node, outputs_of_node, set_origin
from edgekit.export.passes.graph_index import GraphIndex, drop_unread

__all__ = ["DROP_IDENTITIES", "DropIdentities"]


@dataclass(frozen=True)
class DropIdentities:
    """Identity, and Dropout, which does nothing at inference."""

    name: str = "drop-identities"
    needs: str = "no Dropout in training mode"
    promise: str = "no Identity and no Dropout is left, but between an input or a constant and an output of the graph"

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        index = GraphIndex(model)
        for node in model.graph.node:
            if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
                mode = index.constant(node.input[2])
                if mode is None or bool(mode):
                    return f"the Dropout {node.output[0]} is in training mode, or may be"
        return None

    def apply(self, model: onnx.ModelProto) -> int:
        """See `GraphPass`."""
        dropped = 0
        index = GraphIndex(model)
        for node in list(model.graph.node):
            if not _drops(node, index):
                continue
            source, result = node.input[0], node.output[0]
            model.graph.node.remove(node)
            if result in index.outputs:
                _take_over(index, node, source)
            else:
                index.reroute(result, source)
                producer = index.producers.get(source)
                if producer is not None and producer.output[0] == source:
                    set_origin(producer, module_of_node(producer), outputs_of_node(producer) + outputs_of_node(node))
            dropped += 1
            index = GraphIndex(model)
        drop_unread(model.graph)
        return dropped

    def violation(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        index = GraphIndex(model)
        left = [node.output[0] for node in model.graph.node if _drops(node, index)]
        return f"left: {', '.join(left[:5])}" if left else None


def _drops(node: onnx.NodeProto, index: GraphIndex) -> bool:
    if node.op_type not in {"Identity", "Dropout"}:
        return False
    if any(index.readers[name] or name in index.outputs for name in node.output[1:]):
        return False
    # An output of the graph has to be made by a node of its own.
    source_is_fixed = node.input[0] not in index.producers or node.input[0] in index.outputs
    return not (node.output[0] in index.outputs and source_is_fixed)


def _take_over(index: GraphIndex, node: onnx.NodeProto, source: str) -> None:
    """The producer of `source` makes the graph's output itself."""
    producer, result = index.producers[source], node.output[0]
    for slot, name in enumerate(producer.output):
        if name == source:
            producer.output[slot] = result
    index.reroute(source, result)
    set_origin(producer, module_of_node(producer), outputs_of_node(producer) + outputs_of_node(node))


DROP_IDENTITIES = DropIdentities()
