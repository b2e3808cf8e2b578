"""What a runner asks of CUDA, as an interface, and the choice between the two Python packages that can answer.

Two implementations, because most installations have pycuda, while NVIDIA's samples (since TensorRT 10.14) and JetPack 7
moved to cuda-python. Neither package is imported before a device is opened; what they raise becomes our errors there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from edgekit.core.registry import Registry
from edgekit.errors import UnavailableError

__all__ = [
    "MEMORIES",
    "DeviceBlock",
    "DeviceEvent",
    "DeviceFacts",
    "DeviceGraph",
    "DeviceMemory",
    "DeviceStream",
    "HostBlock",
    "MemoryBackend",
    "describe_device",
    "open_memory",
]

# The one that records graphs first; which one was used stands in the runner's info.
_ORDER = ("cuda-python", "pycuda")


@dataclass(frozen=True)
class DeviceFacts:
    """The GPU, as the driver describes it.

    Attributes:
        name: Marketing name; all Orin modules say "Orin", so it does not tell them apart.
        capability: Compute capability, (8, 7) on Orin.
        multiprocessors: Count of streaming multiprocessors, which does tell most modules apart.
        integrated: True where CPU and GPU share their memory, as on every Jetson.
        memory_bytes: All memory that the device sees.
        driver: CUDA version that the driver supports, such as "12.6".
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    integrated: bool
    memory_bytes: int
    driver: str

    @property
    def sm(self) -> str:
        """Compute capability as people write it: "8.7"."""
        return f"{self.capability[0]}.{self.capability[1]}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "capability": list(self.capability)}


class DeviceBlock(Protocol):
    """Memory of the device."""

    @property
    def address(self) -> int:
        """The device's address, 256-byte aligned."""

    def free(self) -> None:
        """Give it back. May be called twice."""


class HostBlock(Protocol):
    """Page-locked memory of the host."""

    @property
    def array(self) -> npt.NDArray[Any]:
        """The memory as an array; not to be used after `free`."""

    @property
    def mapped_address(self) -> int | None:
        """Where the device sees the same bytes; None where they were not mapped."""

    def free(self) -> None:
        """Give it back. May be called twice."""


class DeviceStream(Protocol):
    """A queue of work of our own: TensorRT synchronises more than it has to on the default one."""

    @property
    def handle(self) -> int:
        """What TensorRT takes."""

    def synchronise(self) -> None:
        """Wait for everything queued. Raises `UnavailableError` where any of it failed."""

    def close(self) -> None:
        """Remove it. May be called twice."""


class DeviceEvent(Protocol):
    """A mark in a stream."""

    def record(self, stream: DeviceStream) -> None:
        """Put the mark behind what is queued now."""

    def milliseconds_since(self, earlier: Any) -> float:
        """GPU time between two marks of this implementation that were passed."""

    def close(self) -> None:
        """Remove it. May be called twice."""


class DeviceGraph(Protocol):
    """Recorded work that is queued again in one call."""

    def launch(self, stream: DeviceStream) -> None:
        """Queue it."""

    def close(self) -> None:
        """Remove it. May be called twice."""


class DeviceMemory(Protocol):
    """An opened device. Every other method is called inside `active()`, on the thread that entered it."""

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def facts(self) -> DeviceFacts:
        """The device."""

    @property
    def captures_graphs(self) -> bool:
        """Whether `capture` can work at all."""

    def active(self) -> AbstractContextManager[None]:
        """Make the device's primary context current on this thread, and restore what was before."""

    def allocate(self, size: int) -> DeviceBlock:
        """Device memory of `size` bytes, at least 1. Raises `UnavailableError` when there is not enough."""

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike, *, mapped: bool) -> HostBlock:
        """Page-locked host memory; `mapped` lets an integrated GPU use it without copies. Raises like `allocate`."""

    def copy_in(self, device: int, host: npt.NDArray[Any], stream: DeviceStream) -> None:
        """Queue a copy of contiguous pinned memory to a device address."""

    def copy_out(self, host: npt.NDArray[Any], device: int, stream: DeviceStream) -> None:
        """Queue a copy from a device address into contiguous pinned memory."""

    def stream(self) -> DeviceStream:
        """A stream that does not wait for the default one."""

    def event(self) -> DeviceEvent:
        """An event that takes times."""

    def capture(self, stream: DeviceStream, queue: Callable[[], None]) -> DeviceGraph:
        """Record what `queue` puts on the stream; nothing of it runs.

        Raises:
            UnavailableError: Something in it cannot be recorded; the stream works as before.
        """

    def free_bytes(self) -> int:
        """Device memory that is free now. On an integrated GPU other programs share it."""

    def close(self) -> None:
        """Let the context go. Everything allocated must be freed before. May be called twice."""


class MemoryBackend(Protocol):
    """One Python package that reaches CUDA."""

    def import_problem(self) -> str:
        """Empty where the package can be imported; otherwise what importing it says. Never raises."""

    def describe(self, device: int) -> DeviceFacts:
        """What the driver says of a device, without a context on it. Raises like `open`."""

    def open(self, device: int) -> DeviceMemory:
        """Open a device by its number.

        Raises:
            UnavailableError: No driver, no such device, or the package is not here.
        """


MEMORIES: Registry[MemoryBackend] = Registry(
    "CUDA memory interface",
    {
        "cuda-python": "edgekit.engines.tensorrt.memory_cuda_python:BACKEND",
        "pycuda": "edgekit.engines.tensorrt.memory_pycuda:BACKEND",
    },
)


def describe_device(name: str = "", device: int = 0) -> DeviceFacts:
    """A device, as the driver describes it; nothing is opened on it. Arguments and errors as `open_memory`."""
    return _backend(name, device).describe(device)


def open_memory(name: str = "", device: int = 0) -> DeviceMemory:
    """Open a device through the named package, or through the first that reaches the device.

    Args:
        name: Registry name, or empty for a choice.
        device: Number of the GPU.

    Raises:
        BadInputError: There is no such name.
        UnavailableError: The packages or the device are not here; the message holds every package's reason.
    """
    return _backend(name, device).open(device)


def _backend(name: str, device: int) -> MemoryBackend:
    if name:
        return MEMORIES.load(name)
    missing = []
    failures: list[UnavailableError] = []
    for each in _ORDER:
        backend = MEMORIES.load(each)
        problem = backend.import_problem()
        if problem:
            missing.append(f"{each}: {problem}")
            continue
        try:
            backend.describe(device)
        except UnavailableError as error:
            # A package for a later CUDA than the driver's imports well; the other may be the one that fits.
            failures.append(error)
        else:
            return backend
    if failures:
        raise failures[0]
    raise UnavailableError(
        "No Python package that reaches CUDA is installed here.",
        expected=" or ".join(_ORDER),
        found="; ".join(missing),
        hint="python -m pip install cuda-python (JetPack 7, CUDA 12 and 13) or pycuda (JetPack 5 and 6)",
    )
