"""One fake computer with one fake GPU: its memory, contexts and queues, and a list of what was done wrong.

Both Python interfaces (`pycuda_driver`, `cuda_runtime`) and the fake TensorRT work on the same machine, so memory of
the one can be handed to the other, as on a device.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fake_cuda.devices import AGX_ORIN_64, FakeDevice
from fake_cuda.errors import CudaFault
from fake_cuda.faults import Faults
from fake_cuda.memory import AddressSpace
from fake_cuda.streams import LEGACY_STREAM, Event, Graph, Stream, Work

__all__ = ["FakeMachine"]

COPY_LATENCY_MS = 0.005
BYTES_PER_MS = 1e7
LAUNCH_MS = 0.002


@dataclass
class FakeMachine:
    """The machine.

    Attributes:
        device: What the driver says it is.
        faults: What is to go wrong.
        memory: All allocations.
        misuses: What a real machine would have answered with a crash or with silence, in the order it happened.
        primary_users: How often the primary context is retained.
        implicit_primary: The runtime library has made the primary context for the process.
        lost: The sticky fault that took the context, if one did.
    """

    device: FakeDevice = AGX_ORIN_64
    faults: Faults = field(default_factory=Faults)
    misuses: list[str] = field(default_factory=list)
    primary_users: int = 0
    implicit_primary: bool = False
    lost: CudaFault | None = None
    memory: AddressSpace = field(init=False)
    _streams: dict[int, Stream] = field(default_factory=dict)
    _events: dict[int, Event] = field(default_factory=dict)
    _graphs: dict[int, Graph] = field(default_factory=dict)
    _handles: itertools.count[int] = field(default_factory=lambda: itertools.count(0x1000, 0x10))
    _local: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        """Memory as large as the device's, and the stream that is always there."""
        self.memory = AddressSpace(self.device.memory)
        self._streams[LEGACY_STREAM] = Stream(LEGACY_STREAM)

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

    def check_lost(self) -> None:
        """Raise the sticky fault again.

        Raises:
            CudaFault: There is one.
        """
        if self.lost is not None:
            raise self.lost

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

    # Streams

    def create_stream(self, blocking: bool = True) -> Stream:
        """A queue of its own."""
        stream = Stream(next(self._handles), blocking)
        self._streams[stream.handle] = stream
        return stream

    def stream(self, handle: int) -> Stream:
        """The queue with this handle.

        Raises:
            CudaFault: There is none.
        """
        try:
            return self._streams[handle]
        except KeyError:
            raise CudaFault("cudaErrorInvalidResourceHandle", f"no stream {handle:#x}") from None

    def destroy_stream(self, handle: int) -> None:
        """Let it finish, then remove it (the real one returns early, and finishes behind the scenes)."""
        stream = self.stream(handle)
        if handle == LEGACY_STREAM:
            raise CudaFault("cudaErrorInvalidResourceHandle", "the default stream cannot be destroyed")
        if self.lost is None:
            self.synchronise(stream)
        del self._streams[handle]

    def enqueue(self, stream: Stream, work: Work) -> None:
        """Queue it, or record it while the stream is being captured.

        Raises:
            CudaFault: It may not be captured.
        """
        if stream.capture is None:
            stream.pending.append(work)
            return
        if not work.capturable:
            stream.broken = work.what
            raise CudaFault("cudaErrorStreamCaptureUnsupported", f"{work.what} while the stream is captured")
        stream.capture.append(work)

    def synchronise(self, stream: Stream) -> None:
        """Wait for a queue, that is: run what is in it.

        Raises:
            CudaFault: The stream is captured, or work failed; then the context is lost.
        """
        self._refuse_capture(stream, "a synchronisation")
        self.check_lost()
        self._begin_hang(stream)
        if stream.ready_at > 0:
            time.sleep(max(stream.ready_at - time.monotonic(), 0))
            stream.ready_at = 0.0
        self._drain(stream)

    def is_done(self, stream: Stream) -> bool:
        """Whether nothing is left to do. Asking lets time pass: what is not held back by a fault is done then.

        Raises:
            CudaFault: As `synchronise`.
        """
        self._refuse_capture(stream, "a query")
        self.check_lost()
        self._begin_hang(stream)
        if stream.ready_at > time.monotonic():
            return False
        stream.ready_at = 0.0
        self._drain(stream)
        return True

    def synchronise_all(self, only_blocking: bool = False) -> None:
        """Wait for every queue (or for those that the legacy default stream waits for)."""
        for stream in tuple(self._streams.values()):
            if stream.capture is not None and only_blocking and not stream.blocking:
                continue
            if stream.blocking or not only_blocking:
                self.synchronise(stream)

    def _begin_hang(self, stream: Stream) -> None:
        launches = any(work.what.startswith("execution") for work in stream.pending)
        if self.faults.hang_execution > 0 and launches and stream.ready_at == 0:
            stream.ready_at = time.monotonic() + self.faults.hang_execution

    def _refuse_capture(self, stream: Stream, what: str) -> None:
        if stream.capture is not None:
            stream.broken = what
            raise CudaFault("cudaErrorStreamCaptureUnsupported", f"{what} while the stream is captured")

    def _drain(self, stream: Stream) -> None:
        while stream.pending:
            work = stream.pending.pop(0)
            try:
                work.run()
            except CudaFault as fault:
                if fault.sticky:
                    self.lost = fault
                    for each in self._streams.values():
                        each.pending.clear()
                raise
            stream.clock_ms += work.cost_ms

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

    def launch(self, stream: Stream, what: str, run: Callable[[], None], cost_ms: float) -> None:
        """Queue a kernel; what it does wrong shows when somebody waits."""

        def guarded() -> None:
            if self.faults.launch_fails:
                raise CudaFault("cudaErrorLaunchFailure", f"unspecified launch failure in {what}")
            run()

        self.enqueue(stream, Work(f"execution of {what}", guarded, LAUNCH_MS + cost_ms))

    # Events

    def create_event(self, timing: bool = True) -> Event:
        """A mark that is nowhere yet."""
        event = Event(next(self._handles), timing)
        self._events[event.handle] = event
        return event

    def event(self, handle: int) -> Event:
        """The mark with this handle.

        Raises:
            CudaFault: There is none.
        """
        try:
            return self._events[handle]
        except KeyError:
            raise CudaFault("cudaErrorInvalidResourceHandle", f"no event {handle:#x}") from None

    def destroy_event(self, handle: int) -> None:
        """Remove a mark."""
        self.event(handle)
        del self._events[handle]

    def record(self, event: Event, stream: Stream) -> None:
        """Put the mark behind what is queued now."""
        self.check_lost()

        def run() -> None:
            event.reached = stream.clock_ms

        if stream.capture is None:
            event.stream, event.reached = stream, None
        self.enqueue(stream, Work("an event", run))

    def wait_for(self, stream: Stream, event: Event) -> None:
        """Let a queue wait for a mark of another."""

        def run() -> None:
            if event.stream is not None and event.reached is None and event.stream is not stream:
                self._drain(event.stream)
            stream.clock_ms = max(stream.clock_ms, event.reached or 0.0)

        self.enqueue(stream, Work("a wait", run))

    def synchronise_event(self, event: Event) -> None:
        """Wait until the mark is passed."""
        if event.stream is not None and event.reached is None:
            self.synchronise(event.stream)

    def event_is_done(self, event: Event) -> bool:
        """Whether the mark is passed."""
        return event.stream is None or event.reached is not None or self.is_done(event.stream)

    def elapsed(self, start: Event, end: Event) -> float:
        """Fake milliseconds between two marks.

        Raises:
            CudaFault: One was never recorded, is still ahead, or takes no times.
        """
        self.check_lost()
        if start.stream is None or end.stream is None or not (start.timing and end.timing):
            raise CudaFault("cudaErrorInvalidResourceHandle", "elapsed time of events that were not recorded or timed")
        if start.reached is None or end.reached is None:
            raise CudaFault("cudaErrorNotReady", "elapsed time of an event that is still ahead")
        return end.reached - start.reached

    # Graphs

    def begin_capture(self, stream: Stream) -> None:
        """Record from here on.

        Raises:
            CudaFault: The default stream, or one that is captured already.
        """
        self.check_lost()
        if stream.handle == LEGACY_STREAM or stream.capture is not None:
            raise CudaFault("cudaErrorStreamCaptureUnsupported", "capture of the default stream, or a second capture")
        stream.capture, stream.broken = [], ""

    def end_capture(self, stream: Stream) -> Graph:
        """The recorded work; the stream runs normally again.

        Raises:
            CudaFault: Nothing was begun, or something forbidden happened in between.
        """
        if stream.capture is None:
            raise CudaFault("cudaErrorIllegalState", "no capture was begun on this stream")
        work, broken = tuple(stream.capture), stream.broken
        stream.capture, stream.broken = None, ""
        if broken:
            raise CudaFault("cudaErrorStreamCaptureInvalidated", f"the capture was invalidated by {broken}")
        return self.add_graph(work)

    def add_graph(self, work: tuple[Work, ...], executable: bool = False) -> Graph:
        """A graph with a handle."""
        graph = Graph(next(self._handles), work, executable)
        self._graphs[graph.handle] = graph
        return graph

    def graph(self, handle: int, executable: bool) -> Graph:
        """The graph with this handle.

        Raises:
            CudaFault: There is none of this form.
        """
        found = self._graphs.get(handle)
        if found is None or found.executable is not executable:
            raise CudaFault("cudaErrorInvalidValue", f"no {'executable ' if executable else ''}graph {handle:#x}")
        return found

    def destroy_graph(self, handle: int, executable: bool) -> None:
        """Remove a graph."""
        self.graph(handle, executable)
        del self._graphs[handle]

    # Accounts

    def leaks(self) -> dict[str, int]:
        """What is still held, by kind; empty when all was given back."""
        counts = {kind: len(self.memory.live(kind)) for kind in ("device", "pinned", "managed")}
        counts |= {"streams": len(self._streams) - 1, "events": len(self._events), "graphs": len(self._graphs)}
        counts["primary contexts"] = self.primary_users
        return {what: count for what, count in counts.items() if count}
