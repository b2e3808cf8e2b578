"""Queues of one machine: streams, events and graphs, and the fault after which nothing works any more."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fake_cuda.devices import AGX_ORIN_64, FakeDevice
from fake_cuda.errors import CudaFault
from fake_cuda.faults import Faults
from fake_cuda.streams import LEGACY_STREAM, Event, Graph, Stream, Work

__all__ = ["Queues"]

LAUNCH_MS = 0.002


@dataclass
class Queues:
    """What can be waited for.

    Attributes:
        device: What the driver says it is.
        faults: What is to go wrong.
        lost: The sticky fault that took the context, if one did.
    """

    device: FakeDevice = AGX_ORIN_64
    faults: Faults = field(default_factory=Faults)
    lost: CudaFault | None = None
    _streams: dict[int, Stream] = field(default_factory=lambda: {LEGACY_STREAM: Stream(LEGACY_STREAM)})
    _events: dict[int, Event] = field(default_factory=dict)
    _graphs: dict[int, Graph] = field(default_factory=dict)
    _handles: itertools.count[int] = field(default_factory=lambda: itertools.count(0x1000, 0x10))

    def check_lost(self) -> None:
        """Raise the sticky fault again.

        Raises:
            CudaFault: There is one.
        """
        if self.lost is not None:
            raise self.lost

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
