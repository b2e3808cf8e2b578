"""Images rounded on the grid that they were captured on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from explained_graphs import GRAPHS, ArrayImages, GraphBuilder
from onnx import ModelProto, helper

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import Adjustments, InputGrid
from edgekit.calibrate.formats import (
    NUMBER_FORMATS,
    SIMULATED_FORMATS,
    NumberFormat,
    Range,
    activation_params,
    fake_quantise,
)
from edgekit.calibrate.graph import IMAGE, PIXELS, ExplainedGraph, parse_graph
from edgekit.calibrate.input_grid import grid_of, grid_problem, grid_range, image_range, with_input_grid
from edgekit.calibrate.observers import ActivationStream
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import answers_of, float_answers
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.scale_table import Provenance, table_from_ranges
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.stage import check_rules
from edgekit.errors import IntegrityError
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess

IMAGENET = InputSpec(16, 16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
RAW = InputSpec(16, 16, divisor=1.0)
UNIT = InputSpec(16, 16)
CENTRED = InputSpec(16, 16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
WHOLE = InputSpec(16, 16, divisor=1.0, mean=(127.0,) * 3, std=(128.0,) * 3)
SPECS = {"imagenet": IMAGENET, "raw": RAW, "unit": UNIT, "centred": CENTRED, "whole": WHOLE}
FORMATS = pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
BY_SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def prepared(spec: InputSpec, count: int = 8) -> Any:
    """Smooth images that hold black and white."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    pixels = np.clip(coarse + rng.integers(-20, 21, coarse.shape), 0, 255).astype(np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = 0, 255
    return preprocess(pixels, spec)


def parsed(model: ModelProto) -> ExplainedGraph:
    return parse_graph(model.SerializeToString(), where="test")


def relative(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def quantised(graph: ExplainedGraph, grid: InputGrid, fmt: NumberFormat, images: Any) -> Any:
    adjustments = Adjustments(input_grid=grid)
    adjusted = apply_adjustments(graph, adjustments)
    placement = place(adjusted, fmt)
    stream = ActivationStream(adjusted, placement.observed, ArrayImages(images), 8)
    ranges = {name: stats.extremes for name, stats in stream.extremes().items()} | {PIXELS: grid_range(fmt)}
    origin = Provenance(graph.digest, "", "test", {}, ())
    solution = Solution(ranges, adjustments=adjustments)
    return write_qdq(graph, table_from_ranges(adjusted, placement, fmt, solution, origin))


@FORMATS
def test_the_grid_of_pixels_has_steps_of_one_and_an_integer_for_each(fmt: NumberFormat) -> None:
    params = activation_params(grid_range(fmt), fmt)
    assert params.scale == 1.0
    pixels = np.arange(256, dtype=np.float32) - (128 if fmt.symmetric else 0)
    assert np.array_equal(fake_quantise(pixels, params, fmt), pixels)


@FORMATS
@BY_SPEC
def test_every_pixel_survives_rounding_on_its_grid(spec: InputSpec, fmt: NumberFormat) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    images = preprocess(every, spec)
    grid = grid_of(spec, fmt)
    if grid is None:
        limits = image_range(spec, fmt)
        assert limits is not None
        values, params = images, activation_params(limits, fmt)
        step = 1 / (spec.divisor * spec.std[0])
    else:
        factor, offset = (np.asarray(item, np.float32).reshape(3, 1, 1) for item in (grid.factor, grid.offset))
        values, params, step = images * factor + offset, activation_params(grid_range(fmt), fmt), 1.0
    rounded = fake_quantise(values, params, fmt)
    assert np.abs(rounded - values).max() < 1e-3 * step
    assert len(np.unique(rounded)) == 256


def test_networks_whose_input_is_on_the_grid_of_pixels_need_no_other() -> None:
    fmt = NUMBER_FORMATS["x86-u8s8"]
    assert image_range(RAW, fmt) == Range(0, 255)
    assert image_range(UNIT, fmt) == Range(0, 1)
    assert grid_of(RAW, fmt) is None
    assert grid_of(UNIT, fmt) is None
    assert grid_of(WHOLE, fmt) is None
    # Zero would lie between two pixels.
    assert image_range(CENTRED, fmt) is None
    assert grid_of(CENTRED, fmt) == InputGrid((127.5,) * 3, (127.5,) * 3)
    # A symmetric grid has no integers for half of the pixels.
    assert grid_of(RAW, NUMBER_FORMATS["trt-s8s8"]) == InputGrid((1.0,) * 3, (-128.0,) * 3)


def test_fewer_levels_than_pixels_have_no_such_grid() -> None:
    assert grid_of(IMAGENET, SIMULATED_FORMATS["x86-u6s6"]) is None
    assert image_range(RAW, SIMULATED_FORMATS["x86-u4s4"]) is None
    assert grid_of(IMAGENET, SIMULATED_FORMATS["x86-u8s4"]) is not None


@pytest.mark.parametrize(
    ("spec", "fmt"),
    [(spec, fmt) for spec in SPECS.values() for fmt in NUMBER_FORMATS.values() if grid_of(spec, fmt) is not None],
)
@pytest.mark.parametrize("name", GRAPHS)
def test_the_graph_computes_the_same(name: str, spec: InputSpec, fmt: NumberFormat) -> None:
    graph, grid = parsed(GRAPHS[name]()), grid_of(spec, fmt)
    assert grid is not None
    assert grid_problem(graph) is None
    images = prepared(spec) / (64 if spec is RAW else 1)
    adjusted = apply_adjustments(graph, Adjustments(input_grid=grid))
    before = float_answers(graph, images)
    after = answers_of(adjusted.model, images, before.classes)
    assert relative(after.logits, before.logits) < 1e-4
    assert relative(after.maps[0], before.maps[0]) < 1e-4


@FORMATS
def test_only_pixels_are_rounded_and_the_first_convolution_reads_them(fmt: NumberFormat, tmp_path: Path) -> None:
    graph = parsed(GRAPHS["residual"]())
    grid = grid_of(IMAGENET, fmt)
    assert grid is not None
    model = quantised(graph, grid, fmt, prepared(IMAGENET))
    check_rules(model, fmt)
    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert PIXELS in rounded
    assert IMAGE not in rounded
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    assert first.input[0] == f"{PIXELS}/dequantised"
    if fmt.placement == "onnxruntime":
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        if fmt.signed:
            options.add_session_config_entry("session.qdqisint8allowed", "1")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
        convolutions = sum(graph.nodes[index].op_type == "Conv" for index in graph.forward)
        assert kinds["QLinearConv"] == convolutions
        assert kinds["Conv"] + kinds["FusedConv"] + kinds["NhwcFusedConv"] == 0


@FORMATS
def test_narrow_first_convolutions_are_quantised_on_pixels_as_they_were_on_images(fmt: NumberFormat) -> None:
    graph = parsed(first_convolution_of(8))
    grid = grid_of(IMAGENET, fmt)
    assert grid is not None
    adjusted = apply_adjustments(graph, Adjustments(input_grid=grid))
    before, after = place(graph, fmt), place(adjusted, fmt)
    assert {use.weight for use in before.weights} == {use.weight for use in after.weights}


def first_convolution_of(channels: int, **attributes: Any) -> ModelProto:
    """A small network whose first convolution has a module's name, and other attributes if wanted."""
    g = GraphBuilder(seed=1)
    x = g.relu(g.conv("image", 3, channels))
    x = g.relu(g.conv(x, channels, 16))
    g.pooled_head(x, 16, 5, 256)
    model = g.model()
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "edgekit.module", "stem"
    for name, value in attributes.items():
        for attribute in list(model.graph.node[0].attribute):
            if attribute.name in (name, "pads"):
                model.graph.node[0].attribute.remove(attribute)
        model.graph.node[0].attribute.append(helper.make_attribute(name, value))
    return model


def test_the_convolution_keeps_its_name_module_and_attributes() -> None:
    graph = parsed(first_convolution_of(16))
    adjusted = apply_adjustments(graph, Adjustments(input_grid=InputGrid((58.0,) * 3, (120.0,) * 3)))
    before = graph.nodes[0]
    after = next(node for node in adjusted.nodes if node.name == before.name)
    assert [(item.key, item.value) for item in after.metadata_props] == [("edgekit.module", "stem")]
    kept = {item.name: helper.get_attribute_value(item) for item in after.attribute}
    wanted = {item.name: helper.get_attribute_value(item) for item in before.attribute}
    assert kept == wanted | {"pads": [0, 0, 0, 0]}
    assert after.output == before.output


@pytest.mark.parametrize(
    ("grid", "added"),
    [
        (InputGrid((255.0,) * 3, (0.0,) * 3), ["Mul"]),
        (InputGrid((1.0,) * 3, (-128.0,) * 3), ["Pad", "Add"]),
        (InputGrid((1.0,) * 3, (0.0,) * 3), ["Identity"]),
        (InputGrid((58.0, 57.0, 56.0), (1.0, 0.0, 2.0)), ["Pad", "Mul", "Add"]),
    ],
)
def test_nothing_is_computed_that_changes_nothing(grid: InputGrid, added: list[str]) -> None:
    graph = parsed(first_convolution_of(16))
    adjusted = apply_adjustments(graph, Adjustments(input_grid=grid))
    new = [node.op_type for node in adjusted.nodes if node.name not in {item.name for item in graph.nodes}]
    assert new == added
    before = float_answers(graph, prepared(IMAGENET))
    after = answers_of(adjusted.model, prepared(IMAGENET), before.classes)
    assert relative(after.logits, before.logits) < 1e-4


def test_a_convolution_without_bias_gets_one_and_a_shared_bias_is_left_to_others() -> None:
    for shared in (False, True):
        model = first_convolution_of(16)
        first, second = (node for node in model.graph.node if node.op_type == "Conv")
        if shared:
            second.input[2] = first.input[2]
        else:
            del first.input[2:]
        graph = parsed(model)
        adjusted = apply_adjustments(graph, Adjustments(input_grid=InputGrid((58.0,) * 3, (120.0,) * 3)))
        found = [node for node in adjusted.nodes if node.op_type == "Conv"]
        assert len(found[0].input) == 3
        assert found[0].input[2] != found[1].input[2]
        before = float_answers(graph, prepared(IMAGENET))
        after = answers_of(adjusted.model, prepared(IMAGENET), before.classes)
        assert relative(after.logits, before.logits) < 1e-4


def test_two_convolutions_may_read_the_pixels_and_groups_are_minded() -> None:
    g = GraphBuilder(seed=2)
    x = g.relu(g.op("Add", g.conv("image", 3, 6), g.conv("image", 3, 6, group=3)))
    g.pooled_head(x, 6, 5, 256)
    graph = parsed(g.model())
    assert grid_problem(graph) is None
    adjusted = apply_adjustments(graph, Adjustments(input_grid=InputGrid((50.0, 60.0, 70.0), (100.0, 120.0, 140.0))))
    before = float_answers(graph, prepared(IMAGENET))
    after = answers_of(adjusted.model, prepared(IMAGENET), before.classes)
    assert relative(after.logits, before.logits) < 1e-4
    assert relative(after.maps[0], before.maps[0]) < 1e-4


def two_paddings() -> ModelProto:
    g = GraphBuilder(seed=2)
    wide = g.conv("image", 3, 8)
    narrow = g.conv("image", 3, 8, kernel=1)
    g.pooled_head(g.relu(g.op("Add", wide, narrow)), 8, 5, 256)
    return g.model()


def pooled_image() -> ModelProto:
    g = GraphBuilder(seed=2)
    pooled = g.op("AveragePool", "image", kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("Concat", g.conv("image", 3, 8, stride=2), pooled, axis=1)
    g.pooled_head(g.relu(x), 11, 5, 64)
    return g.model()


def weights_in_the_map() -> ModelProto:
    g = GraphBuilder(seed=2)
    weight, bias = g.weight(8, 3, 3, 3), g.constant(np.zeros(8))
    tap = g.relu(g.conv_with("image", weight, bias))
    other = g.conv_with("image", weight, bias)
    logits = g.linear(g.mean(tap, keepdims=0), 8, 5)
    g.finish(logits, g.op("ReduceSum", other, g.constant([1], np.int64), keepdims=0))
    return g.model()


def copied_weights_in_the_map() -> ModelProto:
    model = weights_in_the_map()
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    original = next(item for item in model.graph.initializer if item.name == convs[0].input[1])
    copy = model.graph.initializer.add()
    copy.CopyFrom(original)
    copy.name = convs[1].input[1] = "copy"
    return model


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (two_paddings(), "pad it differently"),
        (pooled_image(), "read by a AveragePool"),
        (weights_in_the_map(), "read elsewhere too"),
        (copied_weights_in_the_map(), "read elsewhere too"),
        (first_convolution_of(8, auto_pad="SAME_UPPER"), "pads by a rule"),
    ],
)
def test_graphs_where_it_cannot_be_done_say_so(model: ModelProto, said: str) -> None:
    graph = parsed(model)
    problem = grid_problem(graph)
    assert problem is not None
    assert said in problem
    with pytest.raises(IntegrityError, match="grid of their own") as caught:
        with_input_grid(graph, InputGrid((58.0,) * 3, (120.0,) * 3))
    assert caught.value.found == problem
