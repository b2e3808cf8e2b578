"""Applying adjustments: an FP32 graph that computes the same and is rounded with less loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from edgekit.calibrate.adjustments import Adjustments, ChannelFactors
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.input_grid import with_input_grid
from edgekit.calibrate.relatives import WeightRelatives
from edgekit.core.digests import digest_bytes
from edgekit.errors import IntegrityError

__all__ = ["apply_adjustments"]


def apply_adjustments(graph: ExplainedGraph, adjustments: Adjustments) -> ExplainedGraph:
    """The graph with everything changed but the rounding, which is not a matter of FP32.

    Args:
        graph: The FP32 graph.
        adjustments: What to change. What the map branch reads of a weight changes with it: see `relatives`.

    Returns:
        `graph` itself where nothing changes.

    Raises:
        IntegrityError: A stored tensor is not in the graph, or has another shape.
    """
    if not adjustments.changes_graph:
        return graph
    values = {name: graph.constant(name) for name in graph.constant_names}
    relatives = WeightRelatives(graph)
    for item in adjustments.factors:
        _multiply(relatives, values, item)
    for name, shift in adjustments.bias_shifts.items():
        if name not in values or values[name].shape != (len(shift),):
            raise _misfit(name, f"a bias of {len(shift)} channels", values.get(name))
        values[name] = values[name] + np.asarray(shift, dtype=np.float32)
    model = _with_constants(graph, values)
    if adjustments.input_grid is not None:
        model = with_input_grid(_reread(model), adjustments.input_grid)
    onnx.checker.check_model(model)
    return _reread(model)


def _multiply(relatives: WeightRelatives, values: dict[str, npt.NDArray[Any]], item: ChannelFactors) -> None:
    name = item.constant
    found = values.get(name)
    if found is None or not 0 <= item.axis < found.ndim or found.shape[item.axis] != len(item.factors):
        raise _misfit(name, f"{len(item.factors)} slices along axis {item.axis}", found)
    values[name] = found * _along(item.factors, item.axis, found.ndim)
    for relative in relatives.of(name):
        axis = found.ndim - 1 - item.axis if relative.transposed else item.axis
        # Rows of zeros beyond those of the original stay what they are.
        factors = item.factors + (1.0,) * (values[relative.name].shape[axis] - len(item.factors))
        values[relative.name] = values[relative.name] * _along(factors, axis, found.ndim)


def _along(factors: tuple[float, ...], axis: int, rank: int) -> npt.NDArray[np.float32]:
    shape = [1] * rank
    shape[axis] = -1
    return np.asarray(factors, dtype=np.float32).reshape(shape)


def _with_constants(graph: ExplainedGraph, values: dict[str, npt.NDArray[Any]]) -> Any:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in values:
            for attribute in node.attribute:
                if attribute.name == "value":
                    attribute.t.CopyFrom(numpy_helper.from_array(values[node.output[0]], attribute.t.name))
    return model


def _reread(model: Any) -> ExplainedGraph:
    return ExplainedGraph(model, digest_bytes(model.SerializeToString(deterministic=True)))


def _misfit(name: str, expected: str, found: npt.NDArray[Any] | None) -> IntegrityError:
    return IntegrityError(
        "An adjustment of the scale table does not fit the graph.",
        where=name,
        expected=expected,
        found="no such stored tensor" if found is None else str(list(found.shape)),
    )
