"""Queues of work, marks in them, and graphs recorded from them.

Nothing that is queued runs before somebody waits for it: whoever reads a result without waiting reads what was there
before. Time is counted, not measured: every piece of work has a cost, so that events give the same numbers in each run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["LEGACY_STREAM", "Event", "Graph", "Stream", "Work"]

LEGACY_STREAM = 0


@dataclass(frozen=True)
class Work:
    """One piece of queued work.

    Attributes:
        what: For messages.
        run: Does it.
        cost_ms: What the fake clock advances by.
        capturable: May be part of a graph.
    """

    what: str
    run: Callable[[], None]
    cost_ms: float = 0.0
    capturable: bool = True


@dataclass
class Graph:
    """Work that can be queued again as a whole. `executable` marks the instantiated form."""

    handle: int
    work: tuple[Work, ...]
    executable: bool = False


@dataclass
class Event:
    """A mark in a stream.

    Attributes:
        handle: Number by which APIs name it.
        timing: Elapsed time may be asked for.
        stream: Where it was recorded last; None before.
        reached: Fake milliseconds at which it was passed; None while it is ahead.
    """

    handle: int
    timing: bool = True
    stream: Stream | None = None
    reached: float | None = None


@dataclass
class Stream:
    """A queue.

    Attributes:
        handle: Number by which APIs name it; 0 is the legacy default stream.
        blocking: The legacy default stream waits for it.
        pending: What has not run yet.
        clock_ms: Fake time of this queue.
        capture: Work that is being recorded; None while the stream runs normally.
        broken: Why the capture cannot be ended any more.
        ready_at: Until when (monotonic seconds) the fake hangs; 0 when it does not.
    """

    handle: int
    blocking: bool = True
    pending: list[Work] = field(default_factory=list)
    clock_ms: float = 0.0
    capture: list[Work] | None = None
    broken: str = ""
    ready_at: float = 0.0
