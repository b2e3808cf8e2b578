"""What a DLA leaves to others, each rule kept and broken. No DLA takes part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from explained_graphs import GRAPHS, GraphBuilder, random_images
from onnx import TensorProto, helper, numpy_helper

from edgekit.calibrate.dla_rules import check_dla_rules
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph


class Paired(GraphBuilder):
    """A graph in which every tensor has a pair of one scale, as a DLA wants it, unless a test says otherwise."""

    def pair(self, x: str, scale: float = 0.05) -> str:
        ends = (self.constant(scale), self.constant(0, np.int8))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *ends), *ends)

    def paired_conv(self, x: str, inputs: int, outputs: int) -> str:
        ends = (self.constant(np.full(outputs, 0.01)), self.constant(np.zeros(outputs), np.int8))
        integers = self.op("QuantizeLinear", self.weight(outputs, inputs, 3, 3), *ends, axis=0)
        weight = self.op("DequantizeLinear", integers, *ends, axis=0)
        return self.op("Conv", x, weight, kernel_shape=[3, 3], pads=[1] * 4)

    def finished(self, x: str, channels: int = 16) -> Any:
        pooled = self.pair(self.op("GlobalAveragePool", x))
        logits = self.pair(self.paired_conv(pooled, channels, 5))
        attribution = self.op("ReduceSum", x, self.constant([1], np.int64), keepdims=0)
        # An output of this name ends the forward path; its shape is nobody's business here.
        self.finish(logits, attribution)
        model = self.unchecked()
        for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 16, 16), strict=True):
            dim.dim_value = size
        return model

    def unchecked(self) -> Any:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 16, 16])
        stored = [numpy_helper.from_array(values, name) for name, values in self.initialisers.items()]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("logits", "attribution")]
        return helper.make_model(helper.make_graph(self.nodes, "g", [image], outputs, stored))


def body(g: Paired) -> str:
    return g.pair(g.relu(g.paired_conv(g.pair("image"), 3, 16)))


def sound(g: Paired) -> str:
    x = body(g)
    y = g.pair(g.relu(g.paired_conv(x, 16, 16)))
    x = g.pair(g.op("Add", x, y))
    return g.pair(g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))


def joined(axis: int) -> Callable[[Paired], str]:
    def make(g: Paired) -> str:
        x = body(g)
        x = g.pair(g.op("Concat", x, x, axis=axis))
        return g.pair(g.relu(g.paired_conv(x, 32 if axis == 1 else 16, 16)))

    return make


def two_scales(g: Paired) -> str:
    x = body(g)
    return g.pair(g.op("Add", x, g.pair(g.relu(g.paired_conv(x, 16, 16)), 0.2)))


def product_of_two_scales(g: Paired) -> str:
    x = body(g)
    return g.pair(g.op("Mul", x, g.pair(g.op("Sigmoid", x), 0.01)))


def pooled_to_another_scale(g: Paired) -> str:
    return g.pair(g.op("AveragePool", body(g), kernel_shape=[2, 2]), 0.01)


def summand_without_scale(g: Paired) -> str:
    x = body(g)
    return g.pair(g.op("Add", x, g.op("Sigmoid", x)))


def result_without_scale(g: Paired) -> str:
    return g.paired_conv(g.op("Tanh", g.paired_conv(body(g), 16, 16)), 16, 16)


def another_operator(g: Paired) -> str:
    return g.pair(g.op("HardSwish", body(g)))


def pooled_in_three_dimensions(g: Paired) -> str:
    return g.pair(g.op("MaxPool", body(g), kernel_shape=[1, 1, 1]))


@pytest.mark.parametrize("make", [sound, joined(1)], ids=["sound", "channels"])
def test_a_graph_with_a_pair_on_every_tensor_and_one_scale_runs(make: Callable[[Paired], str]) -> None:
    g = Paired()
    assert check_dla_rules(g.finished(make(g))) == ()


FAULTS = {
    "rows": (joined(2), "Concat along axis 2"),
    "two-scales": (two_scales, "Add of inputs with two scales"),
    "product": (product_of_two_scales, "Mul of inputs with two scales"),
    "pooling": (pooled_to_another_scale, "AveragePool between two scales"),
    "summand": (summand_without_scale, "Sigmoid runs in FP16"),
    "result": (result_without_scale, "Tanh runs in FP16"),
    "operator": (another_operator, "HardSwish goes to the GPU"),
    "dimensions": (pooled_in_three_dimensions, "MaxPool in 3 dimensions"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_broken_rule_is_named(fault: str) -> None:
    make, words = FAULTS[fault]
    g = Paired()
    found = check_dla_rules(g.finished(make(g)))
    assert any(words in each for each in found), found


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ((None, 3, 16, 16), "its batch is free"),
        ((4097, 3, 16, 16), "a batch of 4097"),
        ((1, 3, 8193, 16), "sides of [3, 8193, 16]"),
    ],
)
def test_shapes_that_it_does_not_take_are_named(dims: tuple[int | None, ...], words: str) -> None:
    g = Paired()
    model = g.finished(sound(g))
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, dims, strict=True):
        dim.Clear()
        if size is not None:
            dim.dim_value = size
    (found,) = check_dla_rules(model)
    assert words in found


@pytest.mark.parametrize("name", GRAPHS)
def test_our_placement_is_for_the_gpu_and_says_so(name: str) -> None:
    """It leaves summands and classifiers in float, which a DLA would compute in FP16 or not at all."""
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    options = CalibrateOptions(method="minmax")
    found = check_dla_rules(quantise_graph(graph, random_images(), number_format("trt-s8s8"), options).model)
    assert any("batch is free" in each for each in found)
    assert any("Gemm goes to the GPU" in each for each in found)
    # Nothing is said of the map branch.
    forward = {graph.nodes[index].name for index in graph.forward}
    assert {each.partition(":")[0] for each in found} <= {*forward, "image"}
