"""The written graph: deterministic, complete, and computing what a simulation in numpy computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from explained_graphs import GRAPHS, OPSET, GraphBuilder, random_images
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekit.calibrate.formats import NUMBER_FORMATS, NumberFormat, fake_quantise
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import ActivationScale, ScaleTable, WeightScale
from edgekit.calibrate.stage import QuantisedGraph, quantise_graph
from edgekit.errors import BadInputError, IntegrityError

CLASSES = np.array([-1, 0, 1, 2, 3, 4] * 2, dtype=np.int32)
FORMATS = pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
EVERY_GRAPH = pytest.mark.parametrize("name", GRAPHS)
X86 = NUMBER_FORMATS["x86-u8s8"]


def parsed(name: str) -> ExplainedGraph:
    return parse_graph(GRAPHS[name]().SerializeToString(), where=name)


def quantised(graph: ExplainedGraph, fmt: NumberFormat, **options: Any) -> QuantisedGraph:
    return quantise_graph(graph, random_images(), fmt, CalibrateOptions(**{"method": "minmax", **options}))


def run_plainly(model: onnx.ModelProto) -> list[npt.NDArray[np.float32]]:
    """Node by node, so that nothing is fused and each node means what ONNX says."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(serialise(model), options, providers=["CPUExecutionProvider"])
    return session.run(["logits", "attribution"], {"image": random_images().pixels, "class_index": CLASSES})


class Simulation:
    """The FP32 graph node by node in numpy, rounding what the scale table names where the placement says."""

    def __init__(self, graph: ExplainedGraph, result: QuantisedGraph, fmt: NumberFormat) -> None:
        self.graph, self.table, self.placement, self.fmt = graph, result.table, result.placement, fmt
        self.weights = {use.node: use for use in self.placement.weights}
        self.rounded = {edge: name for name, edges in self.placement.dequantised_reads.items() for edge in edges}
        self.forward = set(graph.forward)

    def weight(self, name: str) -> npt.NDArray[np.float32]:
        values = self.graph.constant(name)
        entry = self.table.weights[name]
        shape = [-1 if axis == entry.axis else 1 for axis in range(values.ndim)]
        scales = np.array(entry.scales, dtype=np.float32).reshape(shape)
        return np.clip(np.rint(values / scales), -self.fmt.weight_limit, self.fmt.weight_limit) * scales

    def bias(self, index: int) -> npt.NDArray[np.float32]:
        use = self.weights[index]
        values = self.graph.constant(use.bias)
        if not self.fmt.integer_bias:
            return values
        scales = np.array(self.table.weights[use.weight].scales, dtype=np.float32)
        scales *= np.float32(self.table.activations[use.data].scale)
        return np.rint(values / scales.astype(np.float64)).astype(np.float32) * scales

    def read(self, values: dict[str, Any], index: int, slot: int, name: str) -> Any:
        from edgekit.calibrate.graph import Edge

        use = self.weights.get(index)
        if use is not None and slot == 1:
            return self.weight(name)
        if use is not None and slot == 2:
            return self.bias(index)
        if self.graph.is_constant(name):
            return self.constant(index, name)
        if Edge(index, slot) in self.rounded:
            return fake_quantise(values[name], self.table.activations[name].params, self.fmt)
        return values[name]

    def constant(self, index: int, name: str) -> Any:
        """The map branch reads rounded weights, also where it has a transposed copy of its own."""
        values = self.graph.constant(name)
        if index not in self.forward and values.ndim >= 2:
            for weight in self.table.weights:
                original = self.graph.constant(weight)
                if np.array_equal(values, original):
                    return self.weight(weight)
                if np.array_equal(values, original.T):
                    return self.weight(weight).T
        return values

    def run(self, images: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        values: dict[str, Any] = {"image": images, "class_index": CLASSES}
        for index, node in enumerate(self.graph.nodes):
            inputs = {f"i{slot}": self.read(values, index, slot, name) for slot, name in enumerate(node.input) if name}
            values.update(zip(node.output, evaluate(node, inputs), strict=True))
        return [values["logits"], values["attribution"]]


def evaluate(node: onnx.NodeProto, inputs: dict[str, Any]) -> list[Any]:
    """One node by ONNX's reference implementation, which is numpy and knows nothing of quantisation here."""
    single = onnx.NodeProto()
    single.CopyFrom(node)
    del single.input[:]
    single.input.extend(inputs)
    make = onnx.helper.make_tensor_value_info
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype) for name, value in inputs.items()}
    graph = onnx.helper.make_graph(
        [single],
        "one",
        [make(name, kind, None) for name, kind in kinds.items()],
        [make(name, onnx.TensorProto.UNDEFINED, None) for name in node.output],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    return ReferenceEvaluator(model).run(None, {name: np.asarray(value) for name, value in inputs.items()})


@FORMATS
@EVERY_GRAPH
def test_the_graph_computes_what_a_simulation_computes(name: str, fmt: NumberFormat) -> None:
    graph = parsed(name)
    result = quantised(graph, fmt)
    simulated = Simulation(graph, result, fmt).run(random_images().pixels)
    for expected, found in zip(simulated, run_plainly(result.model), strict=True):
        # Sums in another order may put a value on the other side of a rounding: one step of some tensor, rarely.
        scale = np.abs(expected).max()
        assert np.abs(found - expected).max() <= 0.02 * scale
        assert np.abs(found - expected).mean() <= 0.001 * scale


@FORMATS
@pytest.mark.parametrize(("name", "reader"), [("gradient-head", "ConvTranspose"), ("residual", "MatMul")])
def test_the_map_branch_reads_rounded_weights(name: str, reader: str, fmt: NumberFormat) -> None:
    graph = parsed(name)
    result = quantised(graph, fmt)
    index = next(index for index, node in enumerate(graph.nodes) if node.op_type == reader)
    weight = graph.nodes[index].input[1]
    wanted = Simulation(graph, result, fmt).constant(index, weight)
    if reader == "MatMul" and fmt.placement == "tensorrt":
        # The classifier stays in float there, and so does its copy.
        np.testing.assert_array_equal(wanted, graph.constant(weight))
    else:
        assert not np.array_equal(wanted, graph.constant(weight))
    node = next(item for item in result.model.graph.node if item.name == graph.nodes[index].name)
    np.testing.assert_array_equal(computed_constant(result.model, node.input[1]), wanted)


def computed_constant(model: onnx.ModelProto, name: str) -> npt.NDArray[np.float32]:
    """The value of a tensor that depends on stored ones alone."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Cast", "Mul", "Transpose") and all(item in values for item in node.input):
            inputs = {f"i{slot}": values[item] for slot, item in enumerate(node.input)}
            values.update(zip(node.output, evaluate(node, inputs), strict=True))
    return values[name]


@FORMATS
@EVERY_GRAPH
def test_answers_stay_close_to_the_fp32_graph(name: str, fmt: NumberFormat) -> None:
    graph = parsed(name)
    for expected, found in zip(run_plainly(graph.model), run_plainly(quantised(graph, fmt).model), strict=True):
        assert np.abs(found - expected).max() <= 0.1 * np.abs(expected).max()


@FORMATS
@EVERY_GRAPH
def test_equal_inputs_give_equal_bytes(name: str, fmt: NumberFormat) -> None:
    first, second = (quantised(parsed(name), fmt, method="percentile") for _ in range(2))
    assert serialise(first.model) == serialise(second.model)
    assert first.table.to_bytes() == second.table.to_bytes()


@FORMATS
@EVERY_GRAPH
def test_the_table_and_the_graph_are_all_it_takes(name: str, fmt: NumberFormat) -> None:
    result = quantised(parsed(name), fmt)
    again = ScaleTable.from_dict(result.table.to_dict(), where="test")
    assert serialise(write_qdq(parsed(name), again)) == serialise(result.model)


@FORMATS
def test_inputs_outputs_and_opset_are_kept(fmt: NumberFormat) -> None:
    graph = parsed("residual")
    model = quantised(graph, fmt).model
    assert list(model.graph.input) == list(graph.model.graph.input)
    assert list(model.graph.output) == list(graph.model.graph.output)
    assert list(model.opset_import) == list(graph.model.opset_import)
    onnx.checker.check_model(model, full_check=True)


def test_weights_are_stored_as_integers_and_float_ones_are_gone() -> None:
    graph = parsed("residual")
    result = quantised(graph, X86)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    for use in result.placement.weights:
        assert use.weight not in stored
        assert use.bias not in stored
        integers = stored[f"{use.weight}/quantised"]
        assert integers.dtype == np.int8
        # Every channel uses its whole grid; -128 has no counterpart and stays unused.
        others = tuple(axis for axis in range(integers.ndim) if axis != use.axis)
        assert (np.abs(integers.astype(int)).max(axis=others) == 127).all()
    assert not any(node.op_type == "QuantizeLinear" and "constant" in node.input[0] for node in result.model.graph.node)


def test_the_file_shrinks_towards_a_quarter() -> None:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 64))
    for _ in range(3):
        x = g.relu(g.conv(x, 64, 64))
    g.pooled_head(x, 64, 5, 256)
    data = g.model().SerializeToString()
    assert len(serialise(quantised(parse_graph(data, where="test"), X86).model)) < 0.32 * len(data)


def test_biases_are_32_bit_integers_in_steps_of_input_times_weight() -> None:
    graph = parsed("residual")
    result = quantised(graph, X86)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    use = result.placement.weights[0]
    base = f"{graph.nodes[use.node].output[0]}/bias"
    assert stored[f"{base}/quantised"].dtype == np.int32
    np.testing.assert_allclose(
        stored[f"{base}/quantised"] * stored[f"{base}/scale"],
        graph.constant(use.bias),
        atol=float(stored[f"{base}/scale"].max()) / 2,
    )


def test_tensorrt_gets_float_weights_and_float_biases() -> None:
    graph = parsed("residual")
    result = quantised(graph, NUMBER_FORMATS["trt-s8s8"])
    producers = {name: node for node in result.model.graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in result.model.graph.initializer}
    for index in result.placement.quantised:
        node = next(item for item in result.model.graph.node if item.name == graph.nodes[index].name)
        if node.op_type == "Conv":
            dequantise = producers[node.input[1]]
            quantise = producers[dequantise.input[0]]
            assert [dequantise.op_type, quantise.op_type] == ["DequantizeLinear", "QuantizeLinear"]
            assert stored[quantise.input[0]].data_type == onnx.TensorProto.FLOAT
            assert stored[node.input[2]].data_type == onnx.TensorProto.FLOAT


def test_dead_channels_and_large_biases_are_kept() -> None:
    g = GraphBuilder()
    weight = g.rng.normal(0, 0.2, (16, 3, 3, 3))
    weight[3] = 0.0
    weight[5] *= 1e-12
    bias = np.zeros(16)
    bias[[3, 5]] = 0.75
    x = g.relu(g.conv_with("image", g.constant(weight), g.constant(bias)))
    g.pooled_head(g.relu(g.conv(x, 16, 16)), 16, 5, 256)
    graph = parse_graph(g.model().SerializeToString(), where="test")
    result = quantised(graph, X86)
    simulation = Simulation(graph, result, X86)
    np.testing.assert_allclose(simulation.bias(0)[[3, 5]], 0.75, rtol=0.01)
    for expected, found in zip(run_plainly(graph.model), run_plainly(result.model), strict=True):
        assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()


def test_a_weight_used_twice_is_stored_once() -> None:
    g = GraphBuilder()
    weight, bias = g.weight(16, 16, 3, 3), g.constant(g.rng.normal(0, 1, 16))
    x = g.relu(g.conv("image", 3, 16))
    x = g.relu(g.conv_with(g.relu(g.conv_with(x, weight, bias)), weight, bias))
    g.pooled_head(x, 16, 5, 256)
    graph = parse_graph(g.model().SerializeToString(), where="test")
    result = quantised(graph, X86)
    stored = [tensor.name for tensor in result.model.graph.initializer]
    assert stored.count(f"{weight}/quantised") == 1
    # The bias is in steps of each operation's own input.
    assert sum(name.endswith("/bias/quantised") for name in stored) == 4
    simulated = Simulation(graph, result, X86).run(random_images().pixels)
    for expected, found in zip(simulated, run_plainly(result.model), strict=True):
        assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


def test_weights_in_constant_nodes_are_weights_too() -> None:
    model = GRAPHS["residual"]()
    plain = parse_graph(model.SerializeToString(), where="test")
    nodes = [
        onnx.helper.make_node("Constant", [], [tensor.name], name=f"constant/{tensor.name}", value=tensor)
        for tensor in model.graph.initializer
    ]
    rest = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    graph = parse_graph(model.SerializeToString(), where="test")
    for fmt in NUMBER_FORMATS.values():
        expected, found = quantised(plain, fmt), quantised(graph, fmt)
        assert found.table.weights == expected.table.weights
        left = {node.output[0] for node in found.model.graph.node if node.op_type == "Constant"}
        assert not left & found.table.weights.keys()
        for first, second in zip(run_plainly(expected.model), run_plainly(found.model), strict=True):
            np.testing.assert_array_equal(first, second)


def test_an_excluded_reader_of_a_shared_weight_reads_it_unrounded() -> None:
    graph = parsed("gradient-head")
    result = quantised(graph, X86, exclude=("node_Conv_2",))
    assert all(use.node != 2 for use in result.placement.weights)
    node = next(item for item in result.model.graph.node if item.name == "node_Conv_2")
    assert node.input[1] == graph.nodes[2].input[1]


# Tables that do not fit


@pytest.fixture(scope="module")
def table() -> ScaleTable:
    return quantised(parsed("residual"), X86).table


def test_a_table_of_another_graph_is_refused(table: ScaleTable) -> None:
    with pytest.raises(IntegrityError, match="another graph"):
        write_qdq(parse_graph(GRAPHS["residual"](seed=1).SerializeToString(), where="test"), table)


def test_missing_and_surplus_entries_are_refused(table: ScaleTable) -> None:
    graph = parsed("residual")
    entry = ActivationScale(0.0, 1.0, 0.5, 0)
    without = {name: item for name, item in table.activations.items() if name != "image"}
    for wrong in (without, {**table.activations, "ghost": entry}):
        with pytest.raises(IntegrityError, match="activations"):
            write_qdq(graph, replace(table, activations=wrong))
    with pytest.raises(IntegrityError, match="weights"):
        write_qdq(graph, replace(table, weights={}))


def test_a_data_mover_between_two_scales_is_refused(table: ScaleTable) -> None:
    graph = parsed("residual")
    moved = next(name for name, source in place(graph, X86).range_of.items() if name != source)
    entry = replace(table.activations[moved], scale=table.activations[moved].scale * 2)
    with pytest.raises(IntegrityError, match="same integers"):
        write_qdq(graph, replace(table, activations={**table.activations, moved: entry}))


@pytest.mark.parametrize(
    "wrong", [WeightScale(0, (1.0,)), WeightScale(7, (1.0,) * 16), WeightScale(0, (2.0**-60,) * 16)]
)
def test_weight_scales_that_do_not_fit_are_refused(table: ScaleTable, wrong: WeightScale) -> None:
    graph = parsed("residual")
    first = graph.nodes[0].input[1]
    with pytest.raises(IntegrityError):
        write_qdq(graph, replace(table, weights={**table.weights, first: wrong}))


def test_a_taken_name_is_refused() -> None:
    model = GRAPHS["residual"]()
    for node in model.graph.node:
        for names in (node.input, node.output):
            for slot, name in enumerate(names):
                names[slot] = "image/scale" if name == "relu_1" else name
    graph = parse_graph(model.SerializeToString(), where="test")
    with pytest.raises(BadInputError, match="name that quantisation needs"):
        quantised(graph, X86)
