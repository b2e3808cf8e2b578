"""Mean and deviation of a layer normalisation, which its gradient needs, computed beside it.

ONNX has them as further outputs of LayerNormalization, and TensorRT's parser reads the first output alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from edgekit.export.origin import module_of_node, set_origin
from edgekit.export.passes.graph_index import GraphIndex, drop_unread, known_shapes

__all__ = ["SINGLE_LAYER_NORM", "SingleLayerNorm"]


@dataclass(frozen=True)
class SingleLayerNorm:
    """One output a LayerNormalization; the rest is ReduceMean and arithmetic."""

    name: str = "single-layer-norm"
    needs: str = "operator set 17 or later"
    promise: str = "no LayerNormalization of a tensor of known rank has more than one output"

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        del model  # older sets have no LayerNormalization
        return None

    def apply(self, model: onnx.ModelProto) -> int:
        """See `GraphPass`."""
        index, shapes = GraphIndex(model), known_shapes(model)
        opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
        changed = 0
        kept: list[onnx.NodeProto] = []
        for node in model.graph.node:
            copied = onnx.NodeProto.FromString(node.SerializeToString())
            kept.append(copied)
            shape = shapes.get(node.input[0]) if _further(node) else None
            if shape is not None:
                kept.extend(_statistics(node, len(shape), opset, index))
                del copied.output[1:]
                changed += 1
        if changed:
            model.graph.ClearField("node")
            model.graph.node.extend(kept)
            drop_unread(model.graph)
        return changed

    def violation(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        shapes = known_shapes(model)
        left = [node.output[0] for node in model.graph.node if _further(node) and node.input[0] in shapes]
        return f"left: {', '.join(left[:5])}" if left else None


def _further(node: onnx.NodeProto) -> bool:
    return node.op_type == "LayerNormalization" and len(node.output) > 1


def _statistics(node: onnx.NodeProto, rank: int, opset: int, index: GraphIndex) -> list[onnx.NodeProto]:
    """`mean(x)` and `1 / sqrt(mean((x - mean)^2) + epsilon)`, as ONNX defines LayerNormalization."""
    attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    axis = int(attributes.get("axis", -1)) % rank
    source, result = node.input[0], node.output[0]
    given = [*node.output[1:], "", ""]
    mean, deviation = given[0] or f"{result}.mean", given[1] or f"{result}.deviation"
    # The statistics are float32 whatever the tensor is (stash_type 1, the only one there is).
    epsilon = index.add_constant(f"{result}.epsilon", np.array(attributes.get("epsilon", 1e-5), dtype=np.float32))
    axes = list(range(axis, rank))

    def averaged(name: str, output: str) -> onnx.NodeProto:
        if opset < 18:
            return helper.make_node("ReduceMean", [name], [output], axes=axes, keepdims=1)
        stored = index.add_constant(f"{result}.axes", np.array(axes, dtype=np.int64))
        return helper.make_node("ReduceMean", [name, stored], [output], keepdims=1)

    nodes = [
        averaged(source, mean),
        helper.make_node("Sub", [source, mean], [f"{result}.centred"]),
        helper.make_node("Mul", [f"{result}.centred", f"{result}.centred"], [f"{result}.squared"]),
        averaged(f"{result}.squared", f"{result}.variance"),
        helper.make_node("Add", [f"{result}.variance", epsilon], [f"{result}.shifted"]),
        helper.make_node("Sqrt", [f"{result}.shifted"], [f"{result}.root"]),
        helper.make_node("Reciprocal", [f"{result}.root"], [deviation]),
    ]
    for made in nodes:
        made.name = f"node_{made.output[0]}"
        set_origin(made, module_of_node(node), ())
    return nodes


SINGLE_LAYER_NORM = SingleLayerNorm()
