"""ONNX Runtime's GPU engines over a stand-in: what is refused, what is asked for, and how batches travel."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime_gpu_stand_in import (
    CPU,
    CUDA,
    TENSORRT,
    FakeGpu,
    StandInBinding,
    StandInSession,
    StandInValue,
    gpu_stand_in,
)
from tensorrt_stand_ins import GRAPH, Listener, images, own_classes, quantised

from edgekit.engines.cuda_driver import cuda_of_driver, device_name
from edgekit.engines.onnxruntime_gpu_status import NEVER_RUN_ON_GPU
from edgekit.engines.onnxruntime_placement import Placement, check_placement, read_placement
from edgekit.engines.ort_tensorrt import MOST_IMAGES
from edgekit.engines.protocol import Engine, EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.engines.tf32 import stored_tf32, with_tf32
from edgekit.engines.tuning import TunableEngine, Tuning
from edgekit.errors import BadInputError, IntegrityError, UnavailableError
from edgekit.pipeline.engines import EngineChoice, engines_for
from edgekit.targets.loader import resolve_target

NAMES = ("ort-cuda", "ort-tensorrt")
OLD_DRIVER = RuntimeError(
    "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; expr=cudaSetDevice"
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpu]:
    with gpu_stand_in(monkeypatch) as machine:
        yield machine


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest, gpu: FakeGpu) -> Engine:
    return ENGINES.load(request.param)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (StandInSession, onnxruntime.InferenceSession),
        (StandInBinding, onnxruntime.IOBinding),
        (StandInValue, onnxruntime.OrtValue),
    ],
)
def test_the_stand_in_has_the_arguments_of_the_genuine_package(ours: type, theirs: type) -> None:
    own = {"computed", "fill"}
    shared = [name for name in vars(ours) if not name.startswith("_") and name not in own]
    assert shared
    for name in [*shared, *(["__init__"] if ours is StandInSession else [])]:
        mine, genuine = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (ours, theirs))
        assert mine == genuine, name


@pytest.mark.parametrize(
    ("change", "told", "remedy"),
    [
        ({"distributions": ("onnxruntime", "onnxruntime-gpu")}, "side by side", "uninstall -y onnxruntime onnxruntime"),
        ({"available": (CPU,)}, "has no ", "edgekit[gpu]"),
        ({"driver": None}, "no NVIDIA driver", "nvidia-smi"),
        ({"driver": (11, 8)}, "supports CUDA 11.8 at most, and this onnxruntime was built for CUDA 12.8", "driver"),
    ],
)
def test_what_is_missing_is_told_before_any_work(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], told: str, remedy: str
) -> None:
    with gpu_stand_in(monkeypatch, replace(FakeGpu(), **change)) as machine:
        availability = engine.availability()
        assert not availability.available
        assert told in availability.reason
        assert remedy in availability.hint
        for refused in (
            lambda: engine.build(GRAPH, tmp_path / "artifact"),
            lambda: engine.open(context(tmp_path), EngineOptions()),
        ):
            with pytest.raises(UnavailableError) as raised:
                refused()
            assert told in str(raised.value.found)
            assert remedy in str(raised.value.hint)
        assert machine.sessions == []
    assert not (tmp_path / "artifact").exists()


def context(folder: Path) -> Path:
    """A file that both engines try to open."""
    path = folder / "context.onnx"
    path.write_bytes(GRAPH.read_bytes() + b"EPContext")
    return path


@pytest.mark.parametrize(("driver", "built_for"), [((12, 0), "12.8"), ((13, 0), "12.8"), ((11, 4), ""), ((12, 2), "x")])
def test_a_driver_of_the_same_major_version_is_new_enough(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, driver: tuple[int, int], built_for: str
) -> None:
    with gpu_stand_in(monkeypatch, FakeGpu(driver=driver, built_for=built_for)):
        availability = engine.availability()
    assert availability.available
    assert availability.note == NEVER_RUN_ON_GPU


def test_a_driver_that_the_provider_finds_too_old_is_told_in_the_same_words(
    engine: Engine, gpu: FakeGpu, tmp_path: Path
) -> None:
    gpu.opening = OLD_DRIVER
    with pytest.raises(UnavailableError) as raised:
        engine.build(GRAPH, tmp_path / "artifact")
    assert "the NVIDIA driver supports CUDA 12.4 at most" in str(raised.value.found)
    assert "update the driver" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("name", "loadable"), [("ort-cuda", (CPU,)), ("ort-tensorrt", (CPU,)), ("ort-tensorrt", (CUDA, CPU))]
)
def test_a_session_without_the_provider_is_refused(
    gpu: FakeGpu, tmp_path: Path, name: str, loadable: tuple[str, ...]
) -> None:
    engine = ENGINES.load(name)
    engine.build(GRAPH, tmp_path / "sound")
    gpu.loadable = loadable
    with pytest.raises(UnavailableError) as raised:
        engine.build(GRAPH, tmp_path / "artifact")
    assert "without " in raised.value.message
    assert raised.value.found == ", ".join(loadable)
    assert "TensorRT that" in str(raised.value.hint)
    assert not (tmp_path / "artifact").exists()
    with pytest.raises(UnavailableError):
        engine.open(tmp_path / "sound", EngineOptions())


def test_a_failing_run_is_an_error_and_no_run_on_the_processor(engine: Engine, gpu: FakeGpu, tmp_path: Path) -> None:
    engine.build(GRAPH, tmp_path / "artifact")
    with engine.open(tmp_path / "artifact", EngineOptions()) as runner:
        gpu.running = RuntimeError("CUDA failure 2: out of memory ; GPU=0")
        with pytest.raises(UnavailableError, match="GPU failed") as raised:
            runner.run(images(2), own_classes(2))
    assert "out of memory" in str(raised.value.found)
    assert CPU not in gpu.sessions[-1].providers[:1]


def test_running_out_of_memory_while_opening_is_no_fault_of_the_file(
    engine: Engine, gpu: FakeGpu, tmp_path: Path
) -> None:
    gpu.opening = RuntimeError("CUDA failure 2: out of memory ; GPU=0")
    with pytest.raises(UnavailableError, match=r"GPU failed while the engine .* was opened"):
        engine.build(GRAPH, tmp_path / "artifact")


@pytest.mark.parametrize(("operators", "refused"), [(("Gemm",), True), (("Less", "Cast"), False)])
def test_weights_on_the_processor_are_refused_and_other_nodes_are_told_of(
    engine: Engine, gpu: FakeGpu, tmp_path: Path, operators: tuple[str, ...], refused: bool
) -> None:
    gpu.on_processor = operators
    artifact = tmp_path / "artifact"
    if refused:
        with pytest.raises(BadInputError, match="on the processor") as raised:
            engine.build(GRAPH, artifact)
        assert "on the processor Gemm" in str(raised.value.found)
        assert not artifact.exists()
    else:
        told = engine.build(GRAPH, artifact).details["placement"]
        assert told["on_processor"] == sorted(operators)
        assert told["nodes"][CPU] >= 2
        assert told["nodes"][{"ort-cuda": CUDA, "ort-tensorrt": TENSORRT}[engine.name]] > 2


def test_a_graph_of_which_nothing_runs_on_the_gpu_is_refused() -> None:
    with pytest.raises(BadInputError):
        check_placement(Placement({CPU: ("Add",)}), CUDA, where="here")
    with pytest.raises(BadInputError):
        check_placement(Placement({}), CUDA, where="here")
    check_placement(Placement({CUDA: ("Conv",), CPU: ("Shape",)}), CUDA, where="here")


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"cat": "Node"}]', '[{"cat": "Node", "name": "x_kernel_time"}]'])
def test_a_profile_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "profile.json").write_text(content)
    if content == "{}":
        assert read_placement(tmp_path / "profile.json").operators == {}
        return
    with pytest.raises(IntegrityError, match="profile"):
        read_placement(tmp_path / "profile.json")


def half_graph(folder: Path) -> Path:
    """The stored graph with its last layer in FP16: inputs and outputs stay what they are."""
    model = onnx.load(GRAPH)
    graph, cast = model.graph, onnx.helper.make_node
    (place,) = (index for index, node in enumerate(graph.node) if node.op_type == "Gemm")
    gemm = graph.node[place]
    pooled, logits = gemm.input[0], gemm.output[0]
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for slot, name in enumerate(gemm.input):
        if slot:
            graph.initializer.append(onnx.numpy_helper.from_array(stored[name].astype(np.float16), f"{name}_half"))
        gemm.input[slot] = f"{name}_half"
    gemm.output[0] = f"{logits}_half"
    graph.node.insert(place + 1, cast("Cast", [f"{logits}_half"], [logits], to=onnx.TensorProto.FLOAT))
    graph.node.insert(place, cast("Cast", [pooled], [f"{pooled}_half"], to=onnx.TensorProto.FLOAT16))
    onnx.checker.check_model(model)
    path = folder / "half.onnx"
    path.write_bytes(model.SerializeToString())
    return path


GRAPHS: dict[str, Callable[[Path], Path]] = {"fp32": lambda folder: GRAPH, "int8": quantised, "fp16": half_graph}


@pytest.mark.parametrize("precision", GRAPHS)
def test_every_precision_answers_as_the_processor_does(
    engine: Engine, gpu: FakeGpu, tmp_path: Path, precision: str
) -> None:
    graph = GRAPHS[precision](tmp_path)
    listener = Listener()
    info = engine.build(graph, tmp_path / "artifact", listener)
    assert listener.notes == [f"{NEVER_RUN_ON_GPU}."]
    assert info.details["notice"] == NEVER_RUN_ON_GPU
    assert info.device == "a stand-in for GPU 0"
    with (
        engine.open(tmp_path / "artifact", EngineOptions()) as runner,
        ENGINES.load("reference").open(graph, EngineOptions()) as reference,
    ):
        for count in (3, 3, 1, 5):
            answer, truth = (each.run(images(count), own_classes(count)) for each in (runner, reference))
            np.testing.assert_allclose(answer.logits, truth.logits, atol=1e-5)
            np.testing.assert_allclose(answer.attribution, truth.attribution, atol=1e-5)


def test_nothing_that_changes_answers_is_left_to_the_provider(engine: Engine, gpu: FakeGpu, tmp_path: Path) -> None:
    engine.build(GRAPH, tmp_path / "artifact")
    for session in gpu.sessions:
        assert session.options[CUDA]["use_tf32"] == "0"
        assert session.options[CUDA]["cudnn_conv_algo_search"] == "HEURISTIC"
        if TENSORRT in session.options:
            assert session.options[TENSORRT]["trt_fp16_enable"] == "0"


@pytest.mark.parametrize("precision", GRAPHS)
def test_the_provider_may_use_what_the_graph_holds(gpu: FakeGpu, tmp_path: Path, precision: str) -> None:
    ENGINES.load("ort-tensorrt").build(GRAPHS[precision](tmp_path), tmp_path / "artifact")
    asked = [session.options[TENSORRT] for session in gpu.sessions if TENSORRT in session.options]
    building = next(options for options in asked if "trt_int8_enable" in options)
    assert building["trt_int8_enable"] == str(int(precision == "int8"))
    assert building["trt_fp16_enable"] == str(int(precision == "fp16"))


class TestTf32:
    @pytest.fixture(autouse=True)
    def undecided(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edgekit.engines.tf32._decided", [])
        # Set, so that it is as before once the test is done.
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")

    def tuned(self, tf32: bool) -> Engine:
        engine = ENGINES.load("ort-tensorrt")
        assert isinstance(engine, TunableEngine)
        return engine.tuned(Tuning("fp32", TensorRtSettings(tf32=tf32)))

    def test_it_is_off_unless_it_is_asked_for(self, gpu: FakeGpu, tmp_path: Path) -> None:
        info = ENGINES.load("ort-tensorrt").build(GRAPH, tmp_path / "artifact")
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
        assert info.details["tf32"] is False
        with ENGINES.load("ort-tensorrt").open(tmp_path / "artifact", EngineOptions()):
            assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"

    def test_what_is_opened_runs_as_it_was_built(
        self, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.tuned(True).build(GRAPH, tmp_path / "artifact")
        assert "NVIDIA_TF32_OVERRIDE" not in os.environ
        # Verification is another object, and perhaps another process, that was told nothing.
        monkeypatch.setattr("edgekit.engines.tf32._decided", [])
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
        with ENGINES.load("ort-tensorrt").open(tmp_path / "artifact", EngineOptions()):
            assert "NVIDIA_TF32_OVERRIDE" not in os.environ

    def test_a_process_decides_once(self, gpu: FakeGpu, tmp_path: Path) -> None:
        self.tuned(True).build(GRAPH, tmp_path / "artifact")
        with pytest.raises(UnavailableError, match="decided otherwise") as caught:
            self.tuned(False).build(GRAPH, tmp_path / "other")
        assert caught.value.hint

    @pytest.mark.parametrize("allowed", [True, False])
    def test_a_model_says_how_it_was_built(self, allowed: bool) -> None:
        data = GRAPH.read_bytes()
        told = with_tf32(data, allowed)
        assert stored_tf32(told, where="x") is allowed
        said = {item.key: item.value for item in onnx.load_model_from_string(told).metadata_props}
        assert said["edgekit.tf32"] == str(allowed).lower()
        # The provider's own default, for what was built before this was written down.
        assert stored_tf32(data, where="x") is True


def test_tensorrt_ships_the_engine_it_built_and_takes_larger_batches_in_parts(gpu: FakeGpu, tmp_path: Path) -> None:
    engine = ENGINES.load("ort-tensorrt")
    engine.build(GRAPH, tmp_path / "artifact")
    model = onnx.load(tmp_path / "artifact")
    assert [node.op_type for node in model.graph.node] == ["EPContext"]
    count = 2 * MOST_IMAGES + 1
    with engine.open(tmp_path / "artifact", EngineOptions()) as runner:
        assert runner.run(images(count), own_classes(count)).logits.shape == (count, 4)


def test_tensorrt_does_not_build_while_opening(gpu: FakeGpu) -> None:
    with pytest.raises(IntegrityError, match="holds no engine"):
        ENGINES.load("ort-tensorrt").open(GRAPH, EngineOptions())
    assert gpu.sessions == []


def test_tensorrt_opens_no_engine_that_lies_elsewhere(gpu: FakeGpu, tmp_path: Path) -> None:
    engine, artifact = ENGINES.load("ort-tensorrt"), tmp_path / "artifact"
    engine.build(GRAPH, artifact)
    model = onnx.load(artifact)
    (mode,) = (item for item in model.graph.node[0].attribute if item.name == "embed_mode")
    mode.i = 0
    artifact.write_bytes(model.SerializeToString())
    before = len(gpu.sessions)
    with pytest.raises(IntegrityError, match="another file"):
        engine.open(artifact, EngineOptions())
    assert len(gpu.sessions) == before


def test_a_provider_that_writes_no_engine_is_refused(gpu: FakeGpu, tmp_path: Path) -> None:
    gpu.writes_context = False
    with pytest.raises(UnavailableError, match="wrote no engine"):
        ENGINES.load("ort-tensorrt").build(GRAPH, tmp_path / "artifact")


def test_the_target_cuda_has_both_engines_and_says_what_is_missing(
    gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = resolve_target("cuda")
    assert engines_for(target) == EngineChoice(NAMES)
    assert engines_for(target, "ort-tensorrt") == EngineChoice(("ort-tensorrt",))
    with gpu_stand_in(monkeypatch, FakeGpu(available=(CUDA, CPU))):
        choice = engines_for(target)
        assert choice.engines == ("ort-cuda",)
        assert [item.engine for item in choice.absent] == ["ort-tensorrt"]
    with gpu_stand_in(monkeypatch, FakeGpu(driver=None)), pytest.raises(UnavailableError) as raised:
        engines_for(target)
    assert "ort-cuda: there is no NVIDIA driver" in str(raised.value.found)


def test_what_the_package_prints_stays_off_standard_output(
    gpu: FakeGpu, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ENGINES.load("ort-cuda").build(GRAPH, tmp_path / "artifact")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Failed to load" in printed.err


class FakeDriver:
    """The C interface, as far as it is used."""

    def __init__(self, version: int, name: bytes, status: int = 0) -> None:
        self.version, self.name, self.status = version, name, status

    def cuDriverGetVersion(self, place: Any) -> int:  # noqa: N802 - the driver's name
        place._obj.value = self.version
        return self.status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDeviceGet(self, place: Any, number: int) -> int:  # noqa: N802
        place._obj.value = number
        return self.status

    def cuDeviceGetName(self, place: Any, size: int, device: Any) -> int:  # noqa: N802
        place.value = self.name
        return self.status


@pytest.mark.parametrize(
    ("driver", "version", "name"),
    [
        (None, None, ""),
        (FakeDriver(12040, b"A card"), (12, 4), "A card"),
        (FakeDriver(11080, b"A card"), (11, 8), "A card"),
        (FakeDriver(0, b"A card"), None, "A card"),
        (FakeDriver(12040, b"A card", status=100), None, ""),
    ],
)
def test_what_the_driver_tells(
    monkeypatch: pytest.MonkeyPatch, driver: FakeDriver | None, version: tuple[int, int] | None, name: str
) -> None:
    monkeypatch.setattr("edgekit.engines.cuda_driver._driver", lambda: driver)
    assert cuda_of_driver() == version
    assert device_name(0) == name
