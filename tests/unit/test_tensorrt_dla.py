"""The DLA by version: parser flags, pools, limits, and scales that it ties together.

Over stand-ins: what runs here is our code, and no TensorRT and no DLA.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from explained_graphs import GRAPHS, GraphBuilder, random_images
from fake_cuda.devices import AGX_ORIN_64
from fake_cuda.machine import FakeMachine
from fake_tensorrt import VERSIONS, make_tensorrt
from fake_tensorrt.api import load_dump
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_stand_ins import GRAPH, Listener, build, stand_in

from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.scale_table import write_scales
from edgekit.calibrate.stage import CalibrateRequest, calibrate, quantise_graph
from edgekit.engines.half_graph import half_graph_beside
from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.calibration_cache import read_calibration_cache
from edgekit.engines.tensorrt.dla import LARGEST_SIDE, parser_flags, tell_parser
from edgekit.engines.tensorrt.dla_scales import shared_scales
from edgekit.engines.tensorrt.onnx_outline import OnnxOutline, read_outline
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.stored_scales import cache_from_scales
from edgekit.errors import BadInputError, UnavailableError

CACHED = ("8.5.2", "8.6.1", "10.3.0")
NEWEST = VERSIONS[-1]
ON_DLA: dict[str, Any] = {"dla_core": 0, "batches": (2, 2, 2)}


def outline(model: Any) -> OnnxOutline:
    return read_outline(model.SerializeToString(), "built")


# The version that takes Q/DQ on the DLA: the names of 11.4.0, as there is no wheel of 11.4.1.


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    def dump(version: str) -> Any:
        found = load_dump(version)
        return {**found, "about": {**found["about"], "version": "11.4.1.2"}}

    monkeypatch.setattr("fake_tensorrt.api.load_dump", dump)


def calibrated(folder: Path) -> Path:
    (folder / "fp32.onnx").write_bytes(GRAPHS["residual"]().SerializeToString())
    request = CalibrateRequest(folder / "fp32.onnx", random_images(), "trt-s8s8", CalibrateOptions(method="minmax"))
    calibrate(request, folder / "calibrate")
    return folder / "calibrate" / "model.onnx"


@pytest.mark.usefixtures("newer")
def test_the_newest_takes_pairs_and_adjusts_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = calibrated(tmp_path)
    listener = Listener()
    with stand_in(NEWEST, "pycuda", monkeypatch, FakeMachine(AGX_ORIN_64)):
        header, asked = build(path, tmp_path, listener, **ON_DLA, half_graph=half_graph_beside(path))
        assert header.tensorrt == "11.4.1.2"
        assert asked["parser_flags"] == ["ADJUST_FOR_DLA"]
        assert asked["dla_core"] == 0
        assert asked["flags"] == ["GPU_FALLBACK"]
        assert header.build["typed_graph"]
        assert header.build["gpu_layers"]
        assert build(path, tmp_path, batches=(2, 2, 2))[1]["parser_flags"] == []
        with pytest.raises(BadInputError, match="could not build") as raised:
            build(path, tmp_path, **ON_DLA, dla_fallback=False)
        assert "GPU_FALLBACK is not set" in str(raised.value.found)


@pytest.mark.parametrize("version", VERSIONS)
def test_flags_depend_on_what_the_dla_takes_and_not_on_names(version: str) -> None:
    module = make_tensorrt(version, FakeMachine(AGX_ORIN_64))
    options = BuildOptions(**ON_DLA)
    assert parser_flags(TensorRt(module, version), options) == ()
    later = TensorRt(module, "11.4.1.0")
    has = version.startswith(("10.16", "11"))
    assert parser_flags(later, options) == (("ADJUST_FOR_DLA",) if has else ())
    alone = BuildOptions(**ON_DLA, dla_fallback=False)
    assert parser_flags(later, alone) == (("ADJUST_FOR_DLA", "REPORT_CAPABILITY_DLA") if has else ())
    assert parser_flags(later, BuildOptions()) == ()


def test_the_parser_needs_a_configuration_for_them() -> None:
    class Refusing:
        def set_builder_config(self, config: Any) -> bool:
            return False

    tensorrt = TensorRt(make_tensorrt(NEWEST, FakeMachine()), NEWEST)
    with pytest.raises(UnavailableError, match="configuration"):
        tell_parser(tensorrt, Refusing(), None, ("ADJUST_FOR_DLA",))
    module = tensorrt.module
    logger = module.Logger()
    builder = module.Builder(logger)
    network = builder.create_network(0)
    parser = module.OnnxParser(network, logger)
    parser.set_flag(module.OnnxParserFlag.ADJUST_FOR_DLA)
    assert parser.parse(GRAPH.read_bytes()) is False
    assert "default device is the DLA" in parser.get_error(0).desc()


# Pools and limits


@pytest.mark.parametrize("version", CACHED)
def test_pools_are_those_that_were_asked_for(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = {"dla_sram": 1 << 19, "dla_local_dram": 1 << 28, "dla_global_dram": 1 << 27}
    with stand_in(version, "pycuda", monkeypatch, FakeMachine(AGX_ORIN_64)):
        header, asked = build(GRAPH, tmp_path, **ON_DLA, **pools)
        names = ("DLA_MANAGED_SRAM", "DLA_LOCAL_DRAM", "DLA_GLOBAL_DRAM")
        assert [asked["pools"][name] for name in names] == list(pools.values())
        words = shlex.split(header.build["trtexec"])
        assert any("dlaSRAM:0.5,dlaLocalDRAM:256,dlaGlobalDRAM:128" in word for word in words)
        plain, untouched = build(GRAPH, tmp_path, **ON_DLA)
        assert [untouched["pools"][name] for name in names] == [1 << 20, 1 << 30, 1 << 29]
        assert "dlaSRAM" not in plain.build["trtexec"]
        # Without the DLA they mean nothing.
        assert "dlaSRAM" not in build(GRAPH, tmp_path, **pools)[0].build["trtexec"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("dla_sram", 2048), ("dla_sram", 5000), ("dla_sram", -4096), ("dla_local_dram", -1), ("dla_global_dram", -1)],
)
def test_pools_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(BadInputError, match=name):
        BuildOptions(**{name: value})


def test_an_image_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(GRAPH)
    for value, axes in ((model.graph.input[0], (2,)), (model.graph.output[1], (1,))):
        for axis in axes:
            value.type.tensor_type.shape.dim[axis].dim_value = LARGEST_SIDE + 1
    path = tmp_path / "tall.onnx"
    path.write_bytes(model.SerializeToString())
    with stand_in("10.3.0", "pycuda", monkeypatch, FakeMachine(AGX_ORIN_64)):
        with pytest.raises(BadInputError, match="too large for the DLA") as raised:
            build(path, tmp_path, **ON_DLA)
        assert "8193" in str(raised.value.found)
        build(path, tmp_path, batches=(2, 2, 2))


# Scales


def test_both_sides_of_a_pooling_and_both_summands_share_the_larger_scale() -> None:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    pooled = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = g.conv(pooled, 16, 16)
    total = g.op("Add", y, pooled)
    shifted = g.op("Add", total, g.constant(1.0))
    g.pooled_head(shifted, 16, 5, 64)
    scales = {"image": 0.02, x: 0.5, pooled: 0.4, total: 0.1, shifted: 0.3}
    found = shared_scales(scales, outline(g.model()))
    # The convolution's result had none, and takes that of what it is added to; a stored summand ties nothing.
    assert found == {"image": 0.02, x: 0.5, pooled: 0.5, y: 0.5, total: 0.1, shifted: 0.3}


def on_the_way_to_logits(graph: OnnxOutline) -> list[Any]:
    makers = {name: node for node in graph.nodes for name in node.outputs}
    found, pending = {}, ["logits"]
    while pending:
        node = makers.get(pending.pop())
        if node is not None and node.index not in found:
            found[node.index] = node
            pending.extend(node.inputs)
    return list(found.values())


def tied(graph: OnnxOutline, found: dict[str, float]) -> None:
    computed = {name for node in graph.nodes for name in node.outputs} | {"image"}
    for node in on_the_way_to_logits(graph):
        names = [name for name in node.inputs if name in computed]
        scales = {found.get(name) for name in names}
        if node.operator == "Add" or (node.operator == "Mul" and None not in scales):
            assert len(scales) <= 1
        if node.operator in ("MaxPool", "AveragePool"):
            assert found.get(node.inputs[0]) == found.get(node.outputs[0])


def test_a_gate_gets_no_scale_of_what_it_gates() -> None:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, 16))
    gate = g.op("Sigmoid", g.mean(x))
    gated = g.op("Mul", x, gate)
    g.pooled_head(gated, 16, 5, 256)
    graph = outline(g.model())
    assert shared_scales({x: 0.5}, graph) == {x: 0.5}
    assert shared_scales({x: 0.5, gate: 0.01}, graph) == {x: 0.5, gate: 0.5}


@given(name=st.sampled_from(sorted(GRAPHS)), data=st.data())
def test_whatever_the_scales_they_are_equal_where_they_must_and_never_smaller(name: str, data: st.DataObject) -> None:
    graph = outline(GRAPHS[name]())
    tensors = [output for node in graph.nodes for output in node.outputs]
    chosen = data.draw(st.lists(st.sampled_from(tensors), unique=True, max_size=8))
    scales = {tensor: data.draw(st.floats(1e-6, 1e3)) for tensor in chosen}
    found = shared_scales(scales, graph)
    assert all(found[tensor] >= scale for tensor, scale in scales.items())
    assert set(found.values()) <= set(scales.values())
    tied(graph, found)
    assert shared_scales(found, graph) == found


def test_a_stored_table_is_tied_for_the_dla_alone(tmp_path: Path) -> None:
    graph = parse_graph(GRAPHS["residual"]().SerializeToString(), where="residual")
    options = CalibrateOptions(method="minmax")
    table = quantise_graph(graph, random_images(), number_format("trt-s8s8"), options).table
    write_scales(tmp_path / "scales.json", table)
    told = outline(graph.model)
    plain, for_dla = (
        read_calibration_cache(cache_from_scales(tmp_path / "scales.json", graph.digest, (8, 5, 2), each), "x").scales
        for each in (None, told)
    )
    assert plain == {name: entry.scale for name, entry in table.activations.items()}
    assert for_dla.keys() > plain.keys()
    tied(told, dict(for_dla))
    assert all(np.float32(for_dla[name]) >= np.float32(scale) for name, scale in plain.items())


@pytest.mark.parametrize("version", CACHED)
def test_a_build_for_the_dla_uses_them(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = calibrated(tmp_path).parent
    made: list[bytes] = []
    from edgekit.engines.tensorrt import build as module

    genuine = module.make_calibrator
    monkeypatch.setattr(
        module, "make_calibrator", lambda trt, cache, where: made.append(cache) or genuine(trt, cache, where)
    )
    with stand_in(version, "pycuda", monkeypatch, FakeMachine(AGX_ORIN_64)):
        for options in (ON_DLA, {"batches": (2, 2, 2)}):
            build(tmp_path / "fp32.onnx", tmp_path, **options, scales=path / "scales.json")
    on_dla, on_gpu = (read_calibration_cache(cache, "x").scales for cache in made)
    assert on_dla.keys() > on_gpu.keys()
