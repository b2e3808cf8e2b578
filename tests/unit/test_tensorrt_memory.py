"""Device memory by both CUDA packages, over one stand-in for the driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from fake_cuda.devices import AGX_ORIN_64, RTX_3090
from fake_cuda.faults import Faults
from fake_cuda.machine import FakeMachine
from fake_tensorrt.install import MISSING_LIBRARIES, installed
from tensorrt_stand_ins import INTERFACES

from edgekit.engines.tensorrt.cuda_errors import cuda_error
from edgekit.engines.tensorrt.memory import MEMORIES, DeviceFacts, DeviceMemory, open_memory
from edgekit.engines.tensorrt.memory_cuda_python import CudaPythonBackend
from edgekit.errors import BadInputError, UnavailableError

ALL_INTERFACES = (*INTERFACES, "cuda-python-12.9")


@pytest.fixture(params=ALL_INTERFACES)
def machine(request: pytest.FixtureRequest) -> Iterator[FakeMachine]:
    with installed(None, (request.param,)) as there:
        yield there.machine
        assert not there.machine.leaks()
        assert not there.machine.misuses


@pytest.fixture
def memory(machine: FakeMachine) -> Iterator[DeviceMemory]:
    memory = open_memory()
    with memory.active():
        yield memory
    memory.close()


def test_the_device_is_described(machine: FakeMachine, memory: DeviceMemory) -> None:
    facts = memory.facts
    assert (facts.name, facts.capability, facts.sm) == ("Orin", (8, 7), "8.7")
    assert (facts.multiprocessors, facts.integrated, facts.driver) == (16, True, "12.6")
    assert facts.memory_bytes == AGX_ORIN_64.memory
    assert memory.name in MEMORIES
    assert 0 < memory.free_bytes() <= facts.memory_bytes


def test_what_goes_to_the_device_comes_back(memory: DeviceMemory) -> None:
    values = np.arange(1000, dtype=np.float32)
    there, back = (memory.pinned(values.shape, np.float32, mapped=False) for _ in range(2))
    block, stream = memory.allocate(values.nbytes), memory.stream()
    np.copyto(there.array, values)
    back.array[:] = 0
    memory.copy_in(block.address, there.array, stream)
    memory.copy_out(back.array, block.address, stream)
    assert not back.array.any(), "nothing runs before somebody waits for it"
    stream.synchronise()
    np.testing.assert_array_equal(back.array, values)
    assert there.mapped_address is None
    for each in (there, back, block):
        each.free()
        each.free()
    stream.close()
    stream.close()


def test_mapped_memory_is_the_devices_too(machine: FakeMachine, memory: DeviceMemory) -> None:
    host = memory.pinned((16,), np.int32, mapped=True)
    assert host.mapped_address is not None
    machine.memory.device_view(host.mapped_address, 64)[:] = 0
    assert not host.array.any()
    host.free()


def test_events_take_times(memory: DeviceMemory) -> None:
    stream, block = memory.stream(), memory.allocate(1 << 20)
    host = memory.pinned((1 << 20,), np.uint8, mapped=False)
    first, second = memory.event(), memory.event()
    first.record(stream)
    memory.copy_in(block.address, host.array, stream)
    second.record(stream)
    stream.synchronise()
    assert second.milliseconds_since(first) > 0
    for each in (first, second, stream):
        each.close()
    block.free()
    host.free()


def test_recorded_work_runs_when_it_is_launched_and_not_before(memory: DeviceMemory) -> None:
    stream, block = memory.stream(), memory.allocate(8)
    host, back = (memory.pinned((2,), np.int32, mapped=False) for _ in range(2))
    host.array[:], back.array[:] = 7, 0

    def work() -> None:
        memory.copy_in(block.address, host.array, stream)
        memory.copy_out(back.array, block.address, stream)

    if memory.captures_graphs:
        graph = memory.capture(stream, work)
        stream.synchronise()
        assert not back.array.any()
        graph.launch(stream)
        stream.synchronise()
        assert (back.array == 7).all()
        graph.close()
        graph.close()
    else:
        with pytest.raises(UnavailableError, match="graphs"):
            memory.capture(stream, work)
    for each in (block, host, back):
        each.free()
    stream.close()


def test_a_stream_works_on_after_a_recording_that_failed(memory: DeviceMemory) -> None:
    if not memory.captures_graphs:
        pytest.skip("this package records no graphs")
    stream, block = memory.stream(), memory.allocate(4)
    host = memory.pinned((1,), np.int32, mapped=False)

    def failing() -> None:
        memory.copy_in(block.address, host.array, stream)
        raise UnavailableError("not this one")

    with pytest.raises(UnavailableError, match="not this one"):
        memory.capture(stream, failing)
    memory.copy_in(block.address, host.array, stream)
    stream.synchronise()
    for each in (block, host):
        each.free()
    stream.close()


def test_too_little_memory_is_told_with_what_to_do(machine: FakeMachine, memory: DeviceMemory) -> None:
    with pytest.raises(UnavailableError) as raised:
        memory.allocate(machine.memory.free + 1)
    assert "close other programs" in str(raised.value.hint)


def test_a_closed_device_is_not_used(machine: FakeMachine) -> None:
    memory = open_memory()
    memory.close()
    memory.close()
    with pytest.raises(UnavailableError), memory.active():
        pass


def test_there_is_no_second_gpu(machine: FakeMachine) -> None:
    with pytest.raises(UnavailableError) as raised:
        open_memory(device=1)
    assert "below 1" in str(raised.value.expected)


@pytest.mark.parametrize("fault", ["cudaErrorInsufficientDriver", "cudaErrorNoDevice"])
def test_a_driver_that_does_not_start_is_told(machine: FakeMachine, fault: str) -> None:
    machine.faults = Faults(driver=fault)
    with pytest.raises(UnavailableError) as raised:
        open_memory()
    assert raised.value.hint
    assert raised.value.found


@pytest.mark.parametrize("interface", ["pycuda", "cuda-python-13"])
def test_a_package_is_chosen_by_name(interface: str) -> None:
    name = "pycuda" if interface == "pycuda" else "cuda-python"
    machine = FakeMachine(replace(RTX_3090))
    with installed(None, ("pycuda", "cuda-python-13"), machine):
        memory = open_memory(name)
        assert memory.name == name
        assert not memory.facts.integrated
        memory.close()
        with pytest.raises(BadInputError):
            open_memory("opencl")
    assert not machine.leaks()


def test_the_package_that_records_graphs_goes_first_and_the_other_where_it_does_not_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_new(self: object, device: int) -> DeviceFacts:
        raise UnavailableError("CUDA could not count the devices.", found="cudaErrorInsufficientDriver (35)")

    with installed(None, ("pycuda", "cuda-python-13")) as there:
        first = open_memory()
        first.close()
        monkeypatch.setattr(CudaPythonBackend, "describe", too_new)
        second = open_memory()
        second.close()
        assert (first.name, second.name) == ("cuda-python", "pycuda")
        there.machine.faults = Faults(driver="cudaErrorNoDevice")
        with pytest.raises(UnavailableError) as raised:
            open_memory()
    assert raised.value.found == "cudaErrorInsufficientDriver (35)"


def test_without_any_package_both_are_named() -> None:
    with installed(None, ()), pytest.raises(UnavailableError) as raised:
        open_memory()
    assert "pycuda" in str(raised.value.found)
    assert "cuda-python" in str(raised.value.found)
    assert "pip install" in str(raised.value.hint)


def test_a_driver_library_that_is_missing_is_told_as_that() -> None:
    with installed(None, (), broken=MISSING_LIBRARIES), pytest.raises(UnavailableError) as raised:
        open_memory("pycuda")
    assert "libcuda" in str(raised.value.found)
    assert "driver is not installed" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        ("cuMemAlloc failed: out of memory", "close other programs"),
        ("cudaErrorMemoryAllocation (2): out of memory", "close other programs"),
        ("cudaErrorInsufficientDriver (35): CUDA driver version is insufficient", "update the driver"),
        ("cuInit failed: no CUDA-capable device is detected", "--runtime nvidia"),
        ("Failed to dlopen libcuda.so.1", "JetPack"),
        ("cudaErrorLaunchFailure (719): unspecified launch failure", "start again"),
        ("No module named 'pycuda'", "pip install"),
        ("cuInit failed: the driver does not start", "check that the driver is loaded"),
        ("something new", "edgekit doctor"),
    ],
)
def test_every_cause_has_its_remedy(found: str, hint: str) -> None:
    error = cuda_error("do it", found)
    assert error.found == found
    assert hint in str(error.hint)
