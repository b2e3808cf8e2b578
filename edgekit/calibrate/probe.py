"""A quantised graph whose numbers are fed as data: one session answers for any scales, weights and switches.

It is made from the very Q/DQ graph that would ship, so that what is asked here is what would run there, in float: where
the engine multiplies integers, this multiplies the same numbers as float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import offsets_of
from edgekit.calibrate.formats import NumberFormat, QuantParams, number_format
from edgekit.calibrate.graph import CLASS_INDEX, IMAGE, LOGITS, ExplainedGraph
from edgekit.calibrate.placement import Placement, WeightUse, place
from edgekit.calibrate.qdq import quantised_weight, write_qdq
from edgekit.calibrate.relatives import WeightRelatives
from edgekit.calibrate.runtime import open_session, run_session
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.interface.batches import filled

__all__ = ["Answers", "Probe", "ProbeSetting", "answers_of", "float_answers"]

_BATCH = 32


@dataclass(frozen=True)
class Answers:
    """What a graph says about some images.

    Attributes:
        logits: float32 [N, K].
        maps: One a tap, float32 [N, h, w] each, of the classes that were asked for.
    """

    logits: npt.NDArray[np.float32]
    maps: tuple[npt.NDArray[np.float32], ...]

    @property
    def classes(self) -> npt.NDArray[np.int32]:
        """Top-1, int32 [N]."""
        top: npt.NDArray[np.int32] = self.logits.argmax(axis=1).astype(np.int32)
        return top


@dataclass(frozen=True)
class ProbeSetting:
    """Numbers to run the probe with.

    Attributes:
        params: Activation to its scale and zero point.
        rounded: Activations that are rounded; the others pass as they are.
        weights: Weight to the float32 values that are used for it.
        biases: Bias to the float32 values that are used for it.
    """

    params: Mapping[str, QuantParams]
    rounded: frozenset[str]
    weights: Mapping[str, npt.NDArray[np.float32]]
    biases: Mapping[str, npt.NDArray[np.float32]]

    def with_params(self, name: str, params: QuantParams) -> ProbeSetting:
        """The same with another scale for one activation."""
        return replace(self, params={**self.params, name: params})

    def with_weight(self, name: str, values: npt.NDArray[np.float32]) -> ProbeSetting:
        """The same with other values for one weight."""
        return replace(self, weights={**self.weights, name: values})

    def with_bias(self, name: str, values: npt.NDArray[np.float32]) -> ProbeSetting:
        """The same with other values for one bias."""
        return replace(self, biases={**self.biases, name: values})


class Probe:
    """The Q/DQ graph of a scale table with its numbers as inputs.

    Args:
        graph: The FP32 graph the table was made for, before adjustment.
        table: Scales; also what a setting starts from.
        threads: Of the runtime, 0 for its choice.

    Attributes:
        graph: The adjusted graph.
        table: The table.
        activations: Tensors with a pair, in graph order. Copies that share a scale are listed too: `shared` tells.
        weights: Quantised weights, in graph order.
    """

    def __init__(self, graph: ExplainedGraph, table: ScaleTable, *, threads: int = 0) -> None:
        self.graph = apply_adjustments(graph, table.adjustments)
        self.table = table
        self.fmt: NumberFormat = number_format(table.number_format)
        self.activations = tuple(table.activations)
        self.weights = tuple(table.weights)
        placement = place(self.graph, self.fmt, table.provenance.exclude)
        self._biases = {use.bias: use for use in placement.weights if use.bias is not None}
        model = _with_inputs(self.graph, placement, write_qdq(graph, table), self.fmt)
        self._session = open_session(model, threads=threads)
        self._outputs = [value.name for value in model.graph.output]

    def setting(
        self, activations: Collection[str] | None = None, weights: Collection[str] | None = None
    ) -> ProbeSetting:
        """The table's numbers with only these activations and weights rounded; None stands for all of them."""
        rounded = self.activations if activations is None else activations
        chosen = self.weights if weights is None else weights
        return ProbeSetting(
            params={name: entry.params for name, entry in self.table.activations.items()},
            rounded=frozenset(rounded),
            weights={
                name: self.rounded_weight(name) if name in chosen else self.graph.constant(name)
                for name in self.weights
            },
            biases={
                bias: self._rounded_bias(use) if use.weight in chosen else self.graph.constant(bias)
                for bias, use in self._biases.items()
            },
        )

    def _rounded_bias(self, use: WeightUse) -> npt.NDArray[np.float32]:
        """A bias in steps of its int32 form, where the format has one; as it is elsewhere."""
        assert use.bias is not None
        bias: npt.NDArray[np.float32] = self.graph.constant(use.bias)
        if not self.fmt.integer_bias:
            return bias
        steps = np.asarray(self.table.weights[use.weight].scales, np.float32)
        steps = steps * np.float32(self.table.activations[use.data].scale)
        return (np.rint(bias.astype(np.float64) / steps) * steps).astype(np.float32)

    def rounded_weight(self, name: str) -> npt.NDArray[np.float32]:
        """A weight as the table rounds it, float32."""
        weight, entry = self.graph.constant(name), self.table.weights[name]
        offsets = offsets_of(self.table.adjustments, name, weight.shape)
        shape = [1] * weight.ndim
        shape[entry.axis] = -1
        steps = np.asarray(entry.scales, dtype=np.float32).reshape(shape)
        rounded: npt.NDArray[np.float32] = quantised_weight(weight, entry, self.fmt, offsets).astype(np.float32) * steps
        return rounded

    def run(
        self, images: npt.NDArray[np.float32], classes: npt.NDArray[np.int32] | None, setting: ProbeSetting
    ) -> Answers:
        """Answer prepared images.

        Args:
            images: float32 [N, 3, H, W].
            classes: Whose map is wanted, int32 [N]; None for the probe's own top-1.
            setting: The numbers.
        """
        feeds: dict[str, npt.NDArray[Any]] = {}
        for name in self.activations:
            params = setting.params[name]
            feeds[f"{name}/scale"] = np.asarray(params.scale, dtype=np.float32)
            feeds[f"{name}/zero_point"] = np.asarray(params.zero_point, dtype=self.fmt.dtype)
            feeds[f"{name}/on"] = np.asarray(name in setting.rounded)
            if self.fmt.activation_bits < 8:
                for key, end in (("low", self.fmt.qmin), ("high", self.fmt.qmax)):
                    bound = np.float32(end - params.zero_point) * np.float32(params.scale)
                    feeds[f"{name}/{key}"] = np.asarray(bound, dtype=np.float32)
        feeds |= {f"{name}/dequantised": setting.weights[name] for name in self.weights}
        feeds |= {f"{name}/fed": setting.biases[name] for name in self._biases}
        return _answers(self._session, self._outputs, self.graph.batch, images, classes, feeds)


def answers_of(
    model: Any, images: npt.NDArray[np.float32], classes: npt.NDArray[np.int32] | None, *, threads: int = 0
) -> Answers:
    """What an explained `onnx.ModelProto`, float or quantised, answers; arguments as `Probe.run`."""
    batch = next(value for value in model.graph.input if value.name == IMAGE).type.tensor_type.shape.dim[0]
    outputs = [value.name for value in model.graph.output]
    fixed = batch.dim_value if batch.HasField("dim_value") else None
    return _answers(open_session(model, threads=threads), outputs, fixed, images, classes, {})


def float_answers(graph: ExplainedGraph, images: npt.NDArray[np.float32], *, threads: int = 0) -> Answers:
    """What the FP32 graph answers, with the maps of its own top-1."""
    return answers_of(graph.model, images, None, threads=threads)


def _answers(
    session: Any,
    outputs: list[str],
    fixed: int | None,
    images: npt.NDArray[np.float32],
    classes: npt.NDArray[np.int32] | None,
    feeds: Mapping[str, npt.NDArray[Any]],
) -> Answers:
    parts = []
    step = fixed or _BATCH
    for start in range(0, len(images), step):
        batch = images[start : start + step]
        wanted = np.full(len(batch), OWN_CLASS, np.int32) if classes is None else classes[start : start + step]
        given = {**feeds, IMAGE: filled(batch, fixed), CLASS_INDEX: filled(wanted, fixed)}
        found = run_session(session, outputs, given)
        parts.append({name: found[name][: len(batch)] for name in outputs})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
    return Answers(joined[LOGITS], tuple(joined[name] for name in outputs if name != LOGITS))


def _with_inputs(graph: ExplainedGraph, placement: Placement, model: Any, fmt: NumberFormat) -> Any:
    """The Q/DQ model with scales, switches, weights and biases as inputs."""
    rewriting = _Rewriting(graph, placement, fmt)
    nodes = [*rewriting.copies, *(node for original in model.graph.node for node in rewriting.rewritten(original))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    fed = {value.name for value in rewriting.inputs}
    read = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    kept = [item for item in model.graph.initializer if item.name in read and item.name not in fed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.input.extend(rewriting.inputs)
    return model


class _Rewriting:
    """Node by node from the Q/DQ graph to the probe."""

    def __init__(self, graph: ExplainedGraph, placement: Placement, fmt: NumberFormat) -> None:
        self.activations = frozenset(placement.activations)
        self.weights = {use.weight: graph.constant_shape(use.weight) for use in placement.weights}
        biases = {use.bias: graph.constant_shape(use.bias) for use in placement.weights if use.bias is not None}
        self._bias_of = {graph.nodes[use.node].output[0]: use.bias for use in placement.weights if use.bias is not None}
        self._casts: dict[str, str] = {}
        self._stored: dict[str, str] = {}
        self.copies = [] if fmt.stored_weights else self._stored_copies(graph)
        integers = TensorProto.INT8 if fmt.signed else TensorProto.UINT8
        self.inputs = []
        for name in placement.activations:
            self.inputs += [_value(f"{name}/scale"), _value(f"{name}/zero_point", integers)]
            self.inputs.append(_value(f"{name}/on", TensorProto.BOOL))
            if fmt.activation_bits < 8:
                self.inputs += [_value(f"{name}/low"), _value(f"{name}/high")]
        self.inputs += [_value(f"{name}/dequantised", shape=shape) for name, shape in self.weights.items()]
        self.inputs += [_value(f"{name}/fed", shape=shape) for name, shape in biases.items()]

    def _stored_copies(self, graph: ExplainedGraph) -> list[Any]:
        """Nodes that make what the map branch reads of a weight, where the Q/DQ graph stores that as float."""
        nodes: list[Any] = []
        relatives = WeightRelatives(graph)
        for weight in self.weights:
            self._stored[f"{weight}/rounded"] = f"{weight}/dequantised"
            for copy in relatives.copies(weight):
                self._stored[f"{copy.name}/rounded"] = f"{weight}/dequantised"
                if copy.transposed:
                    self._stored[f"{copy.name}/rounded"] = f"{copy.name}/turned"
                    nodes.append(helper.make_node("Transpose", [f"{weight}/dequantised"], [f"{copy.name}/turned"]))
        return nodes

    def rewritten(self, original: Any) -> list[Any]:
        """What stands in for one node."""
        node = onnx.NodeProto()
        node.CopyFrom(original)
        output = node.output[0]
        base = output.removesuffix("/dequantised")
        if node.op_type == "DequantizeLinear" and base != output:
            if base in self.weights or base.endswith("/bias"):
                return []
            if base in self.activations:
                node.output[0] = f"{base}/as_rounded"
                switch = helper.make_node("Where", [f"{base}/on", node.output[0], base], [output], f"{output}/Where")
                return [node, switch]
        if node.op_type == "QuantizeLinear" and output.removesuffix("/quantised") in self.weights:
            return []
        if node.op_type == "Cast" and (weight := node.input[0].removesuffix("/quantised")) in self.weights:
            self._casts[output] = weight
            return []
        if node.op_type == "Mul" and node.input[0] in self._casts:
            fed = f"{self._casts[node.input[0]]}/dequantised"
            return [helper.make_node("Identity", [fed], [output], f"{output}/Identity")]
        for slot, name in enumerate(node.input):
            node.input[slot] = self._stored.get(name, name)
        if output in self._bias_of:
            node.input[2] = f"{self._bias_of[output]}/fed"
        return [node]


def _value(name: str, kind: int = TensorProto.FLOAT, shape: tuple[int, ...] = ()) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)
