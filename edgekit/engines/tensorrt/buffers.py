"""Memory for an engine's inputs and outputs: page-locked on the host, and on the device unless the two are one."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.engines.tensorrt.memory import DeviceMemory, DeviceStream

__all__ = ["BufferRequest", "TensorBuffer", "allocate_buffer"]


@dataclass(frozen=True)
class BufferRequest:
    """What is to be allocated.

    Attributes:
        name: The tensor's name.
        is_input: Copied to the device before a run; outputs are copied back after it.
        largest: Its largest shape.
        dtype: Its type.
        mapped: Host and device are to share the memory.
    """

    name: str
    is_input: bool
    largest: tuple[int, ...]
    dtype: np.dtype[Any]
    mapped: bool


@dataclass(frozen=True)
class TensorBuffer:
    """Room for one tensor at its largest shape.

    Attributes:
        name: The tensor's name.
        is_input: Copied to the device before a run; outputs are copied back after it.
        host: The page-locked memory, flat.
        address: Where the device finds the tensor.
        mapped: The device works on the host's memory itself, and nothing is copied.
    """

    name: str
    is_input: bool
    host: npt.NDArray[Any]
    address: int
    mapped: bool

    def view(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The host's memory as a tensor of `shape`, which must fit."""
        found: npt.NDArray[Any] = self.host[: math.prod(shape)].reshape(shape)
        return found

    def fill(self, values: npt.NDArray[Any]) -> None:
        """Put an input's values into the host's memory."""
        np.copyto(self.view(values.shape), values)

    def queue_copy(self, memory: DeviceMemory, elements: int, stream: DeviceStream) -> None:
        """Queue the copy that this tensor needs; none where it is mapped."""
        if self.mapped:
            return
        part = self.host[:elements]
        if self.is_input:
            memory.copy_in(self.address, part, stream)
        else:
            memory.copy_out(part, self.address, stream)


def allocate_buffer(memory: DeviceMemory, request: BufferRequest, stack: ExitStack) -> TensorBuffer:
    """Allocate, and give `stack` what frees it again; the stack is closed while the device is active.

    Raises:
        UnavailableError: Not enough memory.
    """
    # Never empty: an address of nothing is none.
    elements = max(math.prod(request.largest), 1)
    host = memory.pinned((elements,), request.dtype, mapped=request.mapped)
    stack.callback(host.free)
    if request.mapped and host.mapped_address is not None:
        return TensorBuffer(request.name, request.is_input, host.array, host.mapped_address, mapped=True)
    block = memory.allocate(elements * request.dtype.itemsize)
    stack.callback(block.free)
    return TensorBuffer(request.name, request.is_input, host.array, block.address, mapped=False)
