"""Reshape and Expand towards a shape that is computed although all but the batch is known.

The exporter computes such shapes at run time, from Shape, Gather and Concat. Reshape can say "as in the input" (0) and
"whatever is left" (-1), and Expand "as it is" (1); with those the shape is a constant, and the chain in front of it is
dead. ONNX Runtime saves the nodes, and TensorRT need not follow shapes through the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from edgekit.export.passes.graph_index import Dim, GraphIndex, known_shapes

__all__ = ["STATIC_SHAPES", "StaticShapes"]


@dataclass(frozen=True)
class StaticShapes:
    """Constant shapes for Reshape and Expand."""

    name: str = "static-shapes"
    needs: str = "nothing"
    promise: str = "no Reshape and no Expand computes a shape that a constant can say"

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        del model
        return None

    def apply(self, model: onnx.ModelProto) -> int:
        """See `GraphPass`."""
        index = GraphIndex(model)
        found = _sayable(model, index)
        for node, shape in found:
            node.input[1] = index.add_constant(f"{node.output[0]}.shape", np.array(shape, dtype=np.int64))
            for item in [item for item in node.attribute if item.name == "allowzero"]:
                node.attribute.remove(item)
        return len(found)

    def violation(self, model: onnx.ModelProto) -> str | None:
        """See `GraphPass`."""
        left = [node.output[0] for node, _ in _sayable(model, GraphIndex(model))]
        return f"left: {', '.join(left[:5])}" if left else None


def _sayable(model: onnx.ModelProto, index: GraphIndex) -> list[tuple[onnx.NodeProto, list[int]]]:
    shapes = known_shapes(model)
    found = []
    for node in model.graph.node:
        if node.op_type not in {"Reshape", "Expand"} or node.input[1] not in index.producers:
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        if before is None or after is None:
            continue
        shape = _reshape(before, after) if node.op_type == "Reshape" else _expand(before, after)
        if shape is not None:
            found.append((node, shape))
    return found


def _reshape(before: tuple[Dim, ...], after: tuple[Dim, ...]) -> list[int] | None:
    shape = []
    for place, dim in enumerate(after):
        if isinstance(dim, int):
            # An empty tensor's 0 would be read as "as in the input".
            if dim == 0:
                return None
            shape.append(dim)
        elif dim is not None and place < len(before) and before[place] == dim:
            shape.append(0)
        else:
            shape.append(-1)
    return shape if shape.count(-1) <= 1 else None


def _expand(before: tuple[Dim, ...], after: tuple[Dim, ...]) -> list[int] | None:
    shape: list[int] = []
    aligned: tuple[Dim, ...] = (*[1] * (len(after) - len(before)), *before)
    for old, new in zip(aligned, after, strict=True):
        if isinstance(new, int):
            shape.append(new)
        elif new is not None and old == new:
            shape.append(1)
        else:
            return None
    return shape


STATIC_SHAPES = StaticShapes()
