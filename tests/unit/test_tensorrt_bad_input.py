"""Everything that a GPU's engine is given wrong, case by case: what was expected, what was found, and what to do.

Over stand-ins: what runs here is our code, and no TensorRT. Other tests look at each case more closely; this table is
the promise that none of them leaves a person without one of the three.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from device_candidates import device_stand_in
from fake_cuda.devices import RTX_3090, THOR_T5000
from fake_cuda.faults import Faults, ParserFault
from fake_cuda.machine import FakeMachine
from fake_tensorrt.install import MISSING_LIBRARIES, installed
from fake_tensorrt.plan import of_another_device, of_another_version
from onnxruntime_gpu_stand_in import FakeGpu, gpu_stand_in
from tensorrt_stand_ins import GRAPH, images, own_classes, stand_in

from edgekit.core.digests import digest_bytes
from edgekit.core.supervised import Patience, run_supervised
from edgekit.device.supervise import supervised
from edgekit.engines.build import BuildEngineRequest, build_engine
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.build import build_plan
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.plan_file import read_plan, write_plan
from edgekit.engines.tensorrt.run import open_plan
from edgekit.engines.tensorrt.running import RunOptions
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.engines.tuning import Tuning
from edgekit.errors import BadInputError, EdgekitError, IntegrityError, UnavailableError

V10 = ("10.3.0", "pycuda")


@dataclass(frozen=True)
class Here:
    """Where a case happens."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def plan(self) -> Path:
        return self.folder / "engine.plan"

    def built(self, **options: Any) -> Path:
        """A sound plan of the stand-in for an Orin."""
        with stand_in(*V10, self.monkeypatch):
            build_plan(GRAPH, self.plan, BuildOptions(**options))
        return self.plan

    def opened(self, version: str = V10[0], machine: FakeMachine | None = None) -> None:
        with stand_in(version, V10[1], self.monkeypatch, machine):
            open_plan(self.plan).close()

    def faulty(self, faults: Faults, work: Callable[[], Any], interface: str = V10[1]) -> None:
        with stand_in(V10[0], interface, self.monkeypatch, FakeMachine(faults=faults)):
            work()

    def reheaded(self, change: Callable[[bytes], bytes]) -> None:
        """Another plan below a header that fits: what TensorRT itself has to refuse."""
        header, plan = read_plan(self.built())
        other = change(plan)
        write_plan(self.plan, replace(header, plan_sha256=digest_bytes(other)), other)


def another_device(here: Here) -> None:
    here.built()
    here.opened(machine=FakeMachine(THOR_T5000))


def another_device_by_tensorrt(here: Here) -> None:
    here.reheaded(lambda plan: of_another_device(plan, (7, 2)))
    here.opened()


def another_version(here: Here) -> None:
    here.built()
    here.opened("10.13.3.9")


def another_version_by_tensorrt(here: Here) -> None:
    here.reheaded(lambda plan: of_another_version(plan, "9.9.9"))
    here.opened()


def corrupt_plan(here: Here) -> None:
    data = bytearray(here.built().read_bytes())
    data[-1] ^= 1
    here.plan.write_bytes(bytes(data))
    here.opened()


def corrupt_plan_by_tensorrt(here: Here) -> None:
    here.reheaded(lambda plan: plan[: len(plan) // 2])
    here.opened()


def an_onnx_file_for_a_plan(here: Here) -> None:
    here.plan.write_bytes(GRAPH.read_bytes())
    here.opened()


def truncated_graph(here: Here) -> None:
    cut = here.folder / "cut.onnx"
    cut.write_bytes(GRAPH.read_bytes()[:-100])
    here.faulty(Faults(), lambda: build_plan(cut, here.plan, BuildOptions()))


def empty_graph(here: Here) -> None:
    (here.folder / "empty.onnx").touch()
    here.faulty(Faults(), lambda: build_plan(here.folder / "empty.onnx", here.plan, BuildOptions()))


def image_outside_the_profile(here: Here) -> None:
    here.built()
    with stand_in(*V10, here.monkeypatch), open_plan(here.plan) as runner:
        runner.run(images(1)[:, :, :3], own_classes(1))


def batch_outside_the_profile(here: Here) -> None:
    here.built(batches=(1, 2, 4))
    with stand_in(*V10, here.monkeypatch), open_plan(here.plan) as runner:
        # A runner never gets here: it cuts batches into parts.
        runner._session.run(images(5), own_classes(5), 0)


def class_outside_the_network(here: Here) -> None:
    here.built()
    with stand_in(*V10, here.monkeypatch), open_plan(here.plan) as runner:
        runner.run(images(1), own_classes(1) + 90)


def memory_to_build(here: Here) -> None:
    here.faulty(Faults(build_memory=64 << 30), lambda: build_plan(GRAPH, here.plan, BuildOptions()))


def memory_to_prepare(here: Here) -> None:
    here.built()
    here.faulty(Faults(engine_memory=64 << 30), lambda: open_plan(here.plan))


def memory_for_tensors(here: Here) -> None:
    here.built(batches=(1, 1, 65536))
    small = FakeMachine(replace(FakeMachine().device, memory=8 << 20), Faults(engine_memory=0))
    with stand_in(*V10, here.monkeypatch, small):
        open_plan(here.plan)


def missing_libraries(here: Here) -> None:
    here.built()
    with installed(V10[0], ("pycuda",), broken=MISSING_LIBRARIES):
        open_plan(here.plan)


def no_tensorrt(here: Here) -> None:
    here.built()
    with installed(None, ("pycuda",)):
        open_plan(here.plan)


def no_cuda_package(here: Here) -> None:
    here.built()
    with installed(V10[0], ()):
        open_plan(here.plan)


def old_driver(here: Here) -> None:
    here.built()
    here.faulty(Faults(driver="cudaErrorInsufficientDriver"), lambda: open_plan(here.plan), "cuda-python-12.6")


def driver_that_does_not_start(here: Here) -> None:
    here.built()
    here.faulty(Faults(driver="cudaErrorInsufficientDriver"), lambda: open_plan(here.plan))


def old_driver_to_build(here: Here) -> None:
    faults = Faults(driver="cudaErrorInsufficientDriver")
    here.faulty(faults, lambda: build_plan(GRAPH, here.plan, BuildOptions()), "cuda-python-12.6")


def old_driver_for_onnxruntime(here: Here) -> None:
    with gpu_stand_in(here.monkeypatch, FakeGpu(driver=(11, 8))):
        ENGINES.load("ort-cuda").build(GRAPH, here.folder / "artifact")


def two_onnxruntimes(here: Here) -> None:
    with gpu_stand_in(here.monkeypatch, FakeGpu(distributions=("onnxruntime", "onnxruntime-gpu"))):
        ENGINES.load("ort-cuda").open(GRAPH, EngineOptions())


def hanging_build(here: Here) -> None:
    tuning = Tuning("fp32", TensorRtSettings(time_limit_s=2))
    with device_stand_in(*V10, here.monkeypatch, here.folder, Faults(hang_build=60.0)):
        build_engine(BuildEngineRequest("tensorrt", GRAPH, "fp32", tuning), here.folder / "stage")


def hanging_device(here: Here) -> None:
    silent = here.folder / "silent.py"
    silent.write_text("import time\ntime.sleep(60)\n")
    supervised(here.folder, here.folder / "out", 1.0, command=(sys.executable, str(silent)))


def dying_device(here: Here) -> None:
    patience = Patience(20, whole=False, message="late", expected="e", hint="h")
    run_supervised([sys.executable, "-c", "import os; os.abort()"], patience, expected="engines and scores")


def parser_error(here: Here) -> None:
    faults = Faults(parser=(ParserFault(4, "Assertion failed: axis < nbDims"),))
    here.faulty(faults, lambda: build_plan(GRAPH, here.plan, BuildOptions()))


def no_kernel(here: Here) -> None:
    faults = Faults(build_fails="[graph] could not find any implementation for node conv")
    here.faulty(faults, lambda: build_plan(GRAPH, here.plan, BuildOptions()))


def no_builder(here: Here) -> None:
    here.faulty(Faults(null_factory=True), lambda: build_plan(GRAPH, here.plan, BuildOptions()))


def failing_run(here: Here) -> None:
    here.built()

    def run() -> None:
        with open_plan(here.plan) as runner:
            runner.run(images(1), own_classes(1))

    here.faulty(Faults(enqueue_fails="CUDA error 700"), run)


def shared_memory_that_is_not(here: Here) -> None:
    with stand_in(*V10, here.monkeypatch, FakeMachine(RTX_3090)):
        build_plan(GRAPH, here.plan, BuildOptions(run=RunOptions(zero_copy=True)))


CASES: tuple[tuple[Callable[[Here], None], type[EdgekitError], str, str], ...] = (
    # Case, kind, what is said of what was found, what is said of what to do.
    (another_device, UnavailableError, "Thor", "build it again"),
    (another_device_by_tensorrt, UnavailableError, "", "build it again"),
    (another_version, UnavailableError, "10.13.3.9", "build it again"),
    (another_version_by_tensorrt, UnavailableError, "", "build it again"),
    (corrupt_plan, IntegrityError, "another digest", "build it"),
    (corrupt_plan_by_tensorrt, IntegrityError, "", "build it again"),
    (an_onnx_file_for_a_plan, IntegrityError, "another kind of file", "build it"),
    (truncated_graph, BadInputError, "", "export"),
    (empty_graph, BadInputError, "", "export"),
    (image_outside_the_profile, BadInputError, "3, 3, 4", "preprocess"),
    (batch_outside_the_profile, BadInputError, "5, 3, 4, 4", "tensorrt.batches"),
    (class_outside_the_network, BadInputError, "89", ""),
    (memory_to_build, UnavailableError, "OutOfMemory", "close other programs"),
    (memory_to_prepare, UnavailableError, "OutOfMemory", "close other programs"),
    (memory_for_tensors, UnavailableError, "memory", "close other programs"),
    (missing_libraries, UnavailableError, "libnvinfer.so.10", "python3-libnvinfer"),
    (no_tensorrt, UnavailableError, "", "JetPack"),
    (no_cuda_package, UnavailableError, "pycuda", "pip install"),
    (driver_that_does_not_start, UnavailableError, "cuInit", "as new as this CUDA package"),
    (old_driver, UnavailableError, "Driver", "update the driver"),
    (old_driver_to_build, UnavailableError, "Driver", "update the driver"),
    (old_driver_for_onnxruntime, UnavailableError, "CUDA 11.8", "update the driver"),
    (two_onnxruntimes, UnavailableError, "side by side", "uninstall -y onnxruntime"),
    (hanging_build, UnavailableError, "", "tensorrt.time_limit_s"),
    (hanging_device, UnavailableError, "", "--patience"),
    (dying_device, UnavailableError, "-6", "crash of the library"),
    (parser_error, BadInputError, "axis < nbDims", ""),
    (no_kernel, BadInputError, "could not find any implementation", "trtexec"),
    (no_builder, UnavailableError, "", "edgekit doctor"),
    (failing_run, UnavailableError, "CUDA error 700", "rebuild"),
    (shared_memory_that_is_not, BadInputError, "RTX 3090", "tensorrt.run.zero_copy"),
)


@pytest.mark.parametrize(("case", "kind", "found", "hint"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_person_is_told_all_three(
    case: Callable[[Here], None],
    kind: type[EdgekitError],
    found: str,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EdgekitError) as caught:
        case(Here(tmp_path, monkeypatch))
    error = caught.value
    assert type(error) is kind
    assert error.expected
    assert error.found
    assert found in error.found
    assert error.hint
    assert hint in error.hint
