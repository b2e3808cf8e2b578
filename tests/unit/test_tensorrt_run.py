"""Running plans: answers against ONNX Runtime, and everything a plan, a device or TensorRT can do wrong.

Over stand-ins: what runs here is our code, and no TensorRT.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda.devices import ORIN_NANO_8, RTX_3090, THOR_T5000
from fake_cuda.faults import Faults
from fake_cuda.machine import FakeMachine
from fake_tensorrt.install import installed
from fake_tensorrt.plan import of_another_device, of_another_version
from tensorrt_stand_ins import GRAPH, PAIRS, images, own_classes, quantised_graph, stand_in

from edgekit.core.digests import digest_bytes
from edgekit.engines.onnxruntime_engine import OnnxRuntimeEngine
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.build import build_plan
from edgekit.engines.tensorrt.graph_recording import GraphRecording
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.plan_file import PlanHeader, read_plan, write_plan
from edgekit.engines.tensorrt.run import open_plan
from edgekit.engines.tensorrt.running import RunOptions
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, EdgekitError, IntegrityError, UnavailableError

CUDA_GRAPHS = ("11.4.0.106", "cuda-python-13")


@pytest.fixture(params=PAIRS, ids="-".join)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMachine]:
    with stand_in(*request.param, monkeypatch) as machine:
        yield machine


@pytest.fixture
def graphs_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMachine]:
    """One that records CUDA graphs."""
    with stand_in(*CUDA_GRAPHS, monkeypatch) as machine:
        yield machine


def built(folder: Path, options: BuildOptions = BuildOptions(), graph: Path = GRAPH) -> Path:  # noqa: B008 - frozen
    build_plan(graph, folder / "engine.plan", options)
    return folder / "engine.plan"


def test_answers_are_those_of_the_graph(machine: FakeMachine, tmp_path: Path) -> None:
    graph = tmp_path / "quantised.onnx"
    graph.write_bytes(quantised_graph().SerializeToString())
    asked = np.array([-1, 0, 1, 2, 3, -1, 3], np.int32)
    with open_plan(built(tmp_path, graph=graph)) as runner:
        found = runner.run(images(7), asked)
        details = runner.info.to_dict()["details"]
    with OnnxRuntimeEngine("reference", optimise=False).open(graph, EngineOptions()) as reference:
        wanted = reference.run(images(7), asked)
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-6)
    np.testing.assert_allclose(found.attribution, wanted.attribution, atol=1e-6)
    assert wanted.attribution.max() > 0
    assert details["notice"] == NEVER_RUN
    assert details["plan"]["build"]["notice"] == NEVER_RUN


@pytest.mark.parametrize("batches", [(1, 1, 1), (1, 4, 4), (4, 4, 4), (3, 5, 8)])
def test_any_number_of_images_goes_through_any_profile(
    machine: FakeMachine, tmp_path: Path, batches: tuple[int, int, int]
) -> None:
    given = images(11)
    with open_plan(built(tmp_path, BuildOptions(batches=batches))) as runner:
        whole = runner.run(given, own_classes(11))
        single = [runner.run(given[index : index + 1], own_classes(1)) for index in range(11)]
    assert whole.logits.shape == (11, 4)
    np.testing.assert_allclose(np.concatenate([each.logits for each in single]), whole.logits, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([each.attribution for each in single]), whole.attribution, atol=1e-6)


def test_a_repeated_batch_is_recorded_once_and_answers_the_same(graphs_machine: FakeMachine, tmp_path: Path) -> None:
    given = images(6)
    with (
        open_plan(built(tmp_path)) as runner,
        open_plan(tmp_path / "engine.plan", RunOptions(cuda_graph=False)) as plain,
    ):
        states = []
        for batch in (given[:2], given[2:4], given[4:], given, given, given[:2]):
            recorded, straight = (each.run(batch, own_classes(len(batch))) for each in (runner, plain))
            np.testing.assert_array_equal(recorded.logits, straight.logits)
            np.testing.assert_array_equal(recorded.attribution, straight.attribution)
            states.append(runner.info.details["cuda_graph"]["state"])
        assert runner.info.details["cuda_graph"] == {"state": "not recorded yet", "runs": 6, "launched": 3}
        assert plain.info.details["cuda_graph"] == {"state": "off", "runs": 6, "launched": 0}
    # The second run of a size records; another size drops the recording, which holds the old one's shapes.
    waiting, done = "not recorded yet", "recorded"
    assert states == [waiting, done, done, waiting, done, waiting]


def test_what_cannot_be_recorded_is_told_and_runs_all_the_same(
    graphs_machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_plan(built(tmp_path)) as runner:
        first = runner.run(images(2), own_classes(2))
        memory = type(runner._session.memory)

        def refused(*_: object) -> None:
            raise UnavailableError("CUDA could not record.", found="operation not permitted when stream is capturing")

        monkeypatch.setattr(memory, "capture", refused)
        again = runner.run(images(2), own_classes(2))
        state = runner.info.details["cuda_graph"]["state"]
        third = runner.run(images(2), own_classes(2))
    assert "not permitted" in state
    for output in (again, third):
        np.testing.assert_array_equal(output.logits, first.logits)


def test_shared_memory_is_used_without_copies(machine: FakeMachine, tmp_path: Path) -> None:
    path = built(tmp_path)
    with open_plan(path) as copying, open_plan(path, RunOptions(zero_copy=True)) as sharing:
        copied, shared = (each.run(images(3), own_classes(3)) for each in (copying, sharing))
        times, shared_times = copying.gpu_times, sharing.gpu_times
        assert sharing.info.details["run"]["zero_copy"] is True
    np.testing.assert_array_equal(shared.attribution, copied.attribution)
    assert times is not None
    assert shared_times is not None
    assert times.copy_in_ms > shared_times.copy_in_ms == 0
    assert times.compute_ms > 0


def test_a_discrete_gpu_shares_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in("10.3.0", "pycuda", monkeypatch, FakeMachine(RTX_3090)):
        path = built(tmp_path)
        with pytest.raises(BadInputError) as raised:
            open_plan(path, RunOptions(zero_copy=True))
        with pytest.raises(BadInputError, match="own"):
            # Before the minutes that a build takes.
            built(tmp_path, BuildOptions(run=RunOptions(zero_copy=True)))
    assert "zero_copy" in str(raised.value.hint)


@pytest.mark.parametrize(
    "run",
    [RunOptions(), RunOptions(cuda_graph=False), RunOptions(zero_copy=True), RunOptions(True, False)],
    ids=lambda each: each.in_words(),
)
def test_a_plan_runs_as_it_was_built_to(machine: FakeMachine, tmp_path: Path, run: RunOptions) -> None:
    path = built(tmp_path, BuildOptions(run=run))
    assert read_plan(path)[0].run == run
    # As verification, benchmark, explanation and device open it: by the registry, with nothing of the recipe.
    with ENGINES.load("tensorrt").open(path, EngineOptions()) as runner:
        for _ in range(3):
            runner.run(images(2), own_classes(2))
        details = runner.info.details
        times = runner.gpu_times  # type: ignore[attr-defined]
    assert details["run"] == run.to_dict()
    assert details["plan"]["run"] == run.to_dict()
    assert details["cuda_graph"]["runs"] == 3
    records = run.cuda_graph and details["cuda_graph"]["state"] == "recorded"
    assert details["cuda_graph"]["launched"] == (2 if records else 0)
    assert (times.copy_in_ms == 0) is run.zero_copy


def test_no_graph_is_recorded_of_work_on_the_dla() -> None:
    recording = GraphRecording.of(RunOptions(), captures=True, dla_core=0)
    assert "DLA" in recording.state
    assert GraphRecording.of(RunOptions(), captures=True, dla_core=None).state == "not recorded yet"


def test_the_named_package_builds_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = BuildOptions(run=RunOptions(cuda_package="pycuda"))
    with stand_in("10.3.0", "pycuda", monkeypatch), open_plan(built(tmp_path, named)) as runner:
        assert runner.info.details["memory"].startswith("pycuda")
    with stand_in("10.3.0", "cuda-python-12.6", monkeypatch):
        for use in (lambda: built(tmp_path / "x", named), lambda: open_plan(tmp_path / "engine.plan")):
            with pytest.raises(UnavailableError) as raised:
                use()
            assert "pycuda" in f"{raised.value.message} {raised.value.found}"
            assert raised.value.hint


def test_another_thread_may_run_it(machine: FakeMachine, tmp_path: Path) -> None:
    found: list[object] = []
    with open_plan(built(tmp_path)) as runner:
        thread = threading.Thread(target=lambda: found.append(runner.run(images(2), own_classes(2)).logits))
        thread.start()
        thread.join()
        np.testing.assert_array_equal(found[0], runner.run(images(2), own_classes(2)).logits)


def test_no_image_is_no_batch(machine: FakeMachine, tmp_path: Path) -> None:
    with open_plan(built(tmp_path)) as runner, pytest.raises(BadInputError):
        runner.run(images(0), own_classes(0))


@pytest.mark.parametrize("device", [ORIN_NANO_8, THOR_T5000, RTX_3090], ids=lambda each: each.name)
def test_a_plan_of_another_device_is_refused_before_tensorrt_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: object
) -> None:
    with stand_in("10.3.0", "pycuda", monkeypatch):
        path = built(tmp_path)
    other = FakeMachine(device)  # type: ignore[arg-type]
    with stand_in("10.3.0", "pycuda", monkeypatch, other), pytest.raises(UnavailableError) as raised:
        open_plan(path)
    assert "TensorRT 10.3.0 on Orin (SM 8.7, 16 multiprocessors)" in str(raised.value.expected)
    assert other.device.name in str(raised.value.found)
    assert "build it again" in str(raised.value.hint)


def test_a_plan_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in("10.3.0", "pycuda", monkeypatch):
        path = built(tmp_path)
    with stand_in("10.13.3.9", "pycuda", monkeypatch), pytest.raises(UnavailableError) as raised:
        open_plan(path)
    assert "10.3.0" in str(raised.value.expected)
    assert "10.13.3.9" in str(raised.value.found)


def test_a_version_compatible_plan_runs_on_a_later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in("10.3.0", "pycuda", monkeypatch):
        path = built(tmp_path, BuildOptions(version_compatible=True))
    with stand_in("10.13.3.9", "pycuda", monkeypatch), open_plan(path) as runner:
        assert runner.run(images(2), own_classes(2)).logits.shape == (2, 4)
    with stand_in("11.4.0.106", "pycuda", monkeypatch), pytest.raises(UnavailableError):
        open_plan(path)


def reheaded(path: Path, plan: bytes, **changes: object) -> None:
    """A file whose header fits this plan and this device, whatever the plan itself is for."""
    header, _ = read_plan(path)
    changed: PlanHeader = replace(header, plan_sha256=digest_bytes(plan), **changes)  # type: ignore[arg-type]
    write_plan(path, changed, plan)


def of_two_profiles(path: Path) -> None:
    """Replace the plan by one that another tool could have built: for one or two images, and for four to eight."""
    module: Any = sys.modules["tensorrt"]
    logger = module.Logger()
    builder = module.Builder(logger)
    explicit = getattr(module.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    network = builder.create_network(0 if explicit is None else 1 << int(explicit))
    assert module.OnnxParser(network, logger).parse(GRAPH.read_bytes())
    config = builder.create_builder_config()
    for batches in ((1, 1, 2), (4, 8, 8)):
        profile = builder.create_optimization_profile()
        profile.set_shape("image", *((batch, 3, 4, 4) for batch in batches))
        profile.set_shape("class_index", *((batch,) for batch in batches))
        config.add_optimization_profile(profile)
    reheaded(path, bytes(builder.build_serialized_network(network, config)))


def test_a_plan_of_several_profiles_runs_each_batch_in_one_that_takes_it(machine: FakeMachine, tmp_path: Path) -> None:
    path = built(tmp_path)
    given = images(20)
    with open_plan(path) as runner:
        wanted = runner.run(given, own_classes(20))
    of_two_profiles(path)
    with open_plan(path) as runner:
        assert [each["largest"] for each in runner.info.details["batches"]] == [2, 8]
        for count in (*range(1, 21), 1, 20, 3):
            found = runner.run(given[:count], own_classes(count))
            np.testing.assert_allclose(found.logits, wanted.logits[:count], atol=1e-6)
            np.testing.assert_allclose(found.attribution, wanted.attribution[:count], atol=1e-6)
        runner.run(given[:3], own_classes(3))
        state = runner.info.details["cuda_graph"]["state"]
        assert state == "recorded" or state.startswith("off: this CUDA package")


@pytest.mark.parametrize("fault", ["device", "version", "foreign", "cut"])
def test_what_tensorrt_itself_refuses_is_told_in_our_words(machine: FakeMachine, tmp_path: Path, fault: str) -> None:
    path = built(tmp_path)
    _, plan = read_plan(path)
    other, expected = {
        "device": (of_another_device(plan, (7, 2)), UnavailableError),
        "version": (of_another_version(plan, "9.9.9"), UnavailableError),
        "foreign": (b"ftrt" + plan, IntegrityError),
        "cut": (plan[: len(plan) // 2], IntegrityError),
    }[fault]
    reheaded(path, other)
    with pytest.raises(expected) as raised:
        open_plan(path)
    assert raised.value.found
    assert "build it again" in str(raised.value.hint)


def test_too_little_memory_for_a_context_is_told(machine: FakeMachine, tmp_path: Path) -> None:
    path = built(tmp_path)
    machine.faults = Faults(engine_memory=machine.device.memory)
    with pytest.raises(UnavailableError) as raised:
        open_plan(path)
    assert "close other programs" in str(raised.value.hint)


def test_a_driver_that_is_gone_is_told(machine: FakeMachine, tmp_path: Path) -> None:
    path = built(tmp_path)
    machine.faults = Faults(driver="cudaErrorInsufficientDriver")
    with pytest.raises(UnavailableError):
        open_plan(path)
    machine.faults = Faults()


def test_a_runtime_that_cannot_be_made_is_told(machine: FakeMachine, tmp_path: Path) -> None:
    path = built(tmp_path)
    machine.faults = Faults(null_factory=True)
    with pytest.raises(UnavailableError, match="runtime"):
        open_plan(path)


class Trap:
    """A runtime that was made in spite of its own errors: the real one ends the process at the first use."""

    def __init__(self, logger: Any) -> None:
        logger.log(sys.modules["tensorrt"].ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} of a runtime that cannot be used")


def test_a_runtime_that_logged_errors_is_never_used(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = built(tmp_path)
    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", Trap)
    with pytest.raises(UnavailableError, match="cannot use the GPU"):
        open_plan(path)


def test_work_that_tensorrt_refuses_is_told(machine: FakeMachine, tmp_path: Path) -> None:
    with open_plan(built(tmp_path)) as runner:
        machine.faults = Faults(enqueue_fails="no space on the moon")
        with pytest.raises(UnavailableError) as raised:
            runner.run(images(2), own_classes(2))
        assert "no space on the moon" in str(raised.value.found)
        machine.faults = Faults()
        assert runner.run(images(2), own_classes(2)).logits.shape == (2, 4)


def test_a_launch_that_fails_on_the_device_is_told_and_closing_hides_nothing(tmp_path: Path) -> None:
    with installed("10.3.0", ("pycuda",)) as there:
        path = built(tmp_path)
        runner = open_plan(path)
        there.machine.faults = Faults(launch_fails=True)
        with pytest.raises(UnavailableError) as raised:
            runner.run(images(2), own_classes(2))
        runner.close()
        assert "start again" in str(raised.value.hint)


def test_numbers_that_are_none_are_not_hidden(machine: FakeMachine, tmp_path: Path) -> None:
    with open_plan(built(tmp_path)) as runner:
        machine.faults = Faults(nan_outputs=True)
        assert np.isnan(runner.run(images(1), own_classes(1)).logits).all()


def test_without_tensorrt_there_is_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in("10.3.0", "pycuda", monkeypatch):
        path = built(tmp_path)
    with installed(None, ("pycuda",)), pytest.raises(UnavailableError) as raised:
        open_plan(path)
    assert "JetPack" in str(raised.value.hint)


@pytest.mark.parametrize("count", range(0, 400, 37))
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    with stand_in("8.5.2", "pycuda", monkeypatch):
        path = built(tmp_path)
        path.write_bytes(path.read_bytes()[:count])
        with pytest.raises(IntegrityError):
            open_plan(path)


def test_errors_are_all_ours(machine: FakeMachine, tmp_path: Path) -> None:
    with pytest.raises(EdgekitError):
        open_plan(tmp_path)


def test_a_run_whose_memory_was_not_bound_again_would_be_noticed(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test above would fail without the second binding: the stand-in forgets addresses with the profile."""
    from edgekit.engines.tensorrt.session import PlanSession

    path = built(tmp_path)
    of_two_profiles(path)
    with open_plan(path) as runner:
        runner.run(images(1), own_classes(1))
        monkeypatch.setattr(PlanSession, "_bind", lambda *_: None)
        with pytest.raises(UnavailableError, match="failed while running"):
            runner.run(images(6), own_classes(6))
