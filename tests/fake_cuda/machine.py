"""One fake computer with one fake GPU: its memory, contexts and queues, and a list of what was done wrong.

Both Python interfaces (`pycuda_module`, `cuda_python`) and the fake TensorRT work on the same machine, so memory of
the one can be handed to the other, as on a device.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from fake_cuda.errors import CudaFault
from fake_cuda.memory import AddressSpace
from fake_cuda.queues import Queues
from fake_cuda.streams import LEGACY_STREAM, Stream, Work

__all__ = ["FakeMachine"]

COPY_LATENCY_MS = 0.005
BYTES_PER_MS = 1e7


@dataclass
class FakeMachine(Queues):
    """The machine.

    Attributes:
        memory: All allocations.
        misuses: What a real machine would have answered with a crash or with silence, in the order it happened.
        primary_users: How often the primary context is retained.
        implicit_primary: The runtime library has made the primary context for the process.
    """

    misuses: list[str] = field(default_factory=list)
    primary_users: int = 0
    implicit_primary: bool = False
    memory: AddressSpace = field(init=False)
    _local: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        """Memory as large as the device's."""
        self.memory = AddressSpace(self.device.memory)

    # Contexts

    def start_driver(self) -> None:
        """What `cuInit` does.

        Raises:
            CudaFault: The injected one.
        """
        if self.faults.driver:
            raise CudaFault(self.faults.driver, "the driver does not start")

    @property
    def context_alive(self) -> bool:
        """The primary context exists."""
        return self.primary_users > 0 or self.implicit_primary

    @property
    def stack(self) -> list[object]:
        """Contexts pushed by this thread."""
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        found: list[object] = self._local.stack
        return found

    def require_context(self) -> None:
        """What every driver call that works in a context checks.

        Raises:
            CudaFault: None is current on this thread, or it was lost.
        """
        if not self.stack:
            raise CudaFault("cudaErrorDeviceUninitialized", "invalid device context: none is current on this thread")
        self.check_lost()

    def enter_runtime(self) -> None:
        """What every call of the runtime library does first: start the driver, make the primary context current.

        Raises:
            CudaFault: The driver does not start, or the context was lost.
        """
        self.start_driver()
        self.implicit_primary = self.implicit_primary or self.primary_users == 0
        self.check_lost()

    def release_primary(self) -> None:
        """One user less; with the last one everything in the context is gone.

        Raises:
            CudaFault: There is none.
        """
        if self.primary_users < 1:
            raise CudaFault("cudaErrorIllegalState", "the primary context is released more often than retained")
        self.primary_users -= 1
        if self.primary_users == 0 and not self.implicit_primary:
            for each in self.memory.live():
                self.misuses.append(f"the context goes with {each.size} bytes of {each.kind} memory ({each.owner})")
                self.memory.release(each.address)
            self._streams = {LEGACY_STREAM: Stream(LEGACY_STREAM)}
            self._events.clear()
            self._graphs.clear()

    # Copies

    def copy(self, target: int, source: int, size: int, stream: Stream | None, what: str) -> None:
        """Copy bytes now (no stream) or in the order of a queue.

        A copy from ordinary memory is taken at once and one to it is waited for, as the driver does; a copy without a
        stream waits for the blocking streams only.

        Raises:
            CudaFault: An address is no good.
        """
        self.check_lost()
        self.memory.any_view(target, size)
        self.memory.any_view(source, size)
        cost = COPY_LATENCY_MS + size / BYTES_PER_MS
        if stream is None:
            self.synchronise_all(only_blocking=True)
            self.memory.any_view(target, size)[:] = self.memory.any_view(source, size)
            return
        from_pageable, to_pageable = self.memory.is_pageable(source), self.memory.is_pageable(target)
        taken = self.memory.any_view(source, size).copy() if from_pageable else None

        def run() -> None:
            try:
                data = self.memory.any_view(source, size) if taken is None else taken
                self.memory.any_view(target, size)[:] = data
            except CudaFault as fault:
                raise CudaFault("cudaErrorIllegalAddress", f"{what}: {fault.message}") from fault

        self.enqueue(stream, Work(what, run, cost, capturable=not (from_pageable or to_pageable)))
        if to_pageable:
            self.synchronise(stream)

    def fill(self, address: int, value: int, size: int, stream: Stream | None) -> None:
        """Set bytes now or in the order of a queue."""
        self.check_lost()
        self.memory.device_view(address, size)

        def run() -> None:
            self.memory.device_view(address, size)[:] = value

        if stream is None:
            self.synchronise_all(only_blocking=True)
            run()
        else:
            self.enqueue(stream, Work("a fill", run, COPY_LATENCY_MS))

    # Accounts

    def leaks(self) -> dict[str, int]:
        """What is still held, by kind; empty when all was given back."""
        counts = {kind: len(self.memory.live(kind)) for kind in ("device", "pinned", "managed")}
        counts |= {"streams": len(self._streams) - 1, "events": len(self._events), "graphs": len(self._graphs)}
        counts["primary contexts"] = self.primary_users
        return {what: count for what, count in counts.items() if count}
