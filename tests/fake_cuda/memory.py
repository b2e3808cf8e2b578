"""The address table: what is allocated where, and what happens to whoever reads beside it.

Device addresses are numbers that no process can own, so that a device pointer that is used on the host crashes at once
instead of reading something. Pinned host memory is real memory at its real address, because callers wrap it in arrays.
"""

from __future__ import annotations

import bisect
import ctypes
import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from fake_cuda.errors import CudaFault

__all__ = ["AddressSpace", "Allocation"]

FIRST_ADDRESS = 1 << 52
ALIGNMENT = 256
PAGE = 4096
# Between two allocations lies this much of nothing: an access that runs over an end hits no neighbour.
GUARD = 1 << 16

Bytes = npt.NDArray[np.uint8]


def _aligned(size: int) -> Bytes:
    # The driver hands out host memory by pages, and callers may rely on that.
    raw = np.full(size + PAGE, 0xFF, np.uint8)
    start = -int(raw.ctypes.data) % PAGE
    return raw[start : start + size]


@dataclass
class Allocation:
    """One piece of memory.

    Attributes:
        address: First byte's address.
        storage: uint8 [size].
        kind: "device", "pinned" or "managed".
        mapped: The device can use the host's address.
        owner: Who asked, for the list of leaks.
    """

    address: int
    storage: Bytes
    kind: str
    mapped: bool = False
    owner: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.storage.size)


@dataclass
class AddressSpace:
    """All memory of the fake machine.

    Attributes:
        total: Bytes of the device.
        reserved: Bytes that something else has taken, which tests move to make memory scarce.
        pageable_copies: Copies from or to memory that is neither pinned nor the device's.
    """

    total: int
    reserved: int = 0
    pageable_copies: int = 0
    _next: int = FIRST_ADDRESS
    _starts: list[int] = field(default_factory=list)
    _live: dict[int, Allocation] = field(default_factory=dict)
    _freed: dict[int, int] = field(default_factory=dict)
    _serial: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def used(self) -> int:
        """Bytes of the device that are allocated."""
        return sum(each.size for each in self._live.values() if each.kind != "pinned")

    @property
    def free(self) -> int:
        """Bytes of the device that are left."""
        return max(self.total - self.reserved - self.used, 0)

    def allocate(self, size: int, kind: str = "device", mapped: bool = False, owner: str = "") -> Allocation:
        """New memory, filled with a pattern that is a NaN in every floating type.

        Raises:
            CudaFault: Size below one, or more than is left.
        """
        if size < 1:
            raise CudaFault("cudaErrorInvalidValue", f"an allocation of {size} bytes")
        if kind != "pinned" and size > self.free:
            raise CudaFault("cudaErrorMemoryAllocation", f"out of memory: {size} bytes wanted, {self.free} free")
        storage = _aligned(size)
        if kind == "device":
            address = self._next
            self._next += (size + GUARD + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        else:
            address = int(storage.ctypes.data)
        allocation = Allocation(address, storage, kind, mapped or kind == "managed", owner)
        self._live[address] = allocation
        bisect.insort(self._starts, address)
        self._freed.pop(address, None)
        return allocation

    def release(self, address: int, kind: str | None = None) -> None:
        """Give memory back.

        Raises:
            CudaFault: No allocation begins there (or none any more), or it is of another kind.
        """
        found = self._live.get(address)
        if found is None or (kind is not None and found.kind != kind):
            what = "was freed before" if address in self._freed else f"is not the start of {kind or 'any'} memory"
            raise CudaFault("cudaErrorInvalidValue", f"free of {address:#x}, which {what}")
        del self._live[address]
        self._starts.remove(address)
        self._freed[address] = found.size

    def find(self, address: int, size: int) -> Allocation | None:
        """The allocation that holds these bytes entirely, or None."""
        at = bisect.bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        found = self._live[self._starts[at]]
        return found if address + size <= found.address + found.size else None

    def device_view(self, address: int, size: int) -> Bytes:
        """Bytes as the device sees them.

        Raises:
            CudaFault: Not (or no longer) allocated, over the end, or host memory that is not mapped.
        """
        found = self.find(address, size)
        if found is None or (found.kind == "pinned" and not found.mapped):
            raise CudaFault("cudaErrorIllegalAddress", self._complaint(address, size, found))
        offset = address - found.address
        return found.storage[offset : offset + size]

    def any_view(self, address: int, size: int) -> Bytes:
        """Bytes as a copy sees them: the device's, pinned, or ordinary memory of the process (counted).

        Raises:
            CudaFault: A device address that is not allocated, or over an end.
        """
        found = self.find(address, size)
        if found is not None:
            offset = address - found.address
            return found.storage[offset : offset + size]
        touches_known = self.find(address, 1) is not None
        if address >= FIRST_ADDRESS or address == 0 or touches_known or self._is_freed(address):
            raise CudaFault("cudaErrorInvalidValue", self._complaint(address, size, None))
        self.pageable_copies += 1
        raw = (ctypes.c_ubyte * size).from_address(address)
        return np.ctypeslib.as_array(raw)

    def is_pageable(self, address: int) -> bool:
        """Whether the address is ordinary memory of the process."""
        return self.find(address, 1) is None and address < FIRST_ADDRESS

    def live(self, kind: str | None = None) -> tuple[Allocation, ...]:
        """What is allocated now, oldest address first."""
        return tuple(self._live[start] for start in self._starts if kind in (None, self._live[start].kind))

    def _is_freed(self, address: int) -> bool:
        return any(start <= address < start + size for start, size in self._freed.items())

    def _complaint(self, address: int, size: int, found: Allocation | None) -> str:
        if found is not None:
            return f"the device reads {address:#x}, which is host memory that is not mapped"
        if self.find(address, 1) is not None:
            return f"{size} bytes at {address:#x} run over the end of the allocation"
        state = "was freed" if self._is_freed(address) else "was never allocated"
        return f"{size} bytes at {address:#x}, which {state}"
