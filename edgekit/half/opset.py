"""A graph in the operator set that has FP16 quantisation scales.

QuantizeLinear and DequantizeLinear take FP16 scales from operator set 19 on; a graph without them stays in its own,
which older parsers read. Of what changed between 13 and 19, by
ONNX's change log, two things need more than another number: reductions take their axes as an input since 18, and Split
needs its number of outputs where it is given no sizes. The rest added types, attributes with a default, or inputs that
may be left away. ONNX's own converter is not used: it loses what nodes say of their origin.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from edgekit.errors import BadInputError
from edgekit.half.view import QUANTISATION

__all__ = ["HALF_OPSET", "raised", "suited"]

HALF_OPSET = 19
"""The first operator set whose quantisation nodes take FP16 scales."""
_OLDEST = 13
_REDUCTIONS = frozenset(
    f"Reduce{kind}" for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
# Their newer versions differ from those of 13 in types, or in what has a default.
_WIDENED = frozenset(
    {
        *("Add", "AveragePool", "BatchNormalization", "Cast", "Constant", "ConstantOfShape", "CumSum", "Div", "Equal"),
        *("DequantizeLinear", "GreaterOrEqual", "HardSwish", "Identity", "LayerNormalization", "LeakyRelu"),
        *("LessOrEqual", "Mul", "PRelu", "Pad", "Pow", "QuantizeLinear", "Relu", "Reshape", "Resize"),
        *("ScatterElements", "ScatterND", "Shape", "Size", "Sub", "Trilu", "Where"),
    }
)


def suited(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in an operator set that has what FP16 types need: its own where nothing is quantised.

    Raises:
        BadInputError: As `raised`.
    """
    version = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if version < _OLDEST or any(node.op_type in QUANTISATION for node in model.graph.node):
        return raised(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in operator set 19, or in its own where that is newer.

    Raises:
        BadInputError: It uses an operator whose meaning changed on the way, or an operator set before 13.
    """
    newer = onnx.ModelProto()
    newer.CopyFrom(model)
    entry = next(item for item in newer.opset_import if item.domain in ("", "ai.onnx"))
    if entry.version >= HALF_OPSET:
        return newer
    if entry.version < _OLDEST:
        raise _refusal("the graph", f"operator set {entry.version}")
    taken = {tensor.name for tensor in newer.graph.initializer}
    taken |= {name for node in newer.graph.node for name in (*node.input, *node.output)}
    for node in newer.graph.node:
        if node.domain in ("", "ai.onnx") and _changed(node.op_type, entry.version):
            _adapt(node, newer.graph, taken)
    entry.version = HALF_OPSET
    # The first release with operator set 19.
    newer.ir_version = max(newer.ir_version, 9)
    return newer


def _changed(op_type: str, version: int) -> bool:
    try:
        since = int(defs.get_schema(op_type, HALF_OPSET).since_version)
    except defs.SchemaError:
        return True
    return since > version


def _adapt(node: onnx.NodeProto, graph: onnx.GraphProto, taken: set[str]) -> None:
    if node.op_type in _REDUCTIONS:
        axes = next((item for item in node.attribute if item.name == "axes"), None)
        if axes is not None:
            name = _unused(f"{node.output[0]}/axes", taken)
            graph.initializer.append(numpy_helper.from_array(np.array(axes.ints, dtype=np.int64), name))
            del node.input[1:]
            node.input.append(name)
            node.attribute.remove(axes)
    elif node.op_type == "Split":
        if len(node.input) < 2 or not node.input[1]:
            node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
    elif node.op_type not in _WIDENED:
        raise _refusal(node.name or node.output[0], f"{node.op_type}, which changed on the way to {HALF_OPSET}")


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _refusal(where: str, found: str) -> BadInputError:
    return BadInputError(
        "The graph cannot be given FP16 types: its operator set cannot be raised.",
        where=where,
        expected=f"operator set {HALF_OPSET} or later, or operators that mean the same in it",
        found=found,
        hint=f"export the graph in operator set {HALF_OPSET}, or build it with FP32 types",
    )
