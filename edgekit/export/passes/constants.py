"""What is known before the graph runs: values of constants, and those parts of shapes that the batch does not touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekit.export.passes.graph_index import GraphIndex, drop_unread, known_shapes

__all__ = ["FOLD_CONSTANTS", "FoldConstants"]

# Not QuantizeLinear and DequantizeLinear: a weight that is stored as integers is meant to stay so.
# fmt: off
_FOLDABLE = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Exp", "Expand",
    "Flatten", "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Log",
    "Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "Reshape", "Shape", "Slice",
    "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
})
# fmt: on
# A constant that grows by folding beyond this costs more in the file than its computation does.
_LARGEST = 1 << 20
_Partial = list[int | None]
"""A one-dimensional integer tensor of which some numbers are known."""


@dataclass(frozen=True)
class FoldConstants:
    """Constant nodes, nodes with constant inputs, and chains behind Shape that end in known numbers."""

    name: str = "fold-constants"
    needs: str = "nothing"
    promise: str = "no foldable node has inputs that are all constant, nor a result that the known shapes determine"

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        del model
        return None

    def apply(self, model: onnx.ModelProto) -> int:
        """See `GraphPass`."""
        folded = 0
        while True:
            index = GraphIndex(model)
            found = _known(model, index)
            if not found:
                return folded
            for node, value in found:
                model.graph.node.remove(node)
                tensor = numpy_helper.from_array(value, node.output[0])
                model.graph.initializer.append(tensor)
            drop_unread(model.graph)
            folded += len(found)

    def violation(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        left = [node.output[0] for node, _ in _known(model, GraphIndex(model))]
        return f"left: {', '.join(left[:5])}" if left else None


def _known(model: onnx.ModelProto, index: GraphIndex) -> list[tuple[onnx.NodeProto, npt.NDArray[Any]]]:
    partial = _partial_values(model, index)
    found = []
    for node in model.graph.node:
        if len(node.output) != 1 or node.output[0] in index.outputs or node.domain not in {"", "ai.onnx"}:
            continue
        value = _constant(model, node, index)
        if value is None:
            numbers, rank = partial.get(node.output[0], ([None], 1))
            if all(number is not None for number in numbers):
                value = np.array(numbers if rank else numbers[0], dtype=np.int64)
        if value is not None:
            found.append((node, value))
    return found


def _constant(model: onnx.ModelProto, node: onnx.NodeProto, index: GraphIndex) -> npt.NDArray[Any] | None:
    if node.op_type == "Constant":
        value = next((item for item in node.attribute if item.name == "value"), None)
        if value is not None:
            stored: npt.NDArray[Any] = numpy_helper.to_array(value.t)
            return stored
    elif node.op_type not in _FOLDABLE or not node.input:
        return None
    inputs = {name: index.constant(name) for name in node.input if name}
    if any(value is None for value in inputs.values()):
        return None
    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_tensor_value_info(name, index.initialisers[name].data_type, None) for name in inputs],
        [helper.make_value_info(node.output[0], onnx.TypeProto())],
    )
    single = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    (result,) = ReferenceEvaluator(single).run(None, inputs)
    array = np.asarray(result)
    largest = max((value.size for value in inputs.values() if value is not None), default=0)
    return array if array.size <= max(_LARGEST, largest) else None


def _partial_values(model: onnx.ModelProto, index: GraphIndex) -> dict[str, tuple[_Partial, int]]:
    """Integer tensors of rank 0 and 1 that come from shapes: their numbers as far as known, and their rank."""
    shapes = known_shapes(model)
    values: dict[str, tuple[_Partial, int]] = {}

    def read(name: str) -> tuple[_Partial, int] | None:
        constant = index.constant(name)
        if constant is None:
            return values.get(name)
        if constant.dtype != np.int64 or constant.ndim > 1:
            return None
        return [int(number) for number in constant.reshape(-1)], constant.ndim

    for node in model.graph.node:
        result: tuple[_Partial, int] | None = None
        if node.op_type == "Shape" and node.input[0] in shapes:
            attributes = {item.name: item.i for item in node.attribute}
            dims = shapes[node.input[0]][attributes.get("start", 0) : attributes.get("end")]
            result = [dim if isinstance(dim, int) else None for dim in dims], 1
        elif node.op_type == "Concat":
            parts = [read(name) for name in node.input]
            if all(part is not None and part[1] == 1 for part in parts):
                result = [number for part in parts if part is not None for number in part[0]], 1
        elif node.op_type in {"Gather", "Squeeze", "Unsqueeze"}:
            result = _moved(node, read(node.input[0]), index)
        if result is not None:
            values[node.output[0]] = result
    return values


def _moved(node: onnx.NodeProto, source: tuple[_Partial, int] | None, index: GraphIndex) -> tuple[_Partial, int] | None:
    if source is None:
        return None
    numbers, rank = source
    if node.op_type == "Gather":
        places = index.constant(node.input[1])
        if places is None or places.ndim > 1 or rank != 1:
            return None
        return [numbers[int(place)] for place in places.reshape(-1)], places.ndim
    if node.op_type == "Squeeze" and len(numbers) == 1:
        return numbers, 0
    if node.op_type == "Unsqueeze" and rank == 0:
        return numbers, 1
    return None


FOLD_CONSTANTS = FoldConstants()
