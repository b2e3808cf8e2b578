"""ONNX Runtime itself says whether the pairs stand where it fuses them."""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from explained_graphs import GRAPHS, GraphBuilder, random_images

from edgekit.calibrate.drift import drift_of
from edgekit.calibrate.formats import NUMBER_FORMATS, NumberFormat
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.probe import answers_of, float_answers
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.stage import quantise_graph

ORT_FORMATS = [fmt for fmt in NUMBER_FORMATS.values() if fmt.placement == "onnxruntime"]
LEVELS = {
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
CLASSES = np.array([-1, 0, 1, 2, 3, 4] * 2, dtype=np.int32)
# Integer kernel of each operation that is quantised for its arithmetic; data movers keep their names.
KERNELS = {
    "Conv": {"QLinearConv"},
    "Gemm": {"QGemm"},
    "Add": {"QLinearAdd"},
    "Mul": {"QLinearMul"},
    "Concat": {"QLinearConcat"},
    "AveragePool": {"QLinearAveragePool"},
}
BY_GRAPH = pytest.mark.parametrize("name", GRAPHS)


def has_exact_dot_products() -> bool:
    """Older x86 processors saturate sums of two products of uint8 and int8 at 16 bits."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "vnni" in cpuinfo.read_text(encoding="utf-8")


def quantised(name: str, fmt: NumberFormat) -> tuple[ExplainedGraph, bytes, Counter[str]]:
    return quantised_model(GRAPHS[name](), fmt)


def quantised_model(model: onnx.ModelProto, fmt: NumberFormat) -> tuple[ExplainedGraph, bytes, Counter[str]]:
    graph = parse_graph(model.SerializeToString(), where="test")
    result = quantise_graph(graph, random_images(), fmt, CalibrateOptions(method="minmax"))
    kinds = Counter(graph.nodes[index].op_type for index in result.placement.quantised)
    return graph, serialise(result.model), kinds


def session(data: bytes, level: onnxruntime.GraphOptimizationLevel, dump: Path | None = None, signed: bool = False):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = level
    if signed:
        # What ONNX Runtime does on Arm; on x86 it has to be asked for.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@BY_GRAPH
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fmt", ORT_FORMATS, ids=lambda fmt: fmt.name)
def test_everything_that_is_quantised_runs_in_integers(
    name: str, fmt: NumberFormat, level: str, tmp_path: Path
) -> None:
    graph, data, kinds = quantised(name, fmt)
    session(data, LEVELS[level], tmp_path / "optimised.onnx", fmt.signed)
    optimised = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    for operation, kernels in KERNELS.items():
        assert sum(optimised[kernel] for kernel in kernels) == kinds[operation], operation
    # Nothing of the forward path computes its weights in float; the map branch has ConvTranspose and one MatMul.
    for operation in ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm"):
        assert optimised[operation] == 0, operation
    # What the map branch reads of the weights is computed while loading, not on each run.
    assert optimised["Cast"] <= sum(node.op_type == "Cast" for node in graph.nodes)


@BY_GRAPH
@pytest.mark.skipif(not has_exact_dot_products(), reason="this processor saturates 16-bit sums")
@pytest.mark.parametrize("fmt", ORT_FORMATS, ids=lambda fmt: fmt.name)
def test_the_integer_kernels_compute_what_the_graph_says(name: str, fmt: NumberFormat) -> None:
    _, data, _ = quantised(name, fmt)
    images = random_images().pixels
    plain = session(data, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    fused = session(data, LEVELS["all"], signed=fmt.signed)
    inputs = {"image": images, "class_index": CLASSES}
    for expected, found in zip(plain.run(None, inputs), fused.run(None, inputs), strict=True):
        # They round once where the pairs round twice: now and then a neighbouring step.
        assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["gated", "slopes-and-products"])
def test_products_in_integers_cost_little(name: str) -> None:
    """Against the same graphs with their products in float, which rounds neither the gate nor what is multiplied."""
    fmt, calibration, held_out = NUMBER_FORMATS["x86-u8s8"], random_images(64), random_images(128, seed=99).pixels
    drifts: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(4):
        graph = parse_graph(GRAPHS[name](seed).SerializeToString(), where=name)
        reference = float_answers(graph, held_out)
        for in_integers, found in drifts.items():
            exclude = () if in_integers else ("node_Mul_*",)
            options = CalibrateOptions(method="minmax", exclude=exclude)
            result = quantise_graph(graph, calibration, fmt, options)
            products = sum(graph.nodes[index].op_type == "Mul" for index in result.placement.quantised)
            assert (products > 0) is in_integers
            found.append(drift_of(reference, answers_of(result.model, held_out, reference.classes)).cosine)
    assert np.mean(drifts[True]) < 1.3 * np.mean(drifts[False])


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 6.0), (0.0, 7.996654510498047 / 4), (0.0, 0.3), (-0.5, 0.5), (0.25, 6.0)]
)
def test_a_clip_of_any_bounds_leaves_no_convolution_in_float(low: float, high: float, tmp_path: Path) -> None:
    g = GraphBuilder()
    x = g.op("Clip", g.conv("image", 3, 16), g.constant(low), g.constant(high))
    x = g.relu(g.conv(x, 16, 16))
    g.pooled_head(x, 16, 5, 256)
    _, data, _ = quantised_model(g.model(), NUMBER_FORMATS["x86-u8s8"])
    session(data, LEVELS["all"], tmp_path / "optimised.onnx")
    optimised = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert optimised["QLinearConv"] == 2
    assert optimised["Conv"] + optimised["FusedConv"] == 0
    assert (optimised["Clip"] == 0) is (low == 0)
