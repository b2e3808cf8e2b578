"""OpenVINO: every wiring and number format against the reference, what its settings are, and where it is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from explained_graphs import GRAPHS, random_images

from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.stage import quantise_graph
from edgekit.engines import openvino_session
from edgekit.engines.protocol import EngineOptions, EngineOutput
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, IntegrityError, UnavailableError

openvino = pytest.importorskip("openvino", reason="openvino is not installed")

IMAGES = np.random.default_rng(3).normal(size=(24, 3, 16, 16)).astype(np.float32)
FORMATS = ("", *NUMBER_FORMATS)
# Channels padded behind a zero point that is not 0: see `edgekit.engines.openvino_faults`.
WRONG = {("padded-shortcut", "arm-s8s8")}


def written(name: str, number_format: str, folder: Path) -> Path:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    model = graph.model
    if number_format:
        fmt = NUMBER_FORMATS[number_format]
        model = quantise_graph(graph, random_images(), fmt, CalibrateOptions(method="minmax")).model
    path = folder / f"{name}.onnx"
    path.write_bytes(serialise(model))
    return path


def answers(engine: str, graph: Path, classes: npt.NDArray[np.int32]) -> EngineOutput:
    with ENGINES.load(engine).open(graph, EngineOptions(threads=1)) as runner:
        return runner.run(IMAGES, classes)


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("name", GRAPHS)
def test_it_answers_as_the_reference_does(name: str, number_format: str, tmp_path: Path) -> None:
    graph = written(name, number_format, tmp_path)
    if (name, number_format) in WRONG:
        with pytest.raises(BadInputError, match="compute this graph wrongly") as raised:
            ENGINES.load("openvino").build(graph, tmp_path / "artifact")
        assert "ort-cpu" in str(raised.value.hint)
        return
    classes = (np.arange(len(IMAGES)) % 5).astype(np.int32)
    truth, found = (answers(engine, graph, classes) for engine in ("reference", "openvino"))
    # INT8 kernels round sums where the reference, in float, does not; 0.009 and 0.018 were seen.
    allowed = (2e-2, 4e-2) if number_format else (1e-6, 2e-6)
    for ours, theirs, bound in zip(
        (found.logits, found.attribution), (truth.logits, truth.attribution), allowed, strict=True
    ):
        assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()


def test_the_known_fault_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where this fails, OpenVINO was mended: take the fault out of the list, or say which versions have it.
    graph = written("padded-shortcut", "arm-s8s8", tmp_path)
    monkeypatch.setattr(openvino_session, "check_known_faults", lambda model, artifact: None)
    classes = np.zeros(len(IMAGES), dtype=np.int32)
    truth, found = (answers(engine, graph, classes) for engine in ("reference", "openvino"))
    assert np.abs(found.logits - truth.logits).max() > 0.1 * np.abs(truth.logits).max()


def test_what_is_in_effect_is_told(tmp_path: Path) -> None:
    info = ENGINES.load("openvino").build(written("residual", "x86-u8s8", tmp_path), tmp_path / "artifact")
    details = info.details
    assert (details["inference_precision"], details["dynamic_quantisation_group"]) == ("f32", 0)
    assert details["devices"] == ["CPU"]
    with ENGINES.load("openvino").open(tmp_path / "artifact", EngineOptions(threads=1)) as runner:
        assert runner.info.details["inference_threads"] == 1


def test_floats_in_another_precision_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not every processor has bfloat16, but every one takes this for an answer.
    graph = written("residual", "", tmp_path)
    monkeypatch.setattr(openvino_session, "compile_settings", lambda options: {"INFERENCE_PRECISION_HINT": "bf16"})
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(graph.read_bytes()), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}
    )
    if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != "bf16":
        pytest.skip("this processor has no bfloat16")
    with pytest.raises(IntegrityError, match="computes otherwise") as raised:
        ENGINES.load("openvino").open(graph, EngineOptions())
    assert raised.value.expected == "f32 on CPU"
    assert str(raised.value.found).startswith("bf16")


def test_a_runtime_without_its_cpu_plugin_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Elsewhere:
        available_devices = ("GPU.0",)

    monkeypatch.setattr(openvino, "Core", Elsewhere)
    availability = ENGINES.load("openvino").availability()
    assert not availability.available
    assert "GPU.0" in availability.reason
    with pytest.raises(UnavailableError):
        ENGINES.load("openvino").open(written("residual", "", tmp_path), EngineOptions())


@pytest.mark.parametrize("version", ["2025.4.0-20398-7a975177ff4", "2026.0.0", "custom", ""])
def test_a_version_that_answers_wrong_maps_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(openvino, "__version__", version)
    availability = ENGINES.load("openvino").availability()
    assert not availability.available
    assert availability.reason
    assert "edgekit[openvino]" in availability.hint
    monkeypatch.setattr(openvino, "__version__", "2026.10.0")
    assert ENGINES.load("openvino").availability().available


def test_answers_are_the_same_every_time(tmp_path: Path) -> None:
    graph = written("gradient-head", "x86-u8s8", tmp_path)
    classes = np.full(len(IMAGES), -1, dtype=np.int32)
    first, second = (answers("openvino", graph, classes) for _ in range(2))
    np.testing.assert_array_equal(first.logits, second.logits)
    np.testing.assert_array_equal(first.attribution, second.attribution)
