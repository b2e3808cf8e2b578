"""The fake machine: memory that is guarded, queues that wait to be waited for, contexts that are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_cuda.devices import DEVICES, ORIN_NANO_8
from fake_cuda.errors import CODES, STICKY, CudaFault
from fake_cuda.machine import FakeMachine
from fake_cuda.memory import FIRST_ADDRESS, AddressSpace
from fake_cuda.streams import LEGACY_STREAM, Stream, Work
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


def work(log: list[str], name: str, cost: float = 1.0, fault: str = "") -> Work:
    def run() -> None:
        if fault:
            raise CudaFault(fault, name)
        log.append(name)

    return Work(name, run, cost)


# Memory


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.booleans()), min_size=1, max_size=20), st.randoms())
def test_allocations_never_touch_and_come_back_whole(plan: list[tuple[int, bool]], random: Any) -> None:
    space = AddressSpace(total=sum(size for size, _ in plan))
    live: dict[int, int] = {}
    for size, keep in plan:
        address = space.allocate(size).address
        assert address % 256 == 0
        assert all(address + size <= other or other + length <= address for other, length in live.items())
        live[address] = size
        space.device_view(address, size)[:] = len(live) % 251
        if not keep:
            victim = random.choice(sorted(live))
            space.release(victim)
            del live[victim]
            with pytest.raises(CudaFault, match="was freed"):
                space.device_view(victim, 1)
    assert space.used == sum(live.values())
    assert space.free + space.used == space.total
    assert {each.address: each.size for each in space.live()} == live


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1000), st.integers(-10, 1010), st.integers(1, 1010))
def test_only_bytes_inside_an_allocation_can_be_seen(size: int, offset: int, length: int) -> None:
    space = AddressSpace(total=4096)
    address = space.allocate(size).address
    if offset >= 0 and offset + length <= size:
        assert space.device_view(address + offset, length).size == length
    else:
        with pytest.raises(CudaFault, match="cudaErrorIllegalAddress"):
            space.device_view(address + offset, length)


def test_new_memory_holds_no_number() -> None:
    view = AddressSpace(total=64).allocate(64).storage
    assert np.isnan(view.view(np.float32)).all()
    assert np.isnan(view.view(np.float16)).all()


def test_more_than_there_is_cannot_be_had() -> None:
    space = AddressSpace(total=100, reserved=30)
    space.allocate(50)
    with pytest.raises(CudaFault, match="cudaErrorMemoryAllocation: out of memory: 21 bytes wanted, 20 free"):
        space.allocate(21)
    assert space.allocate(1 << 10, "pinned").address < FIRST_ADDRESS
    with pytest.raises(CudaFault, match="cudaErrorInvalidValue"):
        space.allocate(0)


@pytest.mark.parametrize(
    ("offset", "kind", "times", "told"),
    [(0, "device", 2, "was freed before"), (8, "device", 1, "is not the start"), (0, "pinned", 1, "is not the start")],
)
def test_only_what_was_allocated_can_be_freed_once(offset: int, kind: str, times: int, told: str) -> None:
    space = AddressSpace(total=100)
    address = space.allocate(50).address + offset
    for _ in range(times - 1):
        space.release(address, kind)
    with pytest.raises(CudaFault, match=told):
        space.release(address, kind)


def test_host_memory_is_the_devices_only_where_it_is_mapped() -> None:
    space = AddressSpace(total=100)
    plain, mapped = space.allocate(64, "pinned"), space.allocate(64, "pinned", mapped=True)
    assert plain.address % 4096 == mapped.address % 4096 == 0
    space.device_view(mapped.address, 64)[:] = 7
    assert (mapped.storage == 7).all()
    with pytest.raises(CudaFault, match="not mapped"):
        space.device_view(plain.address, 64)


# Queues


def test_queued_work_waits_for_somebody(machine: FakeMachine) -> None:
    log: list[str] = []
    stream = machine.create_stream()
    machine.enqueue(stream, work(log, "a"))
    machine.enqueue(stream, work(log, "b"))
    assert log == []
    machine.synchronise(stream)
    assert log == ["a", "b"]
    assert machine.is_done(stream)


def test_time_is_counted_per_queue(machine: FakeMachine) -> None:
    stream, other = machine.create_stream(), machine.create_stream()
    start, end = machine.create_event(), machine.create_event()
    machine.record(start, stream)
    machine.enqueue(stream, work([], "a", 2.5))
    machine.enqueue(other, work([], "b", 40.0))
    machine.record(end, stream)
    with pytest.raises(CudaFault, match="cudaErrorNotReady"):
        machine.elapsed(start, end)
    machine.synchronise_event(end)
    assert machine.elapsed(start, end) == 2.5
    assert machine.event_is_done(end)


def test_a_queue_can_wait_for_a_mark_of_another(machine: FakeMachine) -> None:
    log: list[str] = []
    first, second = machine.create_stream(), machine.create_stream()
    mark = machine.create_event()
    machine.enqueue(first, work(log, "first", 5.0))
    machine.record(mark, first)
    machine.wait_for(second, mark)
    machine.enqueue(second, work(log, "second"))
    machine.synchronise(second)
    assert log == ["first", "second"]
    assert second.clock_ms == 6.0


def test_events_that_were_not_recorded_or_take_no_time_have_none(machine: FakeMachine) -> None:
    stream = machine.create_stream()
    timed, untimed, idle = machine.create_event(), machine.create_event(timing=False), machine.create_event()
    for each in (timed, untimed):
        machine.record(each, stream)
    machine.synchronise(stream)
    for other in (untimed, idle):
        with pytest.raises(CudaFault, match="cudaErrorInvalidResourceHandle"):
            machine.elapsed(timed, other)


@pytest.mark.parametrize("fault", sorted(set(CODES) - {"cudaSuccess"}))
def test_a_sticky_fault_takes_the_context_and_another_does_not(machine: FakeMachine, fault: str) -> None:
    log: list[str] = []
    stream = machine.create_stream()
    machine.enqueue(stream, work(log, "bad", fault=fault))
    machine.enqueue(stream, work(log, "next"))
    with pytest.raises(CudaFault, match=fault):
        machine.synchronise(stream)
    if fault in STICKY:
        with pytest.raises(CudaFault, match=fault):
            machine.is_done(machine.create_stream())
        assert log == []
    else:
        machine.synchronise(stream)
        assert log == ["next"]


# Copies


def test_copies_keep_the_order_of_their_queue(machine: FakeMachine) -> None:
    host, device = machine.memory.allocate(16, "pinned"), machine.memory.allocate(16)
    stream = machine.create_stream(blocking=False)
    host.storage[:] = 1
    machine.copy(device.address, host.address, 16, stream, "copy")
    host.storage[:] = 2
    machine.synchronise(stream)
    assert (device.storage == 2).all(), "pinned memory is read when the copy runs, not when it is queued"


def test_a_copy_from_ordinary_memory_takes_it_at_once(machine: FakeMachine) -> None:
    device, stream = machine.memory.allocate(16), machine.create_stream()
    data = np.ones(16, np.uint8)
    machine.copy(device.address, int(data.ctypes.data), 16, stream, "copy")
    data[:] = 2
    machine.synchronise(stream)
    assert (device.storage == 1).all()
    back = np.zeros(16, np.uint8)
    machine.copy(int(back.ctypes.data), device.address, 16, stream, "copy")
    assert (back == 1).all()
    assert machine.memory.pageable_copies > 0


def test_a_copy_without_a_queue_waits_for_blocking_queues_only(machine: FakeMachine) -> None:
    source, target = machine.memory.allocate(4), machine.memory.allocate(4)
    source.storage[:] = 9
    for blocking, expected in ((False, 255), (True, 9)):
        middle, stream = machine.memory.allocate(4), machine.create_stream(blocking)
        machine.copy(middle.address, source.address, 4, stream, "queued")
        machine.copy(target.address, middle.address, 4, None, "now")
        assert (target.storage == expected).all()


@pytest.mark.parametrize("size", [17, 1 << 20])
def test_copies_over_an_end_are_refused(machine: FakeMachine, size: int) -> None:
    host, device = machine.memory.allocate(16, "pinned"), machine.memory.allocate(16)
    with pytest.raises(CudaFault, match="run over the end"):
        machine.copy(device.address, host.address, size, None, "copy")


def test_memory_that_is_freed_before_its_copy_runs_is_an_illegal_access(machine: FakeMachine) -> None:
    host, device = machine.memory.allocate(16, "pinned"), machine.memory.allocate(16)
    stream = machine.create_stream()
    machine.copy(device.address, host.address, 16, stream, "copy")
    machine.memory.release(device.address)
    with pytest.raises(CudaFault, match="cudaErrorIllegalAddress"):
        machine.synchronise(stream)


# Captures


def test_captured_work_runs_only_when_the_graph_does(machine: FakeMachine) -> None:
    log: list[str] = []
    stream = machine.create_stream()
    machine.begin_capture(stream)
    machine.enqueue(stream, work(log, "a"))
    graph = machine.end_capture(stream)
    machine.synchronise(stream)
    assert log == []
    assert [each.what for each in graph.work] == ["a"]
    assert machine.leaks() == {"streams": 1, "graphs": 1}


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda machine, stream: machine.synchronise(stream),
        lambda machine, stream: machine.is_done(stream),
        lambda machine, stream: machine.enqueue(stream, Work("a wait of the host", lambda: None, capturable=False)),
    ],
)
def test_what_is_forbidden_breaks_a_capture(
    machine: FakeMachine, forbidden: Callable[[FakeMachine, Stream], None]
) -> None:
    stream = machine.create_stream()
    machine.begin_capture(stream)
    with pytest.raises(CudaFault, match="cudaErrorStreamCaptureUnsupported"):
        forbidden(machine, stream)
    with pytest.raises(CudaFault, match="cudaErrorStreamCaptureInvalidated"):
        machine.end_capture(stream)
    machine.synchronise(stream)


def test_captures_begin_and_end_in_pairs(machine: FakeMachine) -> None:
    stream = machine.create_stream()
    with pytest.raises(CudaFault, match="cudaErrorIllegalState"):
        machine.end_capture(stream)
    with pytest.raises(CudaFault, match="default stream"):
        machine.begin_capture(machine.stream(LEGACY_STREAM))
    machine.begin_capture(stream)
    with pytest.raises(CudaFault, match="second capture"):
        machine.begin_capture(stream)


# Contexts and accounts


def test_the_last_user_of_the_context_takes_everything_along(machine: FakeMachine) -> None:
    machine.primary_users = 2
    machine.memory.allocate(10, owner="somebody")
    machine.create_stream()
    machine.release_primary()
    assert machine.leaks() == {"device": 1, "streams": 1, "primary contexts": 1}
    machine.release_primary()
    assert machine.leaks() == {}
    assert machine.misuses == ["the context goes with 10 bytes of device memory (somebody)"]
    with pytest.raises(CudaFault, match="more often than retained"):
        machine.release_primary()


def test_handles_that_do_not_exist_are_refused(machine: FakeMachine) -> None:
    for look in (machine.stream, machine.event, machine.destroy_stream, machine.destroy_event):
        with pytest.raises(CudaFault, match="cudaErrorInvalidResourceHandle"):
            look(12345)
    with pytest.raises(CudaFault, match="default stream cannot be destroyed"):
        machine.destroy_stream(LEGACY_STREAM)


def test_devices_differ() -> None:
    assert len({(each.name, each.capability, each.memory) for each in DEVICES.values()}) == len(DEVICES)
    assert FakeMachine(ORIN_NANO_8).memory.total == 8 << 30
