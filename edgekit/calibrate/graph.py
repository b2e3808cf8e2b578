"""A read-only view of an explained ONNX graph: who makes a tensor, who reads it, which part is the forward path.

The forward path is everything `logits` depends on. The rest, which turns activations and a class into `attribution`,
is the map branch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgekit.attribution.spec import output_name
from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes
from edgekit.errors import BadInputError

__all__ = [
    "ATTRIBUTION",
    "CLASS_INDEX",
    "IMAGE",
    "LOGITS",
    "PIXELS",
    "Edge",
    "ExplainedGraph",
    "parse_graph",
    "read_graph",
]

IMAGE, CLASS_INDEX, LOGITS, ATTRIBUTION = "image", "class_index", "logits", "attribution"
# The image turned back into pixels, in graphs that are adjusted so.
PIXELS = f"{IMAGE}/pixels"

# Per-axis DequantizeLinear came with opset 13.
_OLDEST_OPSET = 13
_QUANTISED_OPS = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "ConvInteger",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
    }
)


@dataclass(frozen=True, order=True)
class Edge:
    """One reading of a tensor.

    Attributes:
        node: Index of the reading node.
        slot: Position among its inputs.
    """

    node: int
    slot: int


class ExplainedGraph:
    """Topology, constants and shapes of an explained FP32 graph.

    Args:
        model: An `onnx.ModelProto` that passed `parse_graph`. Never modified.
        digest: SHA-256 of the bytes it was read from.
    """

    def __init__(self, model: Any, digest: str) -> None:
        self.model = model
        self.digest = digest
        self.nodes: tuple[Any, ...] = tuple(model.graph.node)
        self.outputs = frozenset(value.name for value in model.graph.output)
        self.producer = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer} | {
            node.output[0]: attribute.t
            for node in self.nodes
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }

    @cached_property
    def readers(self) -> dict[str, tuple[Edge, ...]]:
        """Tensor name to the places where nodes read it, in graph order."""
        found: dict[str, list[Edge]] = {}
        for index, node in enumerate(self.nodes):
            for slot, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append(Edge(index, slot))
        return {name: tuple(edges) for name, edges in found.items()}

    @cached_property
    def forward(self) -> tuple[int, ...]:
        """Indices of the nodes on the way to `logits`, in graph order."""
        return tuple(sorted(self.ancestors([LOGITS])))

    def ancestors(self, names: Iterable[str]) -> set[int]:
        """Indices of all nodes that the tensors `names` depend on."""
        found: set[int] = set()
        pending = [self.producer[name] for name in names if name in self.producer]
        while pending:
            index = pending.pop()
            if index not in found:
                found.add(index)
                pending.extend(self.producer[name] for name in self.nodes[index].input if name in self.producer)
        return found

    def is_constant(self, name: str) -> bool:
        """True for stored tensors."""
        return name in self._constants

    @property
    def constant_names(self) -> tuple[str, ...]:
        """Names of all stored tensors, in graph order."""
        return tuple(self._constants)

    def constant(self, name: str) -> npt.NDArray[Any]:
        """The value of a stored tensor."""
        value: npt.NDArray[Any] = numpy_helper.to_array(self._constants[name])
        return value

    def constant_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor, without reading it."""
        return tuple(self._constants[name].dims)

    def data_inputs(self, index: int) -> tuple[str, ...]:
        """The node's inputs that are computed rather than stored."""
        return tuple(name for name in self.nodes[index].input if name and not self.is_constant(name))

    def attribute(self, index: int, name: str, default: Any) -> Any:
        """A node's attribute, or `default` where it is not set."""
        for item in self.nodes[index].attribute:
            if item.name == name:
                return onnx.helper.get_attribute_value(item)
        return default

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Inferred shapes of float tensors where they are known; None for a dimension that varies."""
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        return {
            value.name: tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
            )
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.type.tensor_type.HasField("shape")
        }

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of the input image."""
        shape = self.shapes.get(IMAGE, ())
        fixed = [size for size in shape[1:] if size is not None]
        if len(shape) != 4 or len(fixed) != 3:
            raise BadInputError(
                "The graph's image input has no fixed size.", expected="float32 [N, 3, H, W]", found=str(list(shape))
            )
        return fixed[0], fixed[1], fixed[2]

    @property
    def batch(self) -> int | None:
        """The number of images that the graph takes, or None where it takes any."""
        return self.shapes[IMAGE][0]

    def names(self) -> Iterator[str]:
        """Every tensor name in the graph."""
        yield from (value.name for value in self.model.graph.input)
        yield from (tensor.name for tensor in self.model.graph.initializer)
        yield from self.producer


def read_graph(path: Path) -> ExplainedGraph:
    """Load an explained FP32 graph from a file.

    Raises:
        BadInputError: Unreadable, not ONNX, with tensors outside the file, or refused by `parse_graph`.
    """
    return parse_graph(read_bytes(path), where=str(path))


def parse_graph(data: bytes, *, where: str) -> ExplainedGraph:
    """Load an explained FP32 graph from bytes.

    Raises:
        BadInputError: Not ONNX, an opset before 13, already quantised, or not an explained graph.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception as cause:  # protobuf's error classes are not a dependency of ours
        raise _not_onnx(where, cause) from cause
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise BadInputError("The graph keeps its weights in other files.", where=where, expected="one ONNX file")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as cause:
        raise _not_onnx(where, cause) from cause
    graph = ExplainedGraph(model, digest_bytes(data))
    _check_is_explained(graph, where)
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise BadInputError(
            "The graph's opset is too old to be quantised per channel.",
            where=where,
            expected=f"opset {_OLDEST_OPSET} or later",
            found=f"opset {opset}",
            hint="export it again with 'edgekit export'",
        )
    quantised = sorted({node.op_type for node in model.graph.node if node.op_type in _QUANTISED_OPS})
    if quantised:
        raise BadInputError(
            "The graph is quantised already.",
            where=where,
            expected="the FP32 graph that 'edgekit export' wrote",
            found=", ".join(quantised),
        )
    return graph


def _not_onnx(where: str, cause: Exception) -> BadInputError:
    return BadInputError("A file is not a valid ONNX model.", where=where, found=str(cause).partition("\n")[0])


def _check_is_explained(graph: ExplainedGraph, where: str) -> None:
    model = graph.model
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in stored]
    outputs = [value.name for value in model.graph.output]
    maps = [output_name(tap) for tap in range(max(1, len(outputs) - 1))]
    if sorted(inputs) != sorted((IMAGE, CLASS_INDEX)) or outputs != [LOGITS, *maps]:
        raise BadInputError(
            "The ONNX graph is not an explained graph.",
            where=where,
            expected=f"inputs {IMAGE} and {CLASS_INDEX}, outputs {', '.join((LOGITS, *maps))}",
            found=f"inputs {', '.join(inputs)}, outputs {', '.join(outputs)}",
            hint="make it with 'edgekit export' or 'edgekit build'",
        )
    if any(CLASS_INDEX in graph.nodes[index].input for index in graph.forward):
        raise BadInputError("The graph's logits depend on class_index.", where=where)
    if any(attribute.HasField("g") or attribute.graphs for node in graph.nodes for attribute in node.attribute):
        raise BadInputError(
            "The graph has control flow, which cannot be quantised here.", where=where, expected="no If, Loop or Scan"
        )
    _ = graph.input_shape
