"""A fake `pycuda.driver` over a fake machine: the names that edgekit may use, and no other.

Names, exception family and messages are pycuda's (2026.1): `RuntimeError` and `MemoryError` derive from pycuda's own
`Error` and from no built-in exception. There is no `autoinit` and no graph capture, which pycuda lacks too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
from fake_cuda.errors import CudaFault
from fake_cuda.machine import FakeMachine
from fake_cuda.streams import LEGACY_STREAM
from fake_cuda.streams import Stream as Queue

__all__ = [
    "Context",
    "Device",
    "DeviceAllocation",
    "Error",
    "Event",
    "LaunchError",
    "LogicError",
    "MemoryError",
    "PagelockedHostAllocation",
    "RuntimeError",
    "Stream",
    "bound",
    "device_attribute",
    "event_flags",
    "host_alloc_flags",
    "in_context",
    "told",
]

Answer = TypeVar("Answer")


class Error(Exception):
    """pycuda._driver.Error."""


class LogicError(Error):
    """pycuda._driver.LogicError."""


class LaunchError(Error):
    """pycuda._driver.LaunchError."""


class RuntimeError(Error):  # noqa: A001 - pycuda's name, which is the trap
    """pycuda._driver.RuntimeError."""


class MemoryError(Error):  # noqa: A001 - pycuda's name, which is the trap
    """pycuda._driver.MemoryError."""


# As pycuda's sources sort the codes; all others are a LogicError, a driver that is too old among them.
KINDS: dict[str, type[Error]] = {
    "cudaErrorLaunchFailure": LaunchError,
    "cudaErrorMemoryAllocation": MemoryError,
    "cudaErrorNoDevice": RuntimeError,
    "cudaErrorNotReady": RuntimeError,
}


def told(call: str, work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except CudaFault as fault:
        raise KINDS.get(fault.name, LogicError)(f"{call} failed: {fault.message}") from fault


def in_context(machine: FakeMachine, call: str, work: Callable[[], Answer]) -> Answer:
    def checked() -> Answer:
        machine.require_context()
        return work()

    return told(call, checked)


class DeviceAllocation:
    """Device memory that is freed with its last reference, or by `free`."""

    def __init__(self, machine: FakeMachine, size: int) -> None:
        self._machine = machine
        self._address: int | None = None
        self._address = in_context(machine, "cuMemAlloc", lambda: machine.memory.allocate(size, owner="pycuda").address)

    def __int__(self) -> int:
        if self._address is None:
            raise LogicError("DeviceAllocation used after free")
        return self._address

    __index__ = __int__

    def free(self) -> None:
        """Give it back; a second time is an error."""
        address = int(self)

        def work() -> None:
            self._machine.synchronise_all()
            self._machine.memory.release(address, "device")

        in_context(self._machine, "cuMemFree", work)
        self._address = None

    def __del__(self) -> None:
        if self._address is None:
            return
        if not self._machine.stack:
            self._machine.misuses.append("pycuda memory is collected while no context is current on the thread")
        elif self._machine.memory.find(self._address, 1) is not None:
            self._machine.memory.release(self._address, "device")
        self._address = None


class PagelockedHostAllocation:
    """Pinned memory behind an array, which holds it as its `base`."""

    def __init__(self, machine: FakeMachine, shape: tuple[int, ...], dtype: Any, mapped: bool) -> None:
        self._machine, self._live = machine, False
        kind = np.dtype(dtype)
        size = max(int(np.prod(shape)) * kind.itemsize, 1)
        self._memory = in_context(
            machine, "cuMemHostAlloc", lambda: machine.memory.allocate(size, "pinned", mapped, "pycuda")
        )
        self._live = True
        self.__array_interface__ = {
            "shape": shape,
            "typestr": kind.str,
            "data": (self._memory.address, False),
            "version": 3,
        }

    def free(self) -> None:
        """Give it back."""
        if not self._live:
            raise LogicError("cuMemFreeHost failed: freed before")
        in_context(self._machine, "cuMemFreeHost", self._release)

    def _release(self) -> None:
        self._machine.synchronise_all()
        self._machine.memory.release(self._memory.address, "pinned")
        self._live = False

    def get_device_pointer(self) -> int:
        """The device's address of mapped memory."""
        if not self._memory.mapped:
            raise LogicError("cuMemHostGetDevicePointer failed: the memory is not mapped")
        return self._memory.address

    def __del__(self) -> None:
        if self._live and self._machine.memory.find(self._memory.address, 1) is not None:
            self._machine.memory.release(self._memory.address, "pinned")


class Stream:
    """pycuda.driver.Stream."""

    _machine: ClassVar[FakeMachine]

    def __init__(self, flags: int = 0) -> None:
        # CU_STREAM_NON_BLOCKING is 1.
        self._queue: Queue | None = None
        self._queue = in_context(self._machine, "cuStreamCreate", lambda: self._machine.create_stream(flags != 1))

    @property
    def handle(self) -> int:
        """The number that TensorRT takes."""
        assert self._queue is not None
        return self._queue.handle

    def _own(self) -> Queue:
        return self._machine.stream(self.handle)

    def synchronize(self) -> None:
        """Wait."""
        in_context(self._machine, "cuStreamSynchronize", lambda: self._machine.synchronise(self._own()))

    def is_done(self) -> bool:
        """Ask without waiting."""
        return in_context(self._machine, "cuStreamQuery", lambda: self._machine.is_done(self._own()))

    def wait_for_event(self, event: Event) -> None:
        """Let later work wait for a mark."""
        in_context(self._machine, "cuStreamWaitEvent", lambda: self._machine.wait_for(self._own(), event._own()))

    def __del__(self) -> None:
        if self._queue is None:
            return
        try:
            self._machine.destroy_stream(self._queue.handle)
        except CudaFault as fault:
            # After the context went or was lost there is nothing to destroy; pycuda prints a warning here.
            if self._machine.lost is None and self._machine.context_alive:
                self._machine.misuses.append(f"a stream is collected: {fault}")


class Event:
    """pycuda.driver.Event."""

    _machine: ClassVar[FakeMachine]

    def __init__(self, flags: int = 0) -> None:
        # event_flags.DISABLE_TIMING is 2.
        self._mark: Any = None
        self._mark = in_context(self._machine, "cuEventCreate", lambda: self._machine.create_event(not flags & 2))

    def _own(self) -> Any:
        return self._machine.event(self._mark.handle)

    def record(self, stream: Stream | None = None) -> Event:
        """Mark the end of what is queued now."""
        handle = LEGACY_STREAM if stream is None else stream.handle
        in_context(
            self._machine,
            "cuEventRecord",
            lambda: self._machine.record(self._own(), self._machine.stream(handle)),
        )
        return self

    def synchronize(self) -> Event:
        """Wait for the mark."""
        in_context(self._machine, "cuEventSynchronize", lambda: self._machine.synchronise_event(self._own()))
        return self

    def query(self) -> bool:
        """Ask whether the mark is passed."""
        return in_context(self._machine, "cuEventQuery", lambda: self._machine.event_is_done(self._own()))

    def time_since(self, event: Event) -> float:
        """Milliseconds from the other mark to this one."""
        return in_context(self._machine, "cuEventElapsedTime", lambda: self._machine.elapsed(event._own(), self._own()))

    def time_till(self, event: Event) -> float:
        """Milliseconds from this mark to the other."""
        return event.time_since(self)

    def __del__(self) -> None:
        if self._mark is None:
            return
        try:
            self._machine.destroy_event(self._mark.handle)
        except CudaFault:
            if self._machine.lost is None and self._machine.context_alive:
                self._machine.misuses.append("an event is collected that no longer exists")


class Context:
    """The primary context, as `Device.retain_primary_context` hands it out."""

    _machine: ClassVar[FakeMachine]

    def __init__(self) -> None:
        # pycuda makes contexts by methods of a device only.
        self._held = False

    def push(self) -> None:
        """Make it current on this thread."""
        if not self._held:
            raise LogicError("cannot push a detached context")
        self._machine.stack.append(self)

    @classmethod
    def pop(cls) -> None:
        """Take the thread's current context off."""
        if not cls._machine.stack:
            raise LogicError("cannot pop non-current context")
        cls._machine.stack.pop()

    def detach(self) -> None:
        """Release the primary context."""
        if not self._held:
            raise LogicError("the context is detached already")
        if self in self._machine.stack:
            self._machine.misuses.append("a context is detached while it is current")
            self._machine.stack.remove(self)
        told("cuDevicePrimaryCtxRelease", self._machine.release_primary)
        self._held = False

    @classmethod
    def synchronize(cls) -> None:
        """Wait for all queues."""
        in_context(cls._machine, "cuCtxSynchronize", cls._machine.synchronise_all)

    @classmethod
    def get_device(cls) -> Any:
        """The device of the current context."""
        return in_context(cls._machine, "cuCtxGetDevice", lambda: bound(Device, cls._machine)(0))

    def __del__(self) -> None:
        if self._held:
            self._machine.misuses.append("a retained context is collected without being detached")
            if self in self._machine.stack:
                self._machine.stack.remove(self)
            self._machine.release_primary()


class device_attribute:  # noqa: N801 - pycuda's name
    """pycuda.driver.device_attribute: the members that are answered, with the driver's numbers."""

    MULTIPROCESSOR_COUNT = 16
    INTEGRATED = 18
    CAN_MAP_HOST_MEMORY = 19
    UNIFIED_ADDRESSING = 41
    COMPUTE_CAPABILITY_MAJOR = 75
    COMPUTE_CAPABILITY_MINOR = 76


class host_alloc_flags:  # noqa: N801 - pycuda's name
    """pycuda.driver.host_alloc_flags."""

    PORTABLE = 1
    DEVICEMAP = 2
    WRITECOMBINED = 4


class event_flags:  # noqa: N801 - pycuda's name
    """pycuda.driver.event_flags."""

    DEFAULT = 0
    BLOCKING_SYNC = 1
    DISABLE_TIMING = 2
    INTERPROCESS = 4


class Device:
    """pycuda.driver.Device."""

    _machine: ClassVar[FakeMachine]

    def __init__(self, number: int) -> None:
        if number != 0:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

    @classmethod
    def count(cls) -> int:
        """How many there are."""
        told("cuDeviceGetCount", cls._machine.start_driver)
        return 1

    def name(self) -> str:
        """As the driver names it."""
        return self._machine.device.name

    def compute_capability(self) -> tuple[int, int]:
        """(major, minor)."""
        return self._machine.device.capability

    def total_memory(self) -> int:
        """Bytes."""
        return self._machine.device.memory

    def get_attribute(self, attr: int) -> int:
        """One number."""
        device = self._machine.device
        answers = {
            device_attribute.MULTIPROCESSOR_COUNT: device.multiprocessors,
            device_attribute.INTEGRATED: int(device.integrated),
            device_attribute.CAN_MAP_HOST_MEMORY: 1,
            device_attribute.UNIFIED_ADDRESSING: 1,
            device_attribute.COMPUTE_CAPABILITY_MAJOR: device.capability[0],
            device_attribute.COMPUTE_CAPABILITY_MINOR: device.capability[1],
        }
        return answers[attr]

    def retain_primary_context(self) -> Context:
        """The context that the runtime library uses too."""
        told("cuDevicePrimaryCtxRetain", self._machine.start_driver)
        told("cuDevicePrimaryCtxRetain", self._machine.check_lost)
        context: Context = bound(Context, self._machine)()
        self._machine.primary_users += 1
        context._held = True
        return context


def bound(kind: type[Any], machine: FakeMachine) -> type[Any]:
    return type(kind.__name__, (kind,), {"_machine": machine, "__slots__": ()})
