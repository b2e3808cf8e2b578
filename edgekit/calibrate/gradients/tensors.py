"""What is known of a graph's tensors before it runs: their element types and their dimensions."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from edgekit.calibrate.graph import ExplainedGraph
from edgekit.errors import BadInputError

__all__ = ["Dims", "TensorFacts"]

Dims: TypeAlias = tuple[int | None, ...]

_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16})


class TensorFacts:
    """Types and shapes of an explained graph's tensors, by ONNX's own inference.

    Sizes of maps, windows and channels are numbers in an exported graph; only the batch is free.
    """

    def __init__(self, graph: ExplainedGraph) -> None:
        self.graph = graph
        inferred = onnx.shape_inference.infer_shapes(graph.model, data_prop=True).graph
        self._types: dict[str, int] = {}
        self._dims: dict[str, Dims] = {}
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            self._types[value.name] = value.type.tensor_type.elem_type
            if value.type.tensor_type.HasField("shape"):
                self._dims[value.name] = tuple(map(_size, value.type.tensor_type.shape.dim))

    def element_type(self, name: str) -> int:
        """The `onnx.TensorProto.DataType` of a tensor; 0 where it is not known."""
        if self.graph.is_constant(name):
            return int(onnx.helper.np_dtype_to_tensor_dtype(self.graph.constant(name).dtype))
        return self._types.get(name, 0)

    def dtype(self, name: str) -> np.dtype[Any]:
        """The numpy type of a tensor."""
        found: np.dtype[Any] = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.element_type(name)))
        return found

    def is_float(self, name: str) -> bool:
        """True for tensors that can have a gradient, by their type."""
        return self.element_type(name) in _FLOATS

    def dims(self, name: str) -> Dims:
        """The sizes of a tensor; None for one that is known when the graph runs, such as the batch.

        Raises:
            BadInputError: Not even the number of axes is known.
        """
        if self.graph.is_constant(name):
            return self.graph.constant_shape(name)
        if name not in self._dims:
            raise BadInputError(
                "The graph cannot be differentiated: a tensor's shape is not known before it runs.",
                where=f"tensor {name!r}",
                expected="shapes of which the batch alone is open",
                hint="export it again with 'edgekit export', or use the method \"mse\"",
            )
        return self._dims[name]

    def value(self, name: str) -> npt.NDArray[Any] | None:
        """The value of a stored tensor, None for a computed one."""
        return np.asarray(self.graph.constant(name)) if self.graph.is_constant(name) else None


def _size(dim: Any) -> int | None:
    return int(dim.dim_value) if dim.HasField("dim_value") else None
