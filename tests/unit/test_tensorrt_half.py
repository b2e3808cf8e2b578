"""The graph with FP16 types in the TensorRT engine: when it is built, what it says, and when it is refused.

Over stand-ins: what runs here is our code, and no TensorRT.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from explained_graphs import GRAPHS, random_images
from fake_tensorrt import VERSIONS
from tensorrt_stand_ins import Listener, build, stand_in

from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import CalibrateRequest, calibrate
from edgekit.core.digests import digest_file
from edgekit.core.stages import StageRecord
from edgekit.engines.build import BuildEngineRequest, build_engine
from edgekit.engines.half_graph import FLOAT16_NAME, SOURCE_KEY, half_graph_beside
from edgekit.engines.tensorrt.engine import TensorRtEngine
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.plan_file import read_plan
from edgekit.engines.tensorrt.run import open_plan
from edgekit.errors import IntegrityError

NEWEST = VERSIONS[-1]
OPTIONAL = [each for each in VERSIONS if each.startswith(("10.13", "10.16"))]


def calibrated(folder: Path, number_format: str = "trt-s8s8", name: str = "residual") -> StageRecord:
    graph = folder / "fp32.onnx"
    graph.write_bytes(GRAPHS[name]().SerializeToString())
    wanted = CalibrateRequest(graph, random_images(), number_format, CalibrateOptions(method="minmax"))
    return calibrate(wanted, folder / "calibrate")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    calibrated(tmp_path)
    return tmp_path / "calibrate" / "model.onnx"


def test_calibration_writes_it_beside_the_graph_and_says_what_is_in_it(tmp_path: Path) -> None:
    record = calibrated(tmp_path)
    assert "model.fp16.onnx" in record.outputs
    told = record.facts["fp16_types"]
    assert told["written"] is True
    assert told["fp16"]["Conv"] == 8
    assert told["fp32"]["logits are computed in FP32"] == 1
    assert record.facts["dla_left_over"]["count"] > 0
    typed = onnx.load(tmp_path / "calibrate" / "model.fp16.onnx")
    said = {item.key: item.value for item in typed.metadata_props}
    assert said[SOURCE_KEY] == digest_file(tmp_path / "calibrate" / "model.onnx")


def test_other_runtimes_get_none(tmp_path: Path) -> None:
    record = calibrated(tmp_path, "x86-u8s8")
    assert not {"model.fp16.onnx", FLOAT16_NAME} & set(record.outputs)
    assert not {"fp16_types", "fp16_candidate", "dla_left_over"} & set(record.facts)


def test_where_fp16_cannot_hold_the_values_the_reason_is_kept(tmp_path: Path) -> None:
    model = GRAPHS["residual"]()
    last = [node.input[1] for node in model.graph.node if node.op_type == "Conv"][-1]
    for item in model.graph.initializer:
        if item.name == last:
            item.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(item) * np.float32(1e5), last))
    (tmp_path / "fp32.onnx").write_bytes(model.SerializeToString())
    listener = Listener()
    wanted = CalibrateRequest(tmp_path / "fp32.onnx", random_images(), "trt-s8s8", CalibrateOptions(method="minmax"))
    record = calibrate(wanted, tmp_path / "calibrate", listener)
    assert set(record.outputs) == {"scales.json", "model.onnx", "calibration.json"}
    assert record.facts["fp16_types"]["written"] is False
    assert "beyond their range" in record.facts["fp16_types"]["reason"]
    assert any("no graph with FP16 types" in note and "Conv" in note for note in listener.notes)
    # The FP32 graph holds the same weights, so there is no candidate either.
    assert record.facts["fp16_candidate"]["written"] is False
    assert any("FP16: no candidate" in note for note in listener.notes)
    summary = record.facts["summary"]
    assert "no FP16 types for INT8 (" in summary
    assert "no FP16 candidate (" in summary


def test_the_fp16_candidate_has_the_source_in_it(tmp_path: Path) -> None:
    record = calibrated(tmp_path, "trt-s8s8")
    assert record.facts["fp16_candidate"]["written"] is True
    assert "FP16" not in record.facts["summary"]
    model = onnx.load(tmp_path / "calibrate" / FLOAT16_NAME)
    said = {item.key: item.value for item in model.metadata_props}
    assert said[SOURCE_KEY] == digest_file(tmp_path / "fp32.onnx")


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_built_where_types_are_all_that_counts(
    version: str, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    with stand_in(version, "pycuda", monkeypatch):
        header, asked = build(graph, tmp_path, listener, half_graph=half_graph_beside(graph))
    strong = version == NEWEST
    assert asked["strongly_typed"] is strong
    assert header.graph_sha256 == digest_file(graph)
    assert header.build["typed_graph"] == (digest_file(half_graph_beside(graph)) if strong else "")
    assert header.build["options"]["half_graph"] is True
    assert header.build["layers"]["by_precision"]["int8"] >= 8
    assert not any("runs in FP32" in note for note in listener.notes)
    assert header.build["layers"]["fell_back"]["count"] == header.build["layers"]["unmatched"]["count"] == 0


@pytest.mark.parametrize("version", OPTIONAL)
def test_before_eleven_it_is_built_where_strong_typing_is_asked_for(
    version: str, graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stand_in(version, "pycuda", monkeypatch):
        header, asked = build(graph, tmp_path, typing="strong", half_graph=half_graph_beside(graph))
        assert asked["strongly_typed"] is True
        assert header.build["typed_graph"]
        assert build(graph, tmp_path, typing="weak", half_graph=half_graph_beside(graph))[0].build["typed_graph"] == ""


def test_who_asks_for_fp32_gets_it(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    with stand_in(NEWEST, "pycuda", monkeypatch):
        header, _ = build(graph, tmp_path, listener, float_type="fp32", half_graph=half_graph_beside(graph))
        assert header.build["typed_graph"] == ""
        assert any("runs in FP32" in note for note in listener.notes)
        assert build(graph, tmp_path, float_type="fp16", half_graph=half_graph_beside(graph))[0].build["typed_graph"]


def test_one_of_another_graph_is_refused(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    calibrated(other, name="gated")
    wrong = other / "calibrate" / "model.fp16.onnx"
    with stand_in(NEWEST, "pycuda", monkeypatch):
        with pytest.raises(IntegrityError, match="stand for") as raised:
            build(graph, tmp_path, half_graph=wrong)
        assert digest_file(graph) in str(raised.value.expected)
        with pytest.raises(IntegrityError, match="stand for"):
            build(graph, tmp_path, half_graph=graph)
    assert not (tmp_path / "engine.plan").exists()


def test_the_engine_finds_it_beside_the_graph(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TensorRtEngine(build_options=BuildOptions())
    alone = tmp_path / "alone.onnx"
    shutil.copyfile(graph, alone)
    with stand_in(NEWEST, "pycuda", monkeypatch):
        for path, found in ((graph, True), (alone, False)):
            engine.build(path, tmp_path / "engine.plan")
            assert bool(read_plan(tmp_path / "engine.plan")[0].build["typed_graph"]) is found


def test_the_build_stage_depends_on_it(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with stand_in(NEWEST, "pycuda", monkeypatch):
        record = build_engine(BuildEngineRequest("tensorrt", graph, "int8"), tmp_path / "build")
        assert set(record.inputs) == {"graph", "graph_fp16"}
        half_graph_beside(graph).unlink()
        again = build_engine(BuildEngineRequest("tensorrt", graph, "int8"), tmp_path / "build")
    assert again.key != record.key
    assert set(again.inputs) == {"graph"}


@pytest.mark.parametrize("name", ["residual", "dense-concat", "gradient-head"])
def test_what_comes_out_is_the_typed_graphs_answer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(tmp_path, name=name)
    path = tmp_path / "calibrate" / "model.onnx"
    images, classes = random_images(3, seed=5).pixels, np.array([-1, 0, 1], np.int32)
    with stand_in(NEWEST, "pycuda", monkeypatch):
        build(path, tmp_path, half_graph=half_graph_beside(path))
        with open_plan(tmp_path / "engine.plan") as runner:
            found = runner.run(images, classes)
    session = _quiet_session(half_graph_beside(path))
    logits, attribution = session.run(["logits", "attribution"], {"image": images, "class_index": classes})
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.attribution, attribution, rtol=1e-5, atol=1e-5)
    assert found.logits.dtype == found.attribution.dtype == np.float32


def _quiet_session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
