"""Rounding one tensor, and all but one, against graphs that are written apart for it and run as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from explained_graphs import GRAPHS, random_images
from onnx import helper, numpy_helper

from edgekit.blame.half import half_precision
from edgekit.blame.rounding import RoundingBench
from edgekit.blame.units import Unit
from edgekit.calibrate.drift import sample_drift
from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import Answers
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.calibrate.stage import quantise_graph

IMAGES = random_images(8, seed=3).pixels
CLASSES = np.arange(8, dtype=np.int32)[:, None] % 5


def quantised(name: str, fmt: str) -> tuple[ExplainedGraph, ScaleTable]:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where="test")
    table = quantise_graph(graph, random_images(), NUMBER_FORMATS[fmt], CalibrateOptions(method="minmax")).table
    return graph, table


def plainly_run(model: Any) -> Answers:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits, *maps = session.run(None, {"image": IMAGES, "class_index": CLASSES[:, 0]})
    return Answers(logits, tuple(maps))


def copied(model: Any) -> Any:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def with_pairs(graph: ExplainedGraph, table: ScaleTable, unit: Unit) -> Any:
    """The float graph with pairs on the unit's tensors and nowhere else."""
    fmt = NUMBER_FORMATS[table.number_format]
    reads = place(graph, fmt).dequantised_reads
    model = copied(graph.model)
    for name in unit.tensors:
        for edge in reads[name]:
            model.graph.node[edge.node].input[edge.slot] = f"{name}/read"
    nodes = [copied_node(node) for node in model.graph.node]
    for name in unit.tensors:
        entry = table.activations[name]
        model.graph.initializer.append(numpy_helper.from_array(np.float32(entry.scale), f"{name}/s"))
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(entry.zero_point, fmt.dtype), f"{name}/z"))
        pair = [
            helper.make_node("QuantizeLinear", [name, f"{name}/s", f"{name}/z"], [f"{name}/q"]),
            helper.make_node("DequantizeLinear", [f"{name}/q", f"{name}/s", f"{name}/z"], [f"{name}/read"]),
        ]
        at = next((at + 1 for at, node in enumerate(nodes) if name in node.output), 0)
        nodes[at:at] = pair
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def copied_node(node: Any) -> Any:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def with_rounded_weight(graph: ExplainedGraph, table: ScaleTable, unit: Unit) -> Any:
    """The float graph with one weight (its copies, its bias) rounded by hand."""
    fmt = NUMBER_FORMATS[table.number_format]
    original, entry = graph.constant(unit.name), table.weights[unit.name]
    shape = [1] * original.ndim
    shape[entry.axis] = -1
    steps = np.asarray(entry.scales, np.float32).reshape(shape)
    rounded = (np.clip(np.round(original / steps), -fmt.weight_limit, fmt.weight_limit) * steps).astype(np.float32)
    values = {unit.name: rounded}
    for name in graph.constant_names:
        value = graph.constant(name)
        if name != unit.name and value.ndim == 2 and value.shape == original.T.shape and (value == original.T).all():
            values[name] = rounded.T
    for use in place(graph, fmt).weights:
        if use.weight == unit.name and use.bias is not None and fmt.integer_bias:
            width = np.asarray(entry.scales, np.float32) * np.float32(table.activations[use.data].scale)
            values[use.bias] = (np.round(graph.constant(use.bias) / width.astype(np.float64)) * width).astype(
                np.float32
            )
    model = copied(graph.model)
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[tensor.name]), tensor.name))
    return model


def without_pairs(graph: ExplainedGraph, table: ScaleTable, unit: Unit) -> Any:
    """The Q/DQ graph with the unit's pairs cut out."""
    model = write_qdq(graph, table)
    cut = {f"{name}/dequantised": name for name in unit.tensors}
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            node.input[slot] = cut.get(name, name)
    return model


def assert_same_drift(found: Mapping[str, Any], expected: Mapping[str, Any], noise: float = 2e-6) -> None:
    for name in ("cosine", "logits"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0.02, atol=noise, err_msg=name)


@pytest.mark.parametrize("fmt", NUMBER_FORMATS)
@pytest.mark.parametrize("name", ["residual", "padded-shortcut", "gradient-head", "dense-concat"])
def test_only_it_is_a_graph_with_that_rounding_alone(name: str, fmt: str) -> None:
    graph, table = quantised(name, fmt)
    bench = RoundingBench(graph, table, IMAGES, CLASSES)
    reference = plainly_run(graph.model)
    for unit in bench.units:
        written = (with_rounded_weight if unit.kind == "weight" else with_pairs)(graph, table, unit)
        assert_same_drift(bench.only(unit), sample_drift(reference, plainly_run(written)))


@pytest.mark.parametrize("fmt", NUMBER_FORMATS)
@pytest.mark.parametrize("name", ["residual", "padded-shortcut", "gradient-head"])
def test_all_but_it_is_the_quantised_graph_with_its_pair_cut_out(name: str, fmt: str) -> None:
    graph, table = quantised(name, fmt)
    bench = RoundingBench(graph, table, IMAGES, CLASSES)
    reference = plainly_run(graph.model)
    for unit in bench.units:
        if unit.kind == "activation":
            written = without_pairs(graph, table, unit)
            assert_same_drift(bench.all_but(unit), sample_drift(reference, plainly_run(written)), noise=1e-5)


@pytest.mark.parametrize("name", GRAPHS)
def test_all_together_is_the_graph_that_ships(name: str) -> None:
    graph, table = quantised(name, "x86-u8s8")
    bench = RoundingBench(graph, table, IMAGES, CLASSES)
    shipped = sample_drift(plainly_run(graph.model), plainly_run(write_qdq(graph, table)))
    assert_same_drift(bench.together(), shipped, noise=1e-5)
    assert max(bench.adjusted()["cosine"]) < 1e-6


@pytest.mark.parametrize("name", GRAPHS)
def test_half_precision_loses_about_what_a_converter_loses(name: str) -> None:
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where="test")
    reference = plainly_run(graph.model)
    converted = float16.convert_float_to_float16(copied(graph.model), keep_io_types=True)
    ours, theirs = (sample_drift(reference, plainly_run(model)) for model in (half_precision(graph), converted))
    assert 0 < ours["logits"].mean() < 1e-5
    # Both round the same tensors; where they add up in single and where in half precision differs.
    assert ours["logits"].mean() < 20 * theirs["logits"].mean() + 1e-8
    assert theirs["logits"].mean() < 20 * ours["logits"].mean() + 1e-8


def test_half_precision_rounds_every_tensor_by_numpys_rule() -> None:
    nodes = [
        helper.make_node("Mul", ["image", "factor"], ["product"]),
        helper.make_node("Relu", ["product"], ["positive"]),
        helper.make_node("ReduceMean", ["positive", "axes"], ["logits"], keepdims=0),
        helper.make_node("ReduceSum", ["positive", "one"], ["summed"], keepdims=0),
        helper.make_node("Cast", ["class_index"], ["asked"], to=1),
        helper.make_node("Reshape", ["asked", "shape"], ["each"]),
        helper.make_node("Mul", ["summed", "each"], ["attribution"]),
    ]
    factor = np.float32(3.14159)
    stored = {
        "factor": factor,
        "axes": np.array([2, 3], np.int64),
        "one": np.array([1], np.int64),
        "shape": np.array([-1, 1, 1], np.int64),
    }
    values = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("image", 1, ["n", 3, 16, 16]),
            ("class_index", 6, ["n"]),
            ("logits", 1, ["n", 3]),
            ("attribution", 1, ["n", 16, 16]),
        )
    ]
    made = helper.make_graph(
        nodes, "g", values[:2], values[2:], [numpy_helper.from_array(np.asarray(v), k) for k, v in stored.items()]
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    graph = parse_graph(model.SerializeToString(), where="test")

    def half(values: Any) -> Any:
        return np.asarray(values, np.float32).astype(np.float16).astype(np.float32)

    positive = np.maximum(half(half(IMAGES) * half(factor)), 0)
    found = plainly_run(half_precision(graph))
    np.testing.assert_allclose(found.logits, half(positive.mean(axis=(2, 3))), rtol=1e-3)
    each = CLASSES[:, 0, None, None].astype(np.float32)
    np.testing.assert_array_equal(found.maps[0], half(half(positive.sum(axis=1)) * each))


def test_what_half_precision_cannot_hold_becomes_infinite() -> None:
    model = GRAPHS["residual"]()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array((values * 60).astype(np.float32), tensor.name))
    graph = parse_graph(model.SerializeToString(), where="test")
    assert np.isfinite(plainly_run(graph.model).logits).all()
    assert not np.isfinite(plainly_run(half_precision(graph)).logits).all()
