"""What FP16 typing wants to know of a graph: who makes and reads a tensor, its element type, what is stored."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy.typing as npt
import onnx
from onnx import TensorProto, defs, numpy_helper

from edgekit.errors import BadInputError

__all__ = ["QUANTISATION", "GraphView", "describe"]

QUANTISATION = ("QuantizeLinear", "DequantizeLinear")
# As `edgekit.export.origin` writes it.
_MODULE_KEY = "edgekit.module"


class GraphView:
    """A typed look at a model. Never modifies it.

    Args:
        model: A model whose shapes can be inferred.

    Raises:
        BadInputError: The graph's types contradict each other.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(model.graph.node)
        self.outputs: tuple[str, ...] = tuple(value.name for value in model.graph.output)
        self.producer = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in node.input:
                self.readers.setdefault(name, []).append(index)
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer} | {
            node.output[0]: item.t
            for node in self.nodes
            if node.op_type == "Constant"
            for item in node.attribute
            if item.name == "value"
        }
        self.opset = next(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))

    @cached_property
    def _types(self) -> dict[str, int]:
        try:
            inferred = onnx.shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True).graph
        except onnx.shape_inference.InferenceError as cause:
            raise BadInputError(
                "The types of the graph cannot be told.", found=str(cause).partition("\n")[0][:300]
            ) from cause
        values = (*inferred.input, *inferred.value_info, *inferred.output)
        found = {value.name: int(value.type.tensor_type.elem_type) for value in values}
        return found | {name: int(tensor.data_type) for name, tensor in self._stored.items()}

    def is_float(self, name: str) -> bool:
        """Whether a tensor is FP32."""
        return self._types.get(name) == int(TensorProto.FLOAT)

    def is_stored(self, name: str) -> bool:
        """Whether the graph holds a tensor's value."""
        return name in self._stored

    def value(self, name: str) -> npt.NDArray[Any]:
        """The value of a stored tensor."""
        found: npt.NDArray[Any] = numpy_helper.to_array(self._stored[name])
        return found

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that computes a tensor, None for inputs and stored ones."""
        index = self.producer.get(name)
        return None if index is None or self.is_stored(name) else self.nodes[index]

    def free_slots(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """The inputs of a node that are FP32 here and that ONNX lets be FP16."""
        schema = defs.get_schema(node.op_type, self.opset, node.domain)
        taken = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
        slots = []
        for slot, name in enumerate(node.input):
            formal = schema.inputs[min(slot, len(schema.inputs) - 1)]
            if name and self.is_float(name) and "tensor(float16)" in taken.get(formal.type_str, ()):
                slots.append(slot)
        return tuple(slots)

    def ancestors(self, name: str) -> frozenset[int]:
        """Indices of the nodes that a tensor depends on."""
        found: set[int] = set()
        pending = [name]
        while pending:
            index = self.producer.get(pending.pop())
            if index is not None and index not in found:
                found.add(index)
                pending.extend(self.nodes[index].input)
        return frozenset(found)


def describe(node: onnx.NodeProto) -> str:
    """A node for people: operator, name, and the module it came from where the graph says it."""
    text = f"{node.op_type} {node.name or node.output[0]!r}"
    module = next((item.value for item in node.metadata_props if item.key == _MODULE_KEY), "")
    return f"{text} of module {module!r}" if module else text
