"""The module `pycuda.driver` itself: functions over a machine, and the classes bound to it."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import numpy.typing as npt
from fake_cuda import pycuda_driver as names
from fake_cuda.machine import FakeMachine
from fake_cuda.pycuda_driver import DeviceAllocation, PagelockedHostAllocation, bound, in_context, told
from fake_cuda.streams import LEGACY_STREAM

__all__ = ["make_pycuda"]


class _Functions:
    """pycuda.driver's functions; each method becomes one."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine
        self._started = False

    def init(self, flags: int = 0) -> None:
        """Start the driver."""
        told("cuInit", self._machine.start_driver)

    def get_version(self) -> tuple[int, int, int]:
        """CUDA version that pycuda was built for."""
        return (self._machine.device.driver // 1000, self._machine.device.driver % 1000 // 10, 0)

    def get_driver_version(self) -> int:
        """CUDA version of the driver."""
        return self._machine.device.driver

    def mem_alloc(self, size: int) -> DeviceAllocation:
        """Device memory."""
        return DeviceAllocation(self._machine, size)

    def mem_get_info(self) -> tuple[int, int]:
        """(free, total) bytes."""
        memory = self._machine.memory
        return in_context(self._machine, "cuMemGetInfo", lambda: (memory.free, memory.total))

    def pagelocked_empty(
        self, shape: int | tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0
    ) -> npt.NDArray[Any]:
        """Pinned memory as an array, whose `base` owns it."""
        if order != "C":
            raise ValueError("the fake makes arrays in C order only")
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        mapped = bool(mem_flags & names.host_alloc_flags.DEVICEMAP)
        return np.asarray(PagelockedHostAllocation(self._machine, sizes, dtype, mapped))

    def pagelocked_zeros(
        self, shape: int | tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0
    ) -> npt.NDArray[Any]:
        """As `pagelocked_empty`, filled with zeros."""
        made = self.pagelocked_empty(shape, dtype, order, mem_flags)
        made[...] = 0
        return made

    def memcpy_htod(self, dest: Any, src: npt.NDArray[Any]) -> None:
        """Host to device, now."""
        self._copy("cuMemcpyHtoD", int(dest), _address(src, False), _size(src), None)

    def memcpy_htod_async(self, dest: Any, src: npt.NDArray[Any], stream: Any = None) -> None:
        """Host to device, in the order of a stream."""
        self._copy("cuMemcpyHtoDAsync", int(dest), _address(src, False), _size(src), _handle(stream))

    def memcpy_dtoh(self, dest: npt.NDArray[Any], src: Any) -> None:
        """Device to host, now."""
        self._copy("cuMemcpyDtoH", _address(dest, True), int(src), _size(dest), None)

    def memcpy_dtoh_async(self, dest: npt.NDArray[Any], src: Any, stream: Any = None) -> None:
        """Device to host, in the order of a stream."""
        self._copy("cuMemcpyDtoHAsync", _address(dest, True), int(src), _size(dest), _handle(stream))

    def memcpy_dtod_async(self, dest: Any, src: Any, size: int, stream: Any = None) -> None:
        """Device to device, in the order of a stream."""
        self._copy("cuMemcpyDtoDAsync", int(dest), int(src), size, _handle(stream))

    def memset_d8(self, dest: Any, data: int, size: int) -> None:
        """Set bytes, now."""
        in_context(self._machine, "cuMemsetD8", lambda: self._machine.fill(int(dest), data, size, None))

    def _copy(self, call: str, target: int, source: int, size: int, handle: int | None) -> None:
        def work() -> None:
            queue = None if handle is None else self._machine.stream(handle)
            self._machine.copy(target, source, size, queue, call)

        in_context(self._machine, call, work)


def _handle(stream: Any) -> int:
    return LEGACY_STREAM if stream is None else int(stream.handle)


def _address(array: npt.NDArray[Any], written: bool) -> int:
    if not isinstance(array, np.ndarray) or not array.flags["C_CONTIGUOUS"]:
        raise ValueError("ndarray is not contiguous")
    if written and not array.flags["WRITEABLE"]:
        raise ValueError("buffer source array is read-only")
    return int(array.ctypes.data)


def _size(array: npt.NDArray[Any]) -> int:
    return int(array.nbytes)


FUNCTIONS = tuple(name for name in vars(_Functions) if not name.startswith("_"))
CLASSES = ("Device", "Context", "Stream", "Event")
PLAIN = (
    "DeviceAllocation",
    "Error",
    "LaunchError",
    "LogicError",
    "MemoryError",
    "PagelockedHostAllocation",
    "RuntimeError",
    "device_attribute",
    "event_flags",
    "host_alloc_flags",
)


def make_pycuda(machine: FakeMachine) -> tuple[types.ModuleType, types.ModuleType]:
    """(`pycuda`, `pycuda.driver`), to be put into `sys.modules`.

    Classes that can be constructed are bound to the machine; nothing else reaches it.
    """
    package, driver = types.ModuleType("pycuda"), types.ModuleType("pycuda.driver")
    functions = _Functions(machine)
    for name in FUNCTIONS:
        setattr(driver, name, getattr(functions, name))
    for name in CLASSES:
        setattr(driver, name, bound(getattr(names, name), machine))
    for name in PLAIN:
        setattr(driver, name, getattr(names, name))
    package.__path__ = []
    package.driver = driver  # type: ignore[attr-defined]
    return package, driver
