"""A graph for one batch size, where an engine cannot change its shapes."""

from __future__ import annotations

import onnx

from edgekit.export.onnx_graph import BATCH

__all__ = ["fix_batch"]


def fix_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of `model` that takes `batch` images and no other number.

    What else is said of sizes that depend on the batch is dropped: it is inferred again, as numbers.

    Args:
        model: An exported graph with a dynamic batch.
        batch: At least 1.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == BATCH:
                dim.dim_value = batch
    symbolic = [
        value for value in fixed.graph.value_info if any(dim.dim_param for dim in value.type.tensor_type.shape.dim)
    ]
    for value in symbolic:
        fixed.graph.value_info.remove(value)
    return fixed
