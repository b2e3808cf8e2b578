"""The fake builder's other devices and precisions: DLA, calibrators, and what the inspector tells of layers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_cuda.devices import AGX_ORIN_64, ORIN_NANO_8, XAVIER_NX
from fake_cuda.machine import FakeMachine
from fake_tensorrt import VERSIONS, make_tensorrt
from fake_tensorrt.driving import build, open_plan
from fake_tensorrt.graphs import float_graph, quantised_graph
from fake_tensorrt.plan import unpack

WEAK = VERSIONS[:-1]


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest, machine: FakeMachine) -> Any:
    return make_tensorrt(request.param, machine)


def refusal(trt: Any, model: Any, configure: Any) -> str:
    built = build(trt, model, configure)
    assert built.plan is None
    return str(built.logger.text())


# DLA


def on_dla(core: int = 0, fallback: bool = True) -> Any:
    def configure(trt: Any, config: Any) -> None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = core
        if fallback:
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)

    return configure


@pytest.mark.parametrize(
    ("version", "device", "cores"),
    [
        ("8.5.2", XAVIER_NX, 2),
        ("10.3.0", AGX_ORIN_64, 2),
        ("10.3.0", ORIN_NANO_8, 0),
        ("10.16.1.11", AGX_ORIN_64, 0),
        ("11.4.0.106", AGX_ORIN_64, 0),
    ],
)
def test_dla_cores_depend_on_device_and_version(version: str, device: Any, cores: int) -> None:
    trt = make_tensorrt(version, FakeMachine(device))
    assert trt.Builder(trt.Logger()).num_DLA_cores == cores
    assert trt.Runtime(trt.Logger()).num_DLA_cores == cores


def test_dla_takes_fixed_shapes_without_pairs_and_lists_what_it_leaves() -> None:
    trt = make_tensorrt("10.3.0", FakeMachine(AGX_ORIN_64))
    assert build(trt, float_graph(), on_dla(), batches=(2, 2, 2)).plan is not None
    assert "min, opt and max must be equal" in refusal(trt, float_graph(), on_dla())
    assert "Q/DQ" in refusal(trt, quantised_graph(), on_dla())
    assert "DLA core 5" in refusal(trt, float_graph(), on_dla(core=5))
    built = build(trt, float_graph(), on_dla(fallback=False), batches=(2, 2, 2))
    assert built.plan is None
    assert "pool, flatten" in built.logger.text()
    assert built.config.can_run_on_DLA(built.network.get_layer(0))
    assert not built.config.can_run_on_DLA(built.network.get_layer(2))


# Calibration


@pytest.fixture(params=WEAK)
def calibrating(request: pytest.FixtureRequest, machine: FakeMachine) -> Any:
    trt = make_tensorrt(request.param, machine)

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc, name-defined]
        def __init__(self, batches: int, cache: bytes | None = None) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.batches, self.cache, self.written = batches, cache, b""
            self.memory = [machine.memory.allocate(4 * 3 * 6 * 6 * 4).address for _ in range(2)]

        def get_batch_size(self) -> int:
            return 4

        def get_batch(self, names: list[str]) -> list[int] | None:
            self.batches -= 1
            return self.memory if self.batches >= 0 else None

        def read_calibration_cache(self) -> bytes | None:
            return self.cache

        def write_calibration_cache(self, cache: Any) -> None:
            self.written = bytes(cache)

    return trt, Calibrator


def calibrated_by(calibrator: Any) -> Any:
    def configure(trt: Any, config: Any) -> None:
        config.set_flag(trt.BuilderFlag.INT8)
        config.int8_calibrator = calibrator

    return configure


def test_a_calibrator_is_asked_for_batches_and_given_the_cache(calibrating: Any) -> None:
    trt, calibrator = calibrating
    first = calibrator(2)
    assert build(trt, float_graph(), calibrated_by(first)).plan is not None
    header, *lines = first.written.decode().splitlines()
    numbers = {"8.5.2": "8502", "8.6.1": "8601", "10.3.0": "100300", "10.13.3.9": "101303", "10.16.1.11": "101601"}
    assert header == f"TRT-{numbers[next(v for v in WEAK if trt.__version__.startswith(v))]}-EntropyCalibration2"
    assert "conv: 3c010204" in lines
    second = calibrator(0, first.written)
    assert build(trt, float_graph(), calibrated_by(second)).plan is not None
    assert second.written == b""


def test_a_calibration_cache_of_another_version_is_not_used(calibrating: Any) -> None:
    trt, calibrator = calibrating
    found = calibrator(1, b"TRT-7000-EntropyCalibration2\nconv: 3c010204\n")
    assert build(trt, float_graph(), calibrated_by(found)).plan is not None
    assert found.written
    assert "Calibration failure" in build(trt, float_graph(), calibrated_by(calibrator(0))).logger.text()


@pytest.mark.parametrize("version", WEAK)
def test_int8_needs_pairs_or_a_calibrator(version: str) -> None:
    told = refusal(make_tensorrt(version), float_graph(), lambda trt, config: config.set_flag(trt.BuilderFlag.INT8))
    assert "Calibrator is not being used" in told


# Layers


def layers_of(trt: Any, machine: FakeMachine, plan: Any) -> list[Any]:
    opened = open_plan(trt, machine, plan)
    told = opened.engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    opened.close()
    layers: list[Any] = json.loads(told)["Layers"]
    return layers


def test_the_inspector_tells_precisions_and_origins(trt: Any, machine: FakeMachine) -> None:
    layers = layers_of(trt, machine, build(trt, quantised_graph()).plan)
    convolution = next(each for each in layers if each["Name"] == "conv + relu")
    assert convolution["LayerType"] == "CaskConvolution"
    assert "Int8" in convolution["Outputs"][0]["Format/Datatype"]
    assert convolution["Metadata"].split("\x1e") == ["[ONNX Layer: conv]", "[ONNX Layer: relu]"]
    assert any(each["LayerType"] == "Reformat" and "conv" in each["Name"] for each in layers)


def test_a_layer_can_fall_back(trt: Any, machine: FakeMachine) -> None:
    machine.faults.fallback_layers = ("conv",)
    layers = layers_of(trt, machine, build(trt, quantised_graph()).plan)
    assert all("Int8" not in str(each) for each in layers)


@pytest.mark.parametrize("verbosity", ["NONE", "LAYER_NAMES_ONLY"])
def test_the_inspector_tells_no_more_than_was_asked_for(trt: Any, machine: FakeMachine, verbosity: str) -> None:
    def configure(trt: Any, config: Any) -> None:
        config.profiling_verbosity = getattr(trt.ProfilingVerbosity, verbosity)

    layers = layers_of(trt, machine, build(trt, quantised_graph(), configure).plan)
    assert ("conv + relu" in layers) == (verbosity == "LAYER_NAMES_ONLY")
    assert all(isinstance(each, str) for each in layers)


def test_a_plan_says_what_it_is(trt: Any, machine: FakeMachine) -> None:
    header = unpack(bytes(build(trt, quantised_graph()).plan)).header
    assert (header["version"], tuple(header["capability"])) == (trt.__version__, machine.device.capability)
    assert [each["name"] for each in header["tensors"]] == ["image", "class_index", "logits", "chosen"]


def test_a_calibrators_batches_have_to_be_there(calibrating: Any, machine: FakeMachine) -> None:
    trt, calibrator = calibrating
    found = calibrator(1)
    machine.memory.release(found.memory[1])
    told = refusal(trt, float_graph(), calibrated_by(found))
    assert "batch of class_index: cudaErrorIllegalAddress" in told
    found.memory.pop()
    found.batches = 1
    assert "1 pointers for 2 inputs" in refusal(trt, float_graph(), calibrated_by(found))
