"""An exported graph in an older operator set.

The exporter writes operator set 18 and converts upwards. TensorRT 8.5 and 8.6 (JetPack 5 and 6.0) read 17 at most, and
ONNX's own converter gives up on reductions whose axes are stored as constants; so the step from 18 to 17 is done here.
What changed between the two, by ONNX's change log: reductions took their axes as an attribute (ReduceSum excepted,
whose axes are an input since 13), Split had no number of outputs, Pad no axes, Resize no axes and no antialiasing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import defs, helper

from edgekit.errors import BadInputError
from edgekit.export.origin import module_of_node
from edgekit.export.passes.graph_index import Dim, GraphIndex, drop_unread, known_shapes

__all__ = ["NATIVE_OPSET", "OLDEST_OPSET", "downgraded", "opset_of"]

NATIVE_OPSET = 18
"""What torch's exporter writes before it converts."""
OLDEST_OPSET = 17
_Shapes = dict[str, tuple[Dim, ...]]


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operator set that `model` uses."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"})


def downgraded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph of operator set 18 in operator set 17.

    Raises:
        BadInputError: The graph uses what operator set 17 cannot say.
    """
    older = onnx.ModelProto()
    older.CopyFrom(model)
    index, shapes = GraphIndex(older), known_shapes(older)
    for node in older.graph.node:
        if defs.get_schema(node.op_type, NATIVE_OPSET, node.domain).since_version < NATIVE_OPSET:
            continue
        adapt = _ADAPTERS.get(node.op_type)
        if adapt is None or not adapt(node, index, shapes):
            raise BadInputError(
                f"The graph cannot be written in operator set {OLDEST_OPSET}.",
                found=f"{node.op_type}, as operator set {NATIVE_OPSET} has it",
                where=module_of_node(node),
                hint=f"choose a target that reads operator set {NATIVE_OPSET} or later, or replace the module",
            )
    for entry in older.opset_import:
        if entry.domain in {"", "ai.onnx"}:
            entry.version = OLDEST_OPSET
    drop_unread(older.graph)
    return older


def _take(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    """Remove an attribute and return it."""
    for item in node.attribute:
        if item.name == name:
            taken = onnx.AttributeProto()
            taken.CopyFrom(item)
            node.attribute.remove(item)
            return taken
    return None


def _reduction(node: onnx.NodeProto, index: GraphIndex, shapes: _Shapes) -> bool:
    del shapes
    keeps_all = _take(node, "noop_with_empty_axes")
    if len(node.input) < 2 or not node.input[1]:
        return keeps_all is None or not keeps_all.i
    axes = index.constant(node.input[1])
    if axes is None or axes.size == 0:
        return False
    del node.input[1:]
    node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes.reshape(-1)]))
    return True


def _split(node: onnx.NodeProto, index: GraphIndex, shapes: _Shapes) -> bool:
    _take(node, "num_outputs")
    if len(node.input) > 1 and node.input[1]:
        return True
    axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
    shape = shapes.get(node.input[0])
    size = None if shape is None else shape[axis]
    if not isinstance(size, int):
        return False
    count = len(node.output)
    part = -(-size // count)
    sizes = [part] * (count - 1) + [size - part * (count - 1)]
    name = index.add_constant(f"{node.output[0]}.split", np.array(sizes, dtype=np.int64))
    del node.input[1:]
    node.input.append(name)
    return True


def _pad(node: onnx.NodeProto, index: GraphIndex, shapes: _Shapes) -> bool:
    if len(node.input) < 4 or not node.input[3]:
        del node.input[3:]
        return True
    axes, pads, shape = index.constant(node.input[3]), index.constant(node.input[1]), shapes.get(node.input[0])
    if axes is None or pads is None or shape is None:
        return False
    full = np.zeros((2, len(shape)), dtype=np.int64)
    full[:, [int(axis) % len(shape) for axis in axes]] = pads.reshape(2, -1)
    node.input[1] = index.add_constant(f"{node.output[0]}.pads", full.reshape(-1))
    del node.input[3:]
    return True


def _resize(node: onnx.NodeProto, index: GraphIndex, shapes: _Shapes) -> bool:
    del index, shapes
    antialias, axes, policy = (_take(node, name) for name in ("antialias", "axes", "keep_aspect_ratio_policy"))
    plain = (antialias is None or not antialias.i) and (policy is None or policy.s in {b"", b"stretch"})
    return plain and axes is None


def _unchanged(node: onnx.NodeProto, index: GraphIndex, shapes: _Shapes) -> bool:
    """Operator set 18 added a choice, which must not be made."""
    del index, shapes
    reduction = next((item.s for item in node.attribute if item.name == "reduction"), b"none")
    return reduction in {b"none", b"add", b"mul"}


_ADAPTERS: dict[str, Callable[[onnx.NodeProto, GraphIndex, _Shapes], bool]] = {
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"), _reduction
    ),
    **dict.fromkeys(("ReduceProd", "ReduceSumSquare"), _reduction),
    "Pad": _pad,
    "Resize": _resize,
    "ScatterElements": _unchanged,
    "ScatterND": _unchanged,
    "Split": _split,
}
