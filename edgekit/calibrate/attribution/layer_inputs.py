"""What a layer with weights reads: the same images through the FP32 graph and through the rounded one, batch by batch.

The rounded side takes its weights and biases as data, so that layers are settled one after the other: what a layer
reads already carries the choices made for those before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.formats import NumberFormat, number_format
from edgekit.calibrate.graph import IMAGE, ExplainedGraph
from edgekit.calibrate.observers import activation_graph
from edgekit.calibrate.placement import WeightUse, place
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.runtime import open_session, run_session
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.interface.batches import filled

__all__ = ["InputPair", "LayerInputs"]

_BATCH = 32
# The largest input of a run; larger runs are cut into smaller ones.
_RUN_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class InputPair:
    """One batch of a layer's input.

    Attributes:
        exact: float32 [n, ...], as FP32 has it.
        rounded: The same as the rounded graph has it.
    """

    exact: npt.NDArray[np.float32]
    rounded: npt.NDArray[np.float32]


class LayerInputs:
    """Both graphs, cut before a layer.

    Args:
        graph: The FP32 graph the table was made for, before adjustment.
        table: Scales of the activations. Offsets of weights and shifts of biases in it do not count: all weights and
            biases start as they are.

    Attributes:
        graph: The adjusted graph, whose activations are the truth.
        uses: The layers, in graph order.
        fmt: The number format.
    """

    def __init__(self, graph: ExplainedGraph, table: ScaleTable) -> None:
        adjustments = replace(table.adjustments, bias_shifts={}, rounding={})
        table = replace(table, adjustments=adjustments)
        self.graph = apply_adjustments(graph, adjustments)
        self.fmt: NumberFormat = number_format(table.number_format)
        self.uses: tuple[WeightUse, ...] = place(self.graph, self.fmt, table.provenance.exclude).weights
        self._written = _with_fed_weights(write_qdq(graph, table), self.graph, self.uses)
        self._values = {use.weight: self.graph.constant(use.weight) for use in self.uses}
        self._values |= {use.bias: self.graph.constant(use.bias) for use in self.uses if use.bias is not None}

    def settle(self, use: WeightUse, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32] | None) -> None:
        """From now on the rounded graph computes this layer with these values."""
        self._values[use.weight] = weight
        if use.bias is not None and bias is not None:
            self._values[use.bias] = bias

    def batches(self, use: WeightUse, images: npt.NDArray[np.float32]) -> Iterator[InputPair]:
        """What the layer reads for `images`, float32 [N, 3, H, W]."""
        exact = None if use.data == IMAGE else open_session(activation_graph(self.graph, (use.data,)))
        name = f"{use.data}/dequantised"
        cut = _cut(self._written, name)
        rounded = open_session(cut)
        feeds = {
            value.name: self._values[value.name.removesuffix("/fed")]
            for value in cut.graph.input
            if value.name != IMAGE
        }
        step = self.graph.batch or self._images_a_run(use)
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            given = filled(batch, self.graph.batch)
            truth = batch if exact is None else run_session(exact, [use.data], {IMAGE: given})[use.data]
            found = run_session(rounded, [name], {IMAGE: given, **feeds})[name]
            yield InputPair(truth[: len(batch)], found[: len(batch)])

    def _images_a_run(self, use: WeightUse) -> int:
        sides = self.graph.shapes.get(use.data, ())[1:]
        an_image = 4 * math.prod(side for side in sides if side is not None)
        return max(1, min(_BATCH, _RUN_BYTES // max(an_image, 1)))


def _with_fed_weights(model: Any, graph: ExplainedGraph, uses: tuple[WeightUse, ...]) -> Any:
    """The forward path of a Q/DQ model with `<weight>/fed` and `<bias>/fed` as inputs behind the image."""
    results = {graph.nodes[use.node].output[0]: use for use in uses}
    fed: dict[str, None] = {}
    nodes = []
    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        use = results.get(node.output[0])
        if use is not None:
            node.input[1] = f"{use.weight}/fed"
            fed[use.weight] = None
            if use.bias is not None:
                node.input[2] = f"{use.bias}/fed"
                fed[use.bias] = None
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input.extend(
        helper.make_tensor_value_info(f"{name}/fed", onnx.TensorProto.FLOAT, graph.constant_shape(name)) for name in fed
    )
    return model


def _cut(model: Any, tensor: str) -> Any:
    """The part of a model that computes one tensor from the image and what is fed."""
    made = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    needed: set[int] = set()
    pending = [tensor]
    read = set(pending)
    while pending:
        index = made.get(pending.pop())
        if index is not None and index not in needed:
            needed.add(index)
            names = model.graph.node[index].input
            read.update(names)
            pending.extend(names)
    part = onnx.ModelProto()
    part.ir_version = model.ir_version
    part.opset_import.extend(model.opset_import)
    part.graph.name = "layer_input"
    part.graph.node.extend(model.graph.node[index] for index in sorted(needed))
    part.graph.initializer.extend(item for item in model.graph.initializer if item.name in read)
    part.graph.input.extend(value for value in model.graph.input if value.name in read)
    part.graph.output.append(helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    return part
