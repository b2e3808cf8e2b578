"""What the fake runtime, engine and context take and refuse, and what they leave behind."""

from __future__ import annotations

import gc
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fake_cuda.devices import AGX_ORIN_64, ORIN_NANO_8, RTX_3090, XAVIER_NX
from fake_cuda.errors import CudaFault
from fake_cuda.machine import FakeMachine
from fake_tensorrt import VERSIONS, make_tensorrt
from fake_tensorrt.driving import Opened, build, listening_logger, open_plan
from fake_tensorrt.graphs import float_graph, quantised_graph
from fake_tensorrt.plan import of_another_device, of_another_version

FEEDS: dict[str, npt.NDArray[Any]] = {
    "image": np.linspace(-1, 1, 2 * 3 * 36, dtype=np.float32).reshape(2, 3, 6, 6),
    "class_index": np.array([1, -1], np.int32),
}


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture(params=VERSIONS)
def trt(request: pytest.FixtureRequest, machine: FakeMachine) -> Any:
    return make_tensorrt(request.param, machine)


@pytest.fixture
def plan(trt: Any) -> bytes:
    return bytes(build(trt, quantised_graph()).plan)


@pytest.fixture
def opened(trt: Any, machine: FakeMachine, plan: bytes) -> Opened:
    return open_plan(trt, machine, plan)


def version_of(trt: Any) -> str:
    return next(version for version in VERSIONS if trt.__version__.startswith(version))


# Plans


@pytest.mark.parametrize("damage", ["empty", "foreign", "cut", "flipped"])
def test_a_corrupt_plan_is_no_engine(trt: Any, machine: FakeMachine, plan: bytes, damage: str) -> None:
    flipped = bytearray(plan)
    flipped[-9] ^= 1
    bad = {"empty": b"", "foreign": b"ptrt" + plan, "cut": plan[:-5], "flipped": bytes(flipped)}[damage]
    opened = open_plan(trt, machine, bad)
    assert opened.engine is None
    assert "Serialization assertion" in opened.logger.text()
    assert machine.leaks() == {}


def test_a_plan_of_another_version_is_no_engine(trt: Any, machine: FakeMachine, plan: bytes) -> None:
    opened = open_plan(trt, machine, of_another_version(plan, "9.1.0"))
    assert opened.engine is None
    assert f"expecting library version {trt.__version__} got 9.1.0" in opened.logger.text()


def test_a_plan_of_another_device_is_no_engine(trt: Any, machine: FakeMachine, plan: bytes) -> None:
    for bad in (of_another_device(plan, (7, 2)), bytes(built_on(trt, XAVIER_NX))):
        opened = open_plan(trt, machine, bad)
        assert opened.engine is None
        assert "expecting compute 8.7 got compute 7.2" in opened.logger.text()


def built_on(trt: Any, device: Any) -> Any:
    return build(make_tensorrt(version_of(trt), FakeMachine(device)), float_graph()).plan


def test_a_plan_of_another_model_with_this_capability_is_a_warning(trt: Any, machine: FakeMachine, plan: bytes) -> None:
    opened = open_plan(trt, machine, of_another_device(plan, AGX_ORIN_64.capability, "Orin of another size"))
    assert opened.engine is not None
    assert [severity for severity, _ in opened.logger.lines] == ["WARNING"]
    opened.close()


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_hardware_compatible_plans_run_from_ampere_on(version: str) -> None:
    def configure(trt: Any, config: Any) -> None:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS

    plan = build(make_tensorrt(version, FakeMachine(RTX_3090)), float_graph(), configure).plan
    for device, runs in ((ORIN_NANO_8, True), (XAVIER_NX, False)):
        machine = FakeMachine(device)
        opened = open_plan(make_tensorrt(version, machine), machine, plan)
        assert (opened.engine is not None) is runs
        opened.close()
    assert build(make_tensorrt(version, FakeMachine(XAVIER_NX)), float_graph(), configure).plan is None


def test_version_compatible_plans_need_permission_to_run_their_code(machine: FakeMachine) -> None:
    def configure(trt: Any, config: Any) -> None:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)

    plan = build(make_tensorrt("10.3.0", machine), float_graph(), configure).plan
    newer = make_tensorrt("10.13.3.9", machine)
    logger = listening_logger(newer)
    runtime = newer.Runtime(logger)
    assert runtime.deserialize_cuda_engine(plan) is None
    assert "engine_host_code_allowed" in logger.text()
    runtime.engine_host_code_allowed = True
    assert runtime.deserialize_cuda_engine(plan) is not None
    assert open_plan(make_tensorrt("8.6.1", machine), machine, plan).engine is None


def test_a_plan_is_a_buffer(trt: Any) -> None:
    with pytest.raises(TypeError, match="incompatible"):
        trt.Runtime(trt.Logger()).deserialize_cuda_engine("plan")


def test_an_engine_gives_its_plan_back(opened: Opened, plan: bytes) -> None:
    assert bytes(opened.engine.serialize()) == plan


def test_the_engine_tells_of_its_tensors(trt: Any, opened: Opened) -> None:
    engine = opened.engine
    names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
    assert names == ["image", "class_index", "logits", "chosen"]
    assert [engine.get_tensor_mode(name).name for name in names] == ["INPUT"] * 2 + ["OUTPUT"] * 2
    assert tuple(engine.get_tensor_shape("logits")) == (-1, 4)
    shapes = engine.get_tensor_profile_shape("image", 0)
    assert [tuple(each) for each in shapes] == [(size, 3, 6, 6) for size in (1, 2, 4)]
    assert engine.get_tensor_mode("nothing") == trt.TensorIOMode.NONE
    assert engine.get_tensor_profile_shape("image", 1) == []
    assert opened.context.engine is engine
    assert opened.context.get_max_output_size("logits") == 4 * 4 * 4
    with pytest.raises(TypeError):
        engine.get_tensor_shape(0)


# Running


def test_an_execution_runs_when_it_is_waited_for(opened: Opened) -> None:
    opened.bind(FEEDS)
    machine = opened.machine
    stream = machine.create_stream()
    assert opened.context.execute_async_v3(stream.handle)
    assert np.isnan(opened.read("logits")).all()
    machine.synchronise(stream)
    first = opened.read("logits")
    assert np.isfinite(first).all()
    assert opened.context.execute_async_v3(stream_handle=stream.handle)
    machine.synchronise(stream)
    np.testing.assert_array_equal(opened.read("logits"), first)


def test_an_address_that_was_never_set_is_refused(opened: Opened) -> None:
    for name in opened.names("INPUT"):
        assert opened.context.set_input_shape(name, FEEDS[name].shape)
    assert not opened.context.execute_async_v3(opened.machine.create_stream().handle)
    assert "neither address nor allocator is set for image, class_index, logits, chosen" in opened.logger.text()


def test_a_shape_that_was_never_set_is_refused(opened: Opened) -> None:
    assert opened.context.infer_shapes() == ["image", "class_index"]
    assert tuple(opened.context.get_tensor_shape("logits")) == (-1, 4)
    assert not opened.context.all_binding_shapes_specified
    assert not opened.context.execute_async_v3(opened.machine.create_stream().handle)
    assert "without a shape: image, class_index" in opened.logger.text()


@pytest.mark.parametrize("shape", [(5, 3, 6, 6), (0, 3, 6, 6), (2, 3, 6), (2, 3, 7, 6)])
def test_a_shape_outside_the_profile_is_refused(opened: Opened, shape: tuple[int, ...]) -> None:
    assert not opened.context.set_input_shape("image", shape)
    assert "does not satisfy any optimization profiles" in opened.logger.text()


def test_names_that_do_not_exist_are_refused(opened: Opened) -> None:
    assert not opened.context.set_input_shape("logits", (2, 4))
    assert not opened.context.set_tensor_address("nothing", 256)
    assert not opened.context.set_optimization_profile_async(3, 0)
    assert len(opened.logger.lines) == 3


def test_misaligned_addresses_are_refused(opened: Opened) -> None:
    assert not opened.context.set_tensor_address("image", (1 << 52) + 4)
    assert "not aligned" in opened.logger.text()
    with pytest.raises(TypeError):
        opened.context.set_tensor_address("image", 1.0)


@pytest.mark.parametrize("name", ["image", "logits"])
@pytest.mark.parametrize("fault", ["freed", "short", "host"])
def test_wrong_memory_shows_at_synchronisation_and_takes_the_context(opened: Opened, name: str, fault: str) -> None:
    opened.bind(FEEDS)
    machine = opened.machine
    stream = machine.create_stream()
    if fault == "freed":
        machine.memory.release(opened.buffers[name])
    elif fault == "short":
        assert opened.context.set_tensor_address(name, machine.memory.allocate(16).address)
    else:
        assert opened.context.set_tensor_address(name, machine.memory.allocate(1 << 12, "pinned").address)
    assert opened.context.execute_async_v3(stream.handle)
    with pytest.raises(CudaFault, match=f"cudaErrorIllegalAddress: tensor {name}"):
        machine.synchronise(stream)
    assert not opened.context.execute_async_v3(stream.handle)
    assert "Cuda Runtime (cudaErrorIllegalAddress" in opened.logger.text()
    assert opened.engine.create_execution_context() is None
    assert opened.runtime.deserialize_cuda_engine(opened.engine.serialize()) is None


def test_mapped_host_memory_is_as_good_as_the_devices(opened: Opened) -> None:
    opened.bind(FEEDS)
    mapped = opened.machine.memory.allocate(2 * 4 * 4, "pinned", mapped=True)
    assert opened.context.set_tensor_address("logits", mapped.address)
    stream = opened.machine.create_stream()
    assert opened.context.execute_async_v3(stream.handle)
    opened.machine.synchronise(stream)
    assert np.isfinite(mapped.storage.view(np.float32)).all()


def test_the_default_stream_is_a_warning_and_an_unknown_one_an_error(opened: Opened) -> None:
    opened.bind(FEEDS)
    assert opened.context.execute_async_v3(0)
    assert "default stream" in opened.logger.text()
    opened.machine.synchronise_all()
    with pytest.raises(ValueError, match="no stream"):
        opened.context.execute_async_v3(77)
    assert opened.machine.misuses


def test_a_graph_replays_into_the_same_memory(opened: Opened) -> None:
    opened.bind(FEEDS)
    machine = opened.machine
    stream = machine.create_stream()
    assert opened.context.execute_async_v3(stream.handle)
    machine.synchronise(stream)
    first = opened.read("logits")
    machine.begin_capture(stream)
    assert opened.context.execute_async_v3(stream.handle)
    graph = machine.end_capture(stream)
    image = machine.memory.device_view(opened.buffers["image"], FEEDS["image"].nbytes)
    image[:] = (-FEEDS["image"]).reshape(-1).view(np.uint8)
    for work in graph.work:
        machine.enqueue(stream, work)
    machine.synchronise(stream)
    assert not np.allclose(opened.read("logits"), first)


def test_a_capture_before_the_first_execution_is_refused(opened: Opened) -> None:
    opened.bind(FEEDS)
    stream = opened.machine.create_stream()
    opened.machine.begin_capture(stream)
    assert not opened.context.execute_async_v3(stream.handle)
    with pytest.raises(CudaFault, match="cudaErrorStreamCaptureInvalidated"):
        opened.machine.end_capture(stream)


def test_a_profiler_is_told_of_every_layer(trt: Any, opened: Opened) -> None:
    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times[layer_name] = ms

    opened.context.profiler = Profiler()
    opened.run(FEEDS)
    assert len(opened.context.profiler.times) == opened.engine.num_layers
    opened.context.profiler.times.clear()
    opened.context.enqueue_emits_profile = False
    opened.run(FEEDS)
    assert opened.context.profiler.times == {}
    assert opened.context.report_to_profiler()
    assert "conv + relu" in opened.context.profiler.times
    assert not opened.context.report_to_profiler()


# Faults


def test_an_enqueue_can_fail(opened: Opened) -> None:
    opened.bind(FEEDS)
    opened.machine.faults.enqueue_fails = "CASK ERROR"
    assert not opened.context.execute_async_v3(opened.machine.create_stream().handle)
    assert "CASK ERROR" in opened.logger.text()


def test_a_launch_can_fail_later_and_for_good(opened: Opened) -> None:
    opened.bind(FEEDS)
    opened.machine.faults.launch_fails = True
    stream = opened.machine.create_stream()
    assert opened.context.execute_async_v3(stream.handle)
    with pytest.raises(CudaFault, match="cudaErrorLaunchFailure"):
        opened.machine.synchronise(stream)
    opened.machine.faults.launch_fails = False
    with pytest.raises(CudaFault, match="cudaErrorLaunchFailure"):
        opened.machine.synchronise(stream)


def test_outputs_can_be_nan(opened: Opened) -> None:
    opened.machine.faults.nan_outputs = True
    answers = opened.run(FEEDS)
    assert np.isnan(answers["logits"]).all()
    np.testing.assert_array_equal(answers["chosen"], FEEDS["class_index"])


def test_a_hanging_execution_is_seen_by_asking(opened: Opened) -> None:
    opened.bind(FEEDS)
    opened.machine.faults.hang_execution = 0.05
    stream = opened.machine.create_stream()
    assert opened.context.execute_async_v3(stream.handle)
    assert not opened.machine.is_done(stream)
    before = time.monotonic()
    opened.machine.synchronise(stream)
    assert time.monotonic() - before > 0.01
    assert opened.machine.is_done(stream)


def test_reading_a_plan_can_hang(trt: Any, machine: FakeMachine, plan: bytes) -> None:
    machine.faults.hang_deserialise = 0.03
    before = time.monotonic()
    open_plan(trt, machine, plan).close()
    assert time.monotonic() - before >= 0.03


@pytest.mark.parametrize("what", ["engine", "context"])
def test_memory_can_run_out(trt: Any, machine: FakeMachine, plan: bytes, what: str) -> None:
    machine.memory.reserved = machine.device.memory - (1 << 19 if what == "context" else 0)
    opened = open_plan(trt, machine, plan)
    assert (opened.engine is None, opened.context) == (what == "engine", None)
    assert "OutOfMemory" in opened.logger.text()


# Order of destruction


def test_nothing_is_left_when_all_is_closed_in_order(opened: Opened) -> None:
    opened.run(FEEDS)
    assert opened.machine.leaks() != {}
    opened.close()
    assert (opened.machine.leaks(), opened.machine.misuses) == ({}, [])


@pytest.mark.parametrize(
    ("first", "told"),
    [("runtime", "a runtime was destroyed before its engine"), ("engine", "engine was destroyed before its execution")],
)
def test_the_wrong_order_is_told(opened: Opened, first: str, told: str) -> None:
    setattr(opened, first, None)
    gc.collect()
    assert len(opened.machine.misuses) == 1
    assert told in opened.machine.misuses[0]


def test_work_must_not_outlive_its_context(opened: Opened) -> None:
    opened.bind(FEEDS)
    assert opened.context.execute_async_v3(opened.machine.create_stream().handle)
    opened.context = None
    assert opened.machine.misuses == ["an execution context was destroyed while its work was queued"]


def test_a_captured_graph_needs_its_context(opened: Opened) -> None:
    opened.bind(FEEDS)
    machine, stream = opened.machine, opened.machine.create_stream()
    assert opened.context.execute_async_v3(stream.handle)
    machine.synchronise(stream)
    machine.begin_capture(stream)
    assert opened.context.execute_async_v3(stream.handle)
    graph = machine.end_capture(stream)
    opened.context = None
    machine.enqueue(stream, graph.work[0])
    with pytest.raises(CudaFault, match="was freed"):
        machine.synchronise(stream)


def test_tensorrt_has_to_go_before_the_cuda_context(trt: Any, plan: bytes, machine: FakeMachine) -> None:
    machine = FakeMachine()
    machine.primary_users += 1
    machine.stack.append(object())
    module = make_tensorrt(version_of(trt), machine)
    opened = open_plan(module, machine, plan)
    machine.stack.pop()
    machine.release_primary()
    assert len(machine.misuses) == 2
    opened.close()
    assert any("after its CUDA context" in each for each in machine.misuses)
