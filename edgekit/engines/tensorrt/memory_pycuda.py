"""Device memory by pycuda: the primary context is retained, never made by `pycuda.autoinit`.

`pycuda.autoinit` makes a context of its own in the importing thread, which TensorRT and other libraries do not share.
pycuda has no capture of CUDA graphs. Its exceptions do not derive from the built-in ones they are named after.
Source of the calls: pycuda's reference documentation, "Device Interface".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy.typing as npt

from edgekit.engines.tensorrt.cuda_errors import cuda_error
from edgekit.engines.tensorrt.memory import DeviceEvent, DeviceFacts, DeviceGraph, DeviceMemory, DeviceStream
from edgekit.errors import UnavailableError

__all__ = ["BACKEND", "PycudaBackend", "PycudaMemory"]

_NAME = "pycuda"
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


@contextmanager
def _explained(driver: Any, doing: str) -> Iterator[None]:
    try:
        yield
    except driver.Error as cause:
        raise cuda_error(doing, str(cause) or type(cause).__name__) from cause


class _Block:
    def __init__(self, driver: Any, size: int) -> None:
        self._driver = driver
        with _explained(driver, f"allocate {size} bytes on the device"):
            self._allocation = driver.mem_alloc(size)

    @property
    def address(self) -> int:
        return int(self._allocation)

    def free(self) -> None:
        if self._allocation is not None:
            allocation, self._allocation = self._allocation, None
            with _explained(self._driver, "free device memory"):
                allocation.free()


class _Pinned:
    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: npt.DTypeLike, mapped: bool) -> None:
        self._driver = driver
        flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
        with _explained(driver, f"allocate page-locked memory of shape {list(shape)}"):
            self._array: npt.NDArray[Any] | None = driver.pagelocked_empty(shape, dtype, mem_flags=flags)
            self._address = int(self._array.base.get_device_pointer()) if mapped and self._array is not None else None

    @property
    def array(self) -> npt.NDArray[Any]:
        assert self._array is not None
        return self._array

    @property
    def mapped_address(self) -> int | None:
        return self._address

    def free(self) -> None:
        if self._array is not None:
            base: Any = self._array.base
            self._array = None
            with _explained(self._driver, "free page-locked memory"):
                base.free()


class _Stream:
    def __init__(self, driver: Any) -> None:
        self._driver = driver
        with _explained(driver, "create a stream"):
            self.raw: Any = driver.Stream(_NON_BLOCKING)

    @property
    def handle(self) -> int:
        return int(self.raw.handle)

    def synchronise(self) -> None:
        with _explained(self._driver, "finish the work on the device"):
            self.raw.synchronize()

    def close(self) -> None:
        # pycuda destroys a stream with its last reference.
        self.raw = None


class _Event:
    def __init__(self, driver: Any) -> None:
        self._driver = driver
        with _explained(driver, "create an event"):
            self._raw: Any = driver.Event()

    def record(self, stream: DeviceStream) -> None:
        with _explained(self._driver, "record an event"):
            self._raw.record(_raw_stream(stream))

    def milliseconds_since(self, earlier: Any) -> float:
        with _explained(self._driver, "take the time between two events"):
            return float(self._raw.time_since(earlier._raw))

    def close(self) -> None:
        self._raw = None


def _raw_stream(stream: DeviceStream) -> Any:
    assert isinstance(stream, _Stream)
    return stream.raw


class PycudaMemory:
    """See `DeviceMemory`."""

    def __init__(self, driver: Any, device: Any) -> None:
        self._driver = driver
        with _explained(driver, "open the device"):
            self._context: Any = device.retain_primary_context()
        try:
            self._facts = _facts(driver, device)
        except BaseException:
            self.close()
            raise

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
        """Pycuda cannot."""
        return False

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `DeviceMemory.active`."""
        if self._context is None:
            raise UnavailableError("The device was closed before it was used.")
        with _explained(self._driver, "make the context current"):
            self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def allocate(self, size: int) -> _Block:
        """See `DeviceMemory.allocate`."""
        return _Block(self._driver, size)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike, *, mapped: bool) -> _Pinned:
        """See `DeviceMemory.pinned`."""
        return _Pinned(self._driver, shape, dtype, mapped)

    def copy_in(self, device: int, host: npt.NDArray[Any], stream: DeviceStream) -> None:
        """See `DeviceMemory.copy_in`."""
        with _explained(self._driver, "copy to the device"):
            self._driver.memcpy_htod_async(device, host, _raw_stream(stream))

    def copy_out(self, host: npt.NDArray[Any], device: int, stream: DeviceStream) -> None:
        """See `DeviceMemory.copy_out`."""
        with _explained(self._driver, "copy from the device"):
            self._driver.memcpy_dtoh_async(host, device, _raw_stream(stream))

    def stream(self) -> DeviceStream:
        """See `DeviceMemory.stream`."""
        return _Stream(self._driver)

    def event(self) -> DeviceEvent:
        """See `DeviceMemory.event`."""
        return _Event(self._driver)

    def capture(self, stream: DeviceStream, queue: Callable[[], None]) -> DeviceGraph:  # noqa: ARG002
        """Refuse: pycuda has no call for it."""
        raise UnavailableError(
            "pycuda cannot record CUDA graphs.", hint="python -m pip install cuda-python, which can, and name it"
        )

    def free_bytes(self) -> int:
        """See `DeviceMemory.free_bytes`."""
        with _explained(self._driver, "ask for free memory"):
            return int(self._driver.mem_get_info()[0])

    def close(self) -> None:
        """See `DeviceMemory.close`."""
        if self._context is not None:
            context, self._context = self._context, None
            with _explained(self._driver, "release the context"):
                context.detach()


def _facts(driver: Any, device: Any) -> DeviceFacts:
    attribute = driver.device_attribute
    with _explained(driver, "describe the device"):
        version = int(driver.get_driver_version())
        major, minor = device.compute_capability()
        return DeviceFacts(
            name=str(device.name()),
            capability=(int(major), int(minor)),
            multiprocessors=int(device.get_attribute(attribute.MULTIPROCESSOR_COUNT)),
            integrated=bool(device.get_attribute(attribute.INTEGRATED)),
            memory_bytes=int(device.total_memory()),
            driver=f"{version // 1000}.{version % 1000 // 10}",
        )


class PycudaBackend:
    """Opens devices by pycuda."""

    def import_problem(self) -> str:
        """See `MemoryBackend.import_problem`."""
        try:
            import_module("pycuda.driver")
        except Exception as cause:  # a broken installation raises whatever it likes
            return (str(cause).splitlines() or [type(cause).__name__])[0]
        return ""

    def describe(self, device: int) -> DeviceFacts:
        """See `MemoryBackend.describe`."""
        return _facts(*self._device(device))

    def open(self, device: int) -> DeviceMemory:
        """See `MemoryBackend.open`."""
        return PycudaMemory(*self._device(device))

    def _device(self, device: int) -> tuple[Any, Any]:
        """The driver's module and the device."""
        problem = self.import_problem()
        if problem:
            raise cuda_error("be reached by pycuda", problem)
        driver: Any = import_module("pycuda.driver")
        with _explained(driver, "start"):
            driver.init()
            count = int(driver.Device.count())
        if not 0 <= device < count:
            raise UnavailableError(
                "There is no GPU of this number.", expected=f"a number below {count}", found=str(device)
            )
        with _explained(driver, "open the device"):
            return driver, driver.Device(device)


BACKEND = PycudaBackend()
