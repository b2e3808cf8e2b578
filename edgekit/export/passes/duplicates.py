"""What is computed twice is computed once."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from edgekit.export.origin import module_of_node, outputs_of_node, set_origin
from edgekit.export.passes.graph_index import GraphIndex, drop_unread

__all__ = ["MERGE_DUPLICATES", "MergeDuplicates"]

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout"}
)
_Key = tuple[object, ...]


@dataclass(frozen=True)
class MergeDuplicates:
    """Common subexpression elimination, constants included."""

    name: str = "merge-duplicates"
    needs: str = "nothing"
    promise: str = "no two nodes have the same operator, inputs and attributes, and no two constants the same value"

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        del model
        return None

    def apply(self, model: onnx.ModelProto) -> int:
        """See `GraphPass`."""
        merged = _merge_constants(model)
        outputs = {value.name for value in model.graph.output}
        known: dict[_Key, onnx.NodeProto] = {}
        renamed: dict[str, str] = {}
        kept = []
        for node in model.graph.node:
            for slot, name in enumerate(node.input):
                node.input[slot] = renamed.get(name, name)
            twin = known.setdefault(_key(node), node)
            if twin is node or node.op_type in _RANDOM or not _fits(twin, node, outputs):
                kept.append(node)
                continue
            set_origin(twin, module_of_node(twin), outputs_of_node(twin) + outputs_of_node(node))
            renamed.update(zip(node.output, twin.output, strict=True))
            merged += 1
        if len(kept) != len(model.graph.node):
            remaining = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
            model.graph.ClearField("node")
            model.graph.node.extend(remaining)
        drop_unread(model.graph)
        return merged

    def violation(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        outputs = {value.name for value in model.graph.output}
        known: dict[_Key, onnx.NodeProto] = {}
        for node in model.graph.node:
            twin = known.setdefault(_key(node), node)
            if twin is not node and node.op_type not in _RANDOM and _fits(twin, node, outputs):
                return f"{twin.output[0]} and {node.output[0]} are computed alike"
        values: dict[_Key, str] = {}
        for item in model.graph.initializer:
            twin_name = values.setdefault(_value(item), item.name)
            if twin_name != item.name:
                return f"{twin_name} and {item.name} hold the same"
        return None


def _fits(twin: onnx.NodeProto, node: onnx.NodeProto, outputs: set[str]) -> bool:
    """Whether `twin` can stand for `node`: not where `node` makes an output of the graph, which keeps its name."""
    same = [bool(name) for name in twin.output] == [bool(name) for name in node.output]
    return same and not outputs & set(node.output)


def _key(node: onnx.NodeProto) -> _Key:
    attributes = sorted(item.SerializeToString(deterministic=True) for item in node.attribute)
    return (node.domain, node.op_type, tuple(node.input), tuple(attributes))


def _value(item: onnx.TensorProto) -> _Key:
    nameless = onnx.TensorProto()
    nameless.CopyFrom(item)
    nameless.ClearField("name")
    return (nameless.SerializeToString(deterministic=True),)


def _merge_constants(model: onnx.ModelProto) -> int:
    index = GraphIndex(model)
    known: dict[_Key, str] = {}
    renamed = {}
    for item in model.graph.initializer:
        twin = known.setdefault(_value(item), item.name)
        if twin != item.name and item.name not in index.outputs:
            renamed[item.name] = twin
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            node.input[slot] = renamed.get(name, name)
    drop_unread(model.graph)
    return len(renamed)


MERGE_DUPLICATES = MergeDuplicates()
