"""Device memory by NVIDIA's cuda-python (`cuda.bindings.runtime`; `cuda.cudart` before version 12.8).

The runtime library uses the device's primary context, the one that TensorRT uses. Every call answers a tuple that
begins with its error code and never raises for it; without a driver some versions raise instead.
Source of the calls: the package's own reference, checked by name against cuda-bindings 13.5.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.engines.tensorrt.cuda_errors import cuda_error
from edgekit.engines.tensorrt.memory import DeviceEvent, DeviceFacts, DeviceGraph, DeviceMemory, DeviceStream
from edgekit.errors import UnavailableError

__all__ = ["BACKEND", "CudaPythonBackend", "CudaPythonMemory"]

_NAME = "cuda-python"
# `cuda.cudart` still exists in 12.8 and 12.9, where it warns; so the new place is asked first.
_MODULES = ("cuda.bindings.runtime", "cuda.cudart")


def _runtime() -> Any:
    new, old = _MODULES
    try:
        return import_module(new)
    except ImportError as missing:
        try:
            return import_module(old)
        except ImportError:
            raise missing from None


def _call(runtime: Any, doing: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """One call: its value without the code, a tuple where there are several, None where there is none."""
    try:
        answer = function(*arguments)
    except Exception as cause:  # a driver library that is missing is told in a different way by every release
        raise cuda_error(doing, (str(cause).splitlines() or [type(cause).__name__])[0]) from cause
    code, values = (answer[0], answer[1:]) if isinstance(answer, tuple) else (answer, ())
    if int(code) != int(runtime.cudaError_t.cudaSuccess):
        raise cuda_error(doing, _described(runtime, code))
    return values[0] if len(values) == 1 else (values or None)


def _described(runtime: Any, code: Any) -> str:
    name = getattr(code, "name", str(code))
    error, text = runtime.cudaGetErrorString(code)
    if int(error) != int(runtime.cudaError_t.cudaSuccess):
        return f"{name} ({int(code)})"
    return f"{name} ({int(code)}): {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}"


class _Block:
    def __init__(self, runtime: Any, size: int) -> None:
        self._runtime = runtime
        self._address = int(_call(runtime, f"allocate {size} bytes on the device", runtime.cudaMalloc, size))

    @property
    def address(self) -> int:
        return self._address

    def free(self) -> None:
        address, self._address = self._address, 0
        if address:
            _call(self._runtime, "free device memory", self._runtime.cudaFree, address)


class _Pinned:
    def __init__(self, runtime: Any, shape: tuple[int, ...], dtype: npt.DTypeLike, mapped: bool) -> None:
        self._runtime = runtime
        kind = np.dtype(dtype)
        size = max(int(np.prod(shape)) * kind.itemsize, 1)
        flags = runtime.cudaHostAllocMapped if mapped else runtime.cudaHostAllocDefault
        self._address = int(_call(runtime, f"allocate {size} page-locked bytes", runtime.cudaHostAlloc, size, flags))
        raw = (ctypes.c_ubyte * size).from_address(self._address)
        self._array: npt.NDArray[Any] = np.frombuffer(memoryview(raw), kind, int(np.prod(shape))).reshape(shape)
        self._mapped = None
        if mapped:
            ask = runtime.cudaHostGetDevicePointer
            self._mapped = int(_call(runtime, "map page-locked memory", ask, self._address, 0))

    @property
    def array(self) -> npt.NDArray[Any]:
        return self._array

    @property
    def mapped_address(self) -> int | None:
        return self._mapped

    def free(self) -> None:
        address, self._address = self._address, 0
        if address:
            _call(self._runtime, "free page-locked memory", self._runtime.cudaFreeHost, address)


class _Stream:
    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        create = runtime.cudaStreamCreateWithFlags
        self.raw: Any = _call(runtime, "create a stream", create, runtime.cudaStreamNonBlocking)

    @property
    def handle(self) -> int:
        return int(self.raw)

    def synchronise(self) -> None:
        _call(self._runtime, "finish the work on the device", self._runtime.cudaStreamSynchronize, self.raw)

    def close(self) -> None:
        raw, self.raw = self.raw, None
        if raw is not None:
            _call(self._runtime, "destroy a stream", self._runtime.cudaStreamDestroy, raw)


class _Event:
    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._raw: Any = _call(runtime, "create an event", runtime.cudaEventCreate)

    def record(self, stream: DeviceStream) -> None:
        _call(self._runtime, "record an event", self._runtime.cudaEventRecord, self._raw, _raw_stream(stream))

    def milliseconds_since(self, earlier: Any) -> float:
        ask = self._runtime.cudaEventElapsedTime
        return float(_call(self._runtime, "take the time between two events", ask, earlier._raw, self._raw))

    def close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            _call(self._runtime, "destroy an event", self._runtime.cudaEventDestroy, raw)


class _Graph:
    def __init__(self, runtime: Any, recorded: Any) -> None:
        self._runtime = runtime
        try:
            self._raw: Any = _call(runtime, "prepare a recorded graph", runtime.cudaGraphInstantiate, recorded, 0)
        finally:
            _call(runtime, "drop a recorded graph", runtime.cudaGraphDestroy, recorded)

    def launch(self, stream: DeviceStream) -> None:
        _call(self._runtime, "launch a graph", self._runtime.cudaGraphLaunch, self._raw, _raw_stream(stream))

    def close(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            _call(self._runtime, "destroy a graph", self._runtime.cudaGraphExecDestroy, raw)


def _raw_stream(stream: DeviceStream) -> Any:
    assert isinstance(stream, _Stream)
    return stream.raw


class CudaPythonMemory:
    """See `DeviceMemory`."""

    def __init__(self, runtime: Any, device: int) -> None:
        self._runtime = runtime
        self._device: int | None = device
        with self.active():
            self._facts = _facts(runtime, device)

    @property
    def name(self) -> str:
        """Registry name."""
        return _NAME

    @property
    def facts(self) -> DeviceFacts:
        """The device."""
        return self._facts

    @property
    def captures_graphs(self) -> bool:
        """It can."""
        return True

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `DeviceMemory.active`. The device is chosen again: which one is current belongs to the thread."""
        if self._device is None:
            raise UnavailableError("The device was closed before it was used.")
        before = _call(self._runtime, "tell the current device", self._runtime.cudaGetDevice)
        _call(self._runtime, "open the device", self._runtime.cudaSetDevice, self._device)
        try:
            yield
        finally:
            if int(before) != self._device:
                _call(self._runtime, "restore the current device", self._runtime.cudaSetDevice, before)

    def allocate(self, size: int) -> _Block:
        """See `DeviceMemory.allocate`."""
        return _Block(self._runtime, size)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike, *, mapped: bool) -> _Pinned:
        """See `DeviceMemory.pinned`."""
        return _Pinned(self._runtime, shape, dtype, mapped)

    def copy_in(self, device: int, host: npt.NDArray[Any], stream: DeviceStream) -> None:
        """See `DeviceMemory.copy_in`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy("copy to the device", device, host.ctypes.data, host.nbytes, kind, stream)

    def copy_out(self, host: npt.NDArray[Any], device: int, stream: DeviceStream) -> None:
        """See `DeviceMemory.copy_out`."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy("copy from the device", host.ctypes.data, device, host.nbytes, kind, stream)

    def _copy(self, doing: str, *arguments: Any) -> None:
        *what, stream = arguments
        _call(self._runtime, doing, self._runtime.cudaMemcpyAsync, *what, _raw_stream(stream))

    def stream(self) -> DeviceStream:
        """See `DeviceMemory.stream`."""
        return _Stream(self._runtime)

    def event(self) -> DeviceEvent:
        """See `DeviceMemory.event`."""
        return _Event(self._runtime)

    def capture(self, stream: DeviceStream, queue: Callable[[], None]) -> DeviceGraph:
        """See `DeviceMemory.capture`."""
        runtime, raw = self._runtime, _raw_stream(stream)
        # Thread-local: what other threads of the program do meanwhile must not end the recording.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call(runtime, "begin to record a graph", runtime.cudaStreamBeginCapture, raw, mode)
        try:
            queue()
        except BaseException:
            # The stream stays unusable until the capture is ended, whatever came of it.
            self._drop_capture(raw)
            raise
        recorded = _call(runtime, "end the recording of a graph", runtime.cudaStreamEndCapture, raw)
        return _Graph(runtime, recorded)

    def _drop_capture(self, raw: Any) -> None:
        code, recorded = self._runtime.cudaStreamEndCapture(raw)
        if int(code) == int(self._runtime.cudaError_t.cudaSuccess):
            _call(self._runtime, "drop a recorded graph", self._runtime.cudaGraphDestroy, recorded)

    def free_bytes(self) -> int:
        """See `DeviceMemory.free_bytes`."""
        return int(_call(self._runtime, "ask for free memory", self._runtime.cudaMemGetInfo)[0])

    def close(self) -> None:
        """See `DeviceMemory.close`. The primary context is the process's: the runtime library lets it go at its end."""
        self._device = None


def _facts(runtime: Any, device: int) -> DeviceFacts:
    attributes = runtime.cudaDeviceAttr

    def ask(attribute: Any) -> int:
        return int(_call(runtime, "describe the device", runtime.cudaDeviceGetAttribute, attribute, device))

    major, minor = attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor
    properties = _call(runtime, "describe the device", runtime.cudaGetDeviceProperties, device)
    name = properties.name
    version = int(_call(runtime, "tell the driver's version", runtime.cudaDriverGetVersion))
    return DeviceFacts(
        name=name.split(b"\0")[0].decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
        capability=(ask(major), ask(minor)),
        multiprocessors=ask(attributes.cudaDevAttrMultiProcessorCount),
        integrated=bool(ask(attributes.cudaDevAttrIntegrated)),
        memory_bytes=int(properties.totalGlobalMem),
        driver=f"{version // 1000}.{version % 1000 // 10}",
    )


class CudaPythonBackend:
    """Opens devices by cuda-python."""

    def import_problem(self) -> str:
        """See `MemoryBackend.import_problem`."""
        try:
            _runtime()
        except Exception as cause:  # a broken installation raises whatever it likes
            return (str(cause).splitlines() or [type(cause).__name__])[0]
        return ""

    def describe(self, device: int) -> DeviceFacts:
        """See `MemoryBackend.describe`."""
        return _facts(self._started(device), device)

    def open(self, device: int) -> DeviceMemory:
        """See `MemoryBackend.open`."""
        return CudaPythonMemory(self._started(device), device)

    def _started(self, device: int) -> Any:
        """The runtime's module, once the driver has shown that it has such a device."""
        problem = self.import_problem()
        if problem:
            raise cuda_error("be reached by cuda-python", problem)
        runtime = _runtime()
        count = int(_call(runtime, "count the devices", runtime.cudaGetDeviceCount))
        if not 0 <= device < count:
            raise UnavailableError(
                "There is no GPU of this number.", expected=f"a number below {count}", found=str(device)
            )
        return runtime


BACKEND = CudaPythonBackend()
