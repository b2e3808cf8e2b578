"""The engine's work as a CUDA graph: recorded when it may be, launched, and told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.engines.tensorrt.memory import DeviceGraph, DeviceMemory, DeviceStream
from edgekit.engines.tensorrt.running import RunOptions
from edgekit.errors import UnavailableError

__all__ = ["GraphRecording"]

_WAITING = "not recorded yet"
_RECORDED = "recorded"


class GraphRecording:
    """A recording of the work for one shape, made anew for another.

    Args:
        off: Why nothing is recorded; empty where it may be.

    Attributes:
        state: "not recorded yet", "recorded", or why it is not.
        runs: How often the work was done.
        launched: How often by a recording.
    """

    def __init__(self, off: str = "") -> None:
        self.state = off or _WAITING
        self.runs = 0
        self.launched = 0
        self._graph: DeviceGraph | None = None

    @classmethod
    def of(cls, options: RunOptions, *, captures: bool, dla_core: int | None) -> GraphRecording:
        """What may be recorded of an engine that runs so.

        Args:
            options: What is asked for.
            captures: The CUDA package can record.
            dla_core: The DLA core that the engine runs on; None for the GPU.
        """
        if not options.cuda_graph:
            return cls("off")
        if dla_core is not None:
            # Work that falls back from DLA to the GPU synchronises in between, which no graph can hold.
            return cls("off: the engine runs on the DLA, whose work is not recorded")
        return cls() if captures else cls("off: this CUDA package records no graphs")

    def do(self, memory: DeviceMemory, stream: DeviceStream, work: Callable[[], None], *, again: bool) -> None:
        """Put the work on the stream, by a recording where there is one or can be.

        Args:
            memory: The device, active.
            stream: Where the work goes.
            work: Puts it there.
            again: The run before had the same shapes, as TensorRT wants it before a recording.
        """
        if self._graph is None and again and self.state == _WAITING:
            try:
                self._graph = memory.capture(stream, work)
                self.state = _RECORDED
            except UnavailableError as error:
                self.state = f"cannot be recorded: {error.message} {error.found or ''}".strip()
        self.runs += 1
        if self._graph is None:
            work()
            return
        self._graph.launch(stream)
        self.launched += 1

    def drop(self) -> None:
        """Let go of the recording: it holds shapes and addresses."""
        if self._graph is not None:
            self._graph.close()
            self._graph, self.state = None, _WAITING

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"state": self.state, "runs": self.runs, "launched": self.launched}
