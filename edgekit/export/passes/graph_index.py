"""One look at a graph: who makes a tensor, who reads it, what is constant, and which shapes are known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference

__all__ = ["Dim", "GraphIndex", "drop_unread", "known_shapes"]

Dim = int | str | None
"""A number, the name of a size that is not known, or nothing known at all."""


# Shapes are constants too, and have to be seen by inference.
_LARGEST_SHAPE = 64


class GraphIndex:
    """An index of `model` as it is now; make a new one after changing nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.initialisers = {item.name: item for item in self.graph.initializer}
        self.producers = {name: node for node in self.graph.node for name in node.output if name}
        self.readers = Counter(name for node in self.graph.node for name in node.input if name)
        self.outputs = [value.name for value in self.graph.output]
        self.inputs = [value.name for value in self.graph.input]

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of `name` where it is an initialiser."""
        found = self.initialisers.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def add_constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store `value` under `name`, or under the first free name like it."""
        taken = {*self.initialisers, *self.producers, *self.inputs}
        free, number = name, 0
        while free in taken:
            number += 1
            free = f"{name}_{number}"
        tensor = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), free)
        self.graph.initializer.append(tensor)
        self.initialisers[free] = tensor
        return free

    def reroute(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new`."""
        for node in self.graph.node:
            for slot, name in enumerate(node.input):
                if name == old:
                    node.input[slot] = new
        self.readers[new] += self.readers.pop(old, 0)


def known_shapes(model: onnx.ModelProto) -> dict[str, tuple[Dim, ...]]:
    """The shapes of the tensors of `model`, as far as the graph says and ONNX can infer."""
    inferred = shape_inference.infer_shapes(_without_weights(model), data_prop=True).graph
    shapes: dict[str, tuple[Dim, ...]] = {item.name: tuple(item.dims) for item in model.graph.initializer}
    for graph in (inferred, model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if not value.type.tensor_type.HasField("shape"):
                continue
            dims = tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
                for dim in value.type.tensor_type.shape.dim
            )
            before = shapes.get(value.name)
            if before is None or len(before) != len(dims):
                shapes[value.name] = dims
            else:
                shapes[value.name] = tuple(_better(old, new) for old, new in zip(before, dims, strict=True))
    return shapes


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with its large initialisers as inputs: inference reads their shapes alone, and would copy them."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    for item in model.graph.initializer:
        if np.prod(item.dims, dtype=np.int64) <= _LARGEST_SHAPE:
            light.graph.initializer.append(item)
        else:
            light.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, list(item.dims)))
    return light


def _better(old: Dim, new: Dim) -> Dim:
    """A number says more than a name, and the graph's own name more than an inferred one."""
    if isinstance(old, int):
        return old
    return old if new is None else new


def drop_unread(graph: onnx.GraphProto) -> int:
    """Remove initialisers that nobody reads, and what is said of tensors that are gone; return how many went."""
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [item for item in graph.initializer if item.name in read]
    dropped = len(graph.initializer) - len(kept)
    if dropped:
        graph.ClearField("initializer")
        graph.initializer.extend(kept)
    produced = {name for node in graph.node for name in node.output}
    infos = [value for value in graph.value_info if value.name in produced]
    if len(infos) != len(graph.value_info):
        graph.ClearField("value_info")
        graph.value_info.extend(infos)
    return dropped
