"""The behaviour of `cuda.bindings.runtime` over a fake machine: one method a function, answers without the error code.

What is raised as a `CudaFault` becomes the code in front of the answer in `cuda_python`, as the real module has it.
"""

# ruff: noqa: N802 - the functions have cuda-python's names

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cuda.errors import CudaFault
from fake_cuda.machine import FakeMachine

__all__ = ["RuntimeLibrary"]

# What is documented of the flags; anything else is refused.
MAPPED = 2
NON_BLOCKING = 1
DISABLE_TIMING = 2


def address_of(pointer: Any) -> int:
    """The address that a pointer argument stands for: a number, or an object with memory of its own."""
    if not isinstance(pointer, np.ndarray) and hasattr(type(pointer), "__index__"):
        return int(pointer)
    array = np.frombuffer(memoryview(pointer).cast("B"), np.uint8)
    return int(array.ctypes.data)


class RuntimeLibrary:
    """The functions; `None` stands for an answer that is an error code alone."""

    # These answer without starting the driver or looking at a lost context.
    UNCHECKED = frozenset({"cudaGetErrorName", "cudaGetErrorString", "cudaRuntimeGetVersion", "cudaDriverGetVersion"})

    def __init__(self, machine: FakeMachine, version: int) -> None:
        self._machine, self._version = machine, version
        self._last: CudaFault | None = None

    def remember(self, name: str, fault: CudaFault) -> None:
        """Keep a fault for `cudaGetLastError`. That something is not ready yet is no error."""
        if fault.name != "cudaErrorNotReady" and name != "cudaGetLastError":
            self._last = fault

    # Device

    def cudaGetDeviceCount(self) -> int:
        return 1

    def cudaGetDevice(self) -> int:
        return 0

    def cudaSetDevice(self, device: int) -> None:
        if device != 0:
            raise CudaFault("cudaErrorInvalidDevice", f"invalid device ordinal {device}")

    def cudaDriverGetVersion(self) -> int:
        return self._machine.device.driver

    def cudaRuntimeGetVersion(self) -> int:
        return self._version

    def cudaGetDeviceProperties(self, device: int) -> SimpleNamespace:
        self.cudaSetDevice(device)
        known = self._machine.device
        return SimpleNamespace(
            name=known.name.encode(),
            major=known.capability[0],
            minor=known.capability[1],
            totalGlobalMem=known.memory,
            multiProcessorCount=known.multiprocessors,
            integrated=int(known.integrated),
            canMapHostMemory=1,
            unifiedAddressing=1,
        )

    def cudaDeviceGetAttribute(self, attr: Any, device: int) -> int:
        found = self.cudaGetDeviceProperties(device)
        answers: dict[str, int] = {
            "cudaDevAttrMultiProcessorCount": found.multiProcessorCount,
            "cudaDevAttrIntegrated": found.integrated,
            "cudaDevAttrCanMapHostMemory": 1,
            "cudaDevAttrUnifiedAddressing": 1,
            "cudaDevAttrComputeCapabilityMajor": found.major,
            "cudaDevAttrComputeCapabilityMinor": found.minor,
        }
        return answers[attr.name]

    def cudaDeviceSynchronize(self) -> None:
        self._machine.synchronise_all()

    # Errors

    def cudaGetErrorName(self, error: Any) -> bytes:
        return str(error.name).encode()

    def cudaGetErrorString(self, error: Any) -> bytes:
        words = {"cudaErrorMemoryAllocation": "out of memory", "cudaSuccess": "no error"}
        return words.get(error.name, str(error.name).removeprefix("cudaError")).encode()

    def cudaGetLastError(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            raise last

    def cudaPeekAtLastError(self) -> None:
        if self._last is not None:
            raise self._last

    # Memory

    def cudaMemGetInfo(self) -> tuple[int, int]:
        return self._machine.memory.free, self._machine.memory.total

    def cudaMalloc(self, size: int) -> int:
        return self._machine.memory.allocate(size, owner="cuda-python").address

    def cudaMallocManaged(self, size: int, flags: int) -> int:
        return self._machine.memory.allocate(size, "managed", owner="cuda-python").address

    def cudaFree(self, devPtr: Any) -> None:
        address = address_of(devPtr)
        if address == 0:
            return
        self._machine.synchronise_all()
        found = self._machine.memory.find(address, 1)
        self._machine.memory.release(address, None if found is not None and found.kind == "managed" else "device")

    def cudaMallocHost(self, size: int) -> int:
        return self.cudaHostAlloc(size, 0)

    def cudaHostAlloc(self, size: int, flags: int) -> int:
        if flags & ~7:
            raise CudaFault("cudaErrorInvalidValue", f"flags {flags}")
        return self._machine.memory.allocate(size, "pinned", bool(flags & MAPPED), "cuda-python").address

    def cudaFreeHost(self, ptr: Any) -> None:
        self._machine.synchronise_all()
        self._machine.memory.release(address_of(ptr), "pinned")

    def cudaHostGetDevicePointer(self, pHost: Any, flags: int) -> int:
        address = address_of(pHost)
        found = self._machine.memory.find(address, 1)
        if flags or found is None or not found.mapped:
            raise CudaFault("cudaErrorInvalidValue", f"{address:#x} is not mapped host memory")
        return address

    def cudaMemcpy(self, dst: Any, src: Any, count: int, kind: Any) -> None:
        self._copy(dst, src, count, kind, None)

    def cudaMemcpyAsync(self, dst: Any, src: Any, count: int, kind: Any, stream: Any) -> None:
        self._copy(dst, src, count, kind, self._machine.stream(int(stream)))

    def _copy(self, dst: Any, src: Any, count: int, kind: Any, stream: Any) -> None:
        target, source = address_of(dst), address_of(src)
        for address, on_device in zip((source, target), DIRECTIONS[kind.name], strict=True):
            found = self._machine.memory.find(address, 1)
            is_host = found is None or found.kind == "pinned"
            # The driver finds out by itself and copies; that the caller mixed them up stays unseen there.
            if on_device is not None and found is not None and is_host == on_device and found.kind != "managed":
                raise CudaFault("cudaErrorInvalidValue", f"{kind.name} with {address:#x} on the other side")
        self._machine.copy(target, source, count, stream, "cudaMemcpy" if stream is None else "cudaMemcpyAsync")

    def cudaMemset(self, devPtr: Any, value: int, count: int) -> None:
        self._machine.fill(address_of(devPtr), value, count, None)

    def cudaMemsetAsync(self, devPtr: Any, value: int, count: int, stream: Any) -> None:
        self._machine.fill(address_of(devPtr), value, count, self._machine.stream(int(stream)))

    # Streams

    def cudaStreamCreate(self) -> int:
        return self._machine.create_stream().handle

    def cudaStreamCreateWithFlags(self, flags: int) -> int:
        return self._machine.create_stream(blocking=flags != NON_BLOCKING).handle

    def cudaStreamDestroy(self, stream: Any) -> None:
        self._machine.destroy_stream(int(stream))

    def cudaStreamSynchronize(self, stream: Any) -> None:
        self._machine.synchronise(self._machine.stream(int(stream)))

    def cudaStreamQuery(self, stream: Any) -> None:
        if not self._machine.is_done(self._machine.stream(int(stream))):
            raise CudaFault("cudaErrorNotReady", "work is left")

    def cudaStreamWaitEvent(self, stream: Any, event: Any, flags: int) -> None:
        self._machine.wait_for(self._machine.stream(int(stream)), self._machine.event(int(event)))

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> None:
        self._machine.begin_capture(self._machine.stream(int(stream)))

    def cudaStreamEndCapture(self, stream: Any) -> int:
        return self._machine.end_capture(self._machine.stream(int(stream))).handle

    def cudaStreamIsCapturing(self, stream: Any) -> str:
        found = self._machine.stream(int(stream))
        if found.capture is None:
            return "cudaStreamCaptureStatusNone"
        return "cudaStreamCaptureStatusInvalidated" if found.broken else "cudaStreamCaptureStatusActive"

    # Graphs

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> int:
        return self._machine.add_graph(self._machine.graph(int(graph), executable=False).work, executable=True).handle

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> None:
        found = self._machine.stream(int(stream))
        for work in self._machine.graph(int(graphExec), executable=True).work:
            self._machine.enqueue(found, work)

    def cudaGraphDestroy(self, graph: Any) -> None:
        self._machine.destroy_graph(int(graph), executable=False)

    def cudaGraphExecDestroy(self, graphExec: Any) -> None:
        self._machine.destroy_graph(int(graphExec), executable=True)

    # Events

    def cudaEventCreate(self) -> int:
        return self._machine.create_event().handle

    def cudaEventCreateWithFlags(self, flags: int) -> int:
        return self._machine.create_event(timing=not flags & DISABLE_TIMING).handle

    def cudaEventRecord(self, event: Any, stream: Any) -> None:
        self._machine.record(self._machine.event(int(event)), self._machine.stream(int(stream)))

    def cudaEventSynchronize(self, event: Any) -> None:
        self._machine.synchronise_event(self._machine.event(int(event)))

    def cudaEventQuery(self, event: Any) -> None:
        if not self._machine.event_is_done(self._machine.event(int(event))):
            raise CudaFault("cudaErrorNotReady", "the event is ahead")

    def cudaEventElapsedTime(self, start: Any, end: Any) -> float:
        return self._machine.elapsed(self._machine.event(int(start)), self._machine.event(int(end)))

    def cudaEventDestroy(self, event: Any) -> None:
        self._machine.destroy_event(int(event))


# (source on the device, target on the device); None where the driver is to find out.
DIRECTIONS: dict[str, tuple[bool | None, bool | None]] = {
    "cudaMemcpyHostToHost": (False, False),
    "cudaMemcpyHostToDevice": (False, True),
    "cudaMemcpyDeviceToHost": (True, False),
    "cudaMemcpyDeviceToDevice": (True, True),
    "cudaMemcpyDefault": (None, None),
}
