"""Our TensorRT placement against a checker written from the rules, and the checker against known faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from explained_graphs import GRAPHS, GraphBuilder, random_images
from onnx import helper, numpy_helper

from edgekit.calibrate.formats import NUMBER_FORMATS, number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.stage import quantise_graph
from edgekit.calibrate.tensorrt_rules import check_tensorrt_rules


def quantised(name: str, fmt: str = "trt-s8s8", exclude: tuple[str, ...] = ()) -> Any:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    options = CalibrateOptions(method="minmax", exclude=exclude)
    model = quantise_graph(graph, random_images(), number_format(fmt), options).model
    return onnx.load_model_from_string(serialise(model))


TENSORRT_FORMATS = [name for name, fmt in NUMBER_FORMATS.items() if fmt.placement == "tensorrt"]


@pytest.mark.parametrize("fmt", TENSORRT_FORMATS)
@pytest.mark.parametrize("name", GRAPHS)
def test_our_graphs_keep_the_rules(name: str, fmt: str) -> None:
    model = quantised(name, fmt)
    assert check_tensorrt_rules(model) == ()
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) >= 4


@pytest.mark.parametrize("name", ["residual", "depthwise-relu6"])
def test_graphs_for_onnxruntime_break_them(name: str) -> None:
    found = "\n".join(check_tensorrt_rules(quantised(name, "x86-u8s8")))
    for part in ("zero point", "int32", "bias"):
        assert part in found
    assert "both inputs are quantised" in found


def replace_stored(model: Any, name: str, values: Any) -> None:
    tensor = next(item for item in model.graph.initializer if item.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def node_of(model: Any, op_type: str, position: int = 0) -> Any:
    return [node for node in model.graph.node if node.op_type == op_type][position]


def activation_pair(model: Any, position: int = 1) -> Any:
    """The QuantizeLinear of an activation."""
    stored = {item.name for item in model.graph.initializer}
    quantisers = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in stored]
    return quantisers[position]


def insert_pair(model: Any, node: Any, slot: int) -> None:
    """Put a sound pair on one input of a node."""
    like = activation_pair(model)
    name = node.input[slot]
    pair = [
        helper.make_node("QuantizeLinear", [name, *like.input[1:]], [f"{name}/q2"], name=f"{name}/q2"),
        helper.make_node("DequantizeLinear", [f"{name}/q2", *like.input[1:]], [f"{name}/dq2"], name=f"{name}/dq2"),
    ]
    position = list(model.graph.node).index(node)
    node.input[slot] = f"{name}/dq2"
    for item in reversed(pair):
        model.graph.node.insert(position, item)


def unsigned_zero_point(model: Any) -> None:
    replace_stored(model, activation_pair(model).input[2], np.array(0, dtype=np.uint8))


def shifted_zero_point(model: Any) -> None:
    replace_stored(model, activation_pair(model).input[2], np.array(1, dtype=np.int8))


def absent_zero_point(model: Any) -> None:
    del activation_pair(model).input[2]


def scale_of_zero(model: Any) -> None:
    replace_stored(model, activation_pair(model).input[1], np.array(0.0, dtype=np.float32))


def scale_for_each_channel(model: Any) -> None:
    replace_stored(model, activation_pair(model).input[1], np.full(16, 0.1, dtype=np.float32))


def computed_scale(model: Any) -> None:
    quantiser = activation_pair(model)
    model.graph.node.insert(0, helper.make_node("Identity", [quantiser.input[1]], ["computed"]))
    quantiser.input[1] = "computed"


def weights_along_their_inputs(model: Any) -> None:
    weight = next(node for node in model.graph.node if node.op_type == "DequantizeLinear" and len(node.attribute))
    weight.attribute[0].i = 1


def weights_alone(model: Any) -> None:
    conv = node_of(model, "Conv", 2)
    before = next(node for node in model.graph.node if conv.input[0] in node.output)
    conv.input[0] = next(node for node in model.graph.node if before.input[0] in node.output).input[0]


def quantised_bias(model: Any) -> None:
    insert_pair(model, node_of(model, "Conv", 2), 2)


def pair_before_activation(model: Any) -> None:
    insert_pair(model, node_of(model, "Relu", 1), 0)


def pair_on_both_sides_of_an_addition(model: Any) -> None:
    addition = node_of(model, "Add")
    slot = next(slot for slot, name in enumerate(addition.input) if "dequantised" not in name)
    insert_pair(model, addition, slot)


def float_skip(model: Any) -> None:
    addition = node_of(model, "Add")
    slot = next(slot for slot, name in enumerate(addition.input) if "dequantised" in name)
    addition.input[slot] = addition.input[slot].removesuffix("/dequantised")


def second_quantiser(model: Any) -> None:
    like = activation_pair(model)
    model.graph.node.append(helper.make_node("QuantizeLinear", list(like.input), ["again"]))


def scales_of_another_axis(model: Any) -> None:
    weight = next(node for node in model.graph.node if node.op_type == "DequantizeLinear" and len(node.attribute))
    replace_stored(model, weight.input[1], np.full(7, 0.1, dtype=np.float32))


def integers_of_a_bias(model: Any) -> None:
    like = activation_pair(model)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(4, np.int32), "wide"))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["wide", *like.input[1:]], ["narrow"], name="narrow"))


def negative_scale(model: Any) -> None:
    replace_stored(model, activation_pair(model).input[1], np.array(-0.1, dtype=np.float32))


def infinite_scale(model: Any) -> None:
    replace_stored(model, activation_pair(model).input[1], np.array(np.inf, dtype=np.float32))


FAULTS: dict[Callable[[Any], None], str] = {
    scales_of_another_axis: "do not fit axis",
    integers_of_a_bias: "int32 tensor cannot be dequantised",
    negative_scale: "not positive",
    infinite_scale: "not positive",
    unsigned_zero_point: "not int8 zero",
    shifted_zero_point: "not int8 zero",
    absent_zero_point: "written out",
    scale_of_zero: "not positive",
    scale_for_each_channel: "more than one scale",
    computed_scale: "not stored",
    weights_along_their_inputs: "output channels",
    weights_alone: "quantised together",
    quantised_bias: "bias is not a stored",
    pair_before_activation: "between a convolution",
    pair_on_both_sides_of_an_addition: "both inputs are quantised",
    float_skip: "skip input is not quantised",
    second_quantiser: "more than one QuantizeLinear",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_named(fault: Callable[[Any], None]) -> None:
    model = quantised("residual")
    fault(model)
    assert any(FAULTS[fault] in violation for violation in check_tensorrt_rules(model))


def test_a_convolution_in_float_does_no_addition_in_integers() -> None:
    """So pairs on both sides of its addition keep nothing from fusing."""
    for exclude, breaks in (((), True), (("node_Conv_5",), False)):
        model = quantised("residual", exclude=exclude)
        pair_on_both_sides_of_an_addition(model)
        assert any("both inputs are quantised" in found for found in check_tensorrt_rules(model)) is breaks


def test_a_stored_summand_is_no_skip() -> None:
    g = GraphBuilder()
    x = g.op("Add", g.conv("image", 3, 16), g.constant(np.ones((1, 16, 1, 1))))
    g.pooled_head(g.relu(g.conv(g.relu(x), 16, 16)), 16, 5, 256)
    graph = parse_graph(g.model().SerializeToString(), where="built")
    options = CalibrateOptions(method="minmax")
    assert check_tensorrt_rules(quantise_graph(graph, random_images(), number_format("trt-s8s8"), options).model) == ()


def test_data_moved_between_two_scales_is_named() -> None:
    model = quantised("padded-shortcut")
    pad = node_of(model, "Pad")
    after = next(node for node in model.graph.node if node.input and node.input[0] == pad.output[0])
    replace_stored(model, after.input[1], np.array(0.123, dtype=np.float32))
    assert any("moves data" in violation for violation in check_tensorrt_rules(model))


class PairedGraph(GraphBuilder):
    """Writes Q/DQ by hand, right or wrong as the test wants it."""

    def paired(self, x: str, scale: float = 0.05) -> str:
        ends = (self.constant(scale), self.constant(0, np.int8))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *ends), *ends)

    def paired_weight(self, *shape: int, axis: int = 0, scales: int | None = None) -> str:
        count = shape[axis] if scales is None else scales
        ends = (self.constant(np.full(count, 0.01)), self.constant(np.zeros(count), np.int8))
        integers = self.op("QuantizeLinear", self.weight(*shape), *ends, axis=axis)
        return self.op("DequantizeLinear", integers, *ends, axis=axis)

    def paired_conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, group: int = 1) -> str:
        weight = self.paired_weight(outputs, inputs // group, kernel, kernel)
        return self.op("Conv", self.paired(x), weight, pads=[kernel // 2] * 4, group=group)


def violations_of(g: GraphBuilder, exclude: tuple[str, ...] = ()) -> str:
    """Of nodes alone: the rules ask for no inputs and outputs."""
    stored = [numpy_helper.from_array(values, name) for name, values in g.initialisers.items()]
    graph = helper.make_graph(g.nodes, "g", [], [], stored)
    return "\n".join(check_tensorrt_rules(helper.make_model(graph), exclude))


@pytest.mark.parametrize(
    ("operator", "shape", "attributes", "right", "wrong"),
    [
        ("Gemm", (24, 32), {"transB": 1}, 0, 1),
        ("Gemm", (32, 24), {}, 1, 0),
        ("MatMul", (32, 24), {}, 1, 0),
        ("Conv", (24, 32, 3, 3), {}, 0, 1),
        ("ConvTranspose", (32, 24, 3, 3), {}, 1, 0),
    ],
)
def test_weights_are_scaled_along_their_output_channels(
    operator: str, shape: tuple[int, ...], attributes: dict[str, int], right: int, wrong: int
) -> None:
    for axis, breaks in ((right, False), (wrong, True)):
        g = PairedGraph()
        g.op(operator, g.paired("image"), g.paired_weight(*shape, axis=axis), **attributes)
        assert ("output channels" in violations_of(g)) is breaks


@pytest.mark.parametrize("operator", ["Gemm", "MatMul"])
def test_a_matrix_with_half_of_it_quantised_is_named(operator: str) -> None:
    for data, weight in ((True, False), (False, True)):
        g = PairedGraph()
        left = g.paired("image") if data else "image"
        g.op(operator, left, g.paired_weight(32, 24, axis=1) if weight else g.weight(32, 24))
        assert "quantised together" in violations_of(g)


@pytest.mark.parametrize(("operator", "shape", "axis"), [("Gemm", (32, 1), 1), ("MatMul", (32, 1), 1)])
def test_a_product_with_a_vector_is_named(operator: str, shape: tuple[int, ...], axis: int) -> None:
    g = PairedGraph()
    g.op(operator, g.paired("image"), g.paired_weight(*shape, axis=axis))
    assert "gains nothing" in violations_of(g)


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "group", "pays"),
    [
        (16, 16, 3, 1, True),
        (16, 16, 1, 1, True),
        (16, 12, 3, 1, True),
        (8, 8, 3, 1, False),
        (12, 20, 3, 1, False),
        (32, 32, 3, 32, True),
        (32, 32, 1, 32, False),
        (12, 12, 3, 12, False),
    ],
)
def test_thin_convolutions_are_named(inputs: int, outputs: int, kernel: int, group: int, pays: bool) -> None:
    g = PairedGraph()
    g.paired_conv(g.relu(g.conv("image", 3, inputs)), inputs, outputs, kernel, group)
    assert ("too thin" in violations_of(g)) is not pays


def test_the_first_convolution_may_be_thin() -> None:
    g = PairedGraph()
    g.paired_conv(g.op("Mul", "image", g.constant(0.5)), 3, 8)
    assert "too thin" not in violations_of(g)


@pytest.mark.parametrize("operator", ["Relu", "Sigmoid", "PRelu", "LeakyRelu", "HardSwish", "BatchNormalization"])
def test_nothing_stands_between_a_convolution_and_what_it_fuses_with(operator: str) -> None:
    for between in (False, True):
        g = PairedGraph()
        x = g.paired_conv("image", 16, 16)
        g.op(operator, g.paired(x) if between else x, *([g.constant(0.1)] if operator == "PRelu" else []))
        assert ("pair stands between" in violations_of(g)) is between


@pytest.mark.parametrize("operator", ["Add", "Mul"])
def test_two_results_that_fuse_with_nothing_are_both_integers_or_none(operator: str) -> None:
    for pairs, breaks in (((True, True), False), ((False, False), False), ((True, False), True), ((False, True), True)):
        g = PairedGraph()
        sides = [g.op("MaxPool", name, kernel_shape=[1, 1]) for name in ("image", "other")]
        left, right = (g.paired(side) if paired else side for side, paired in zip(sides, pairs, strict=True))
        name = g.op(operator, left, right)
        g.paired(name)
        assert ("one of two inputs" in violations_of(g)) is breaks
        assert "one of two inputs" not in violations_of(g, (g.nodes[-3].name,))
