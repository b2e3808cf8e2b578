"""What the builder tells of its progress, passed on to our observer, where the version tells it (10.0 and later)."""

from __future__ import annotations

from typing import Any

from edgekit.core.progress import Observer
from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.messages import Messages

__all__ = ["make_monitor"]


def make_monitor(tensorrt: TensorRt, observer: Observer, messages: Messages) -> Any | None:
    """An `IProgressMonitor`, or None where this version has none. It has to live until the build is done.

    Phases lie within each other; the outermost is the task whose steps are counted, and the innermost is its detail.
    What is raised meanwhile, such as Ctrl-C, ends the build at its next step and is kept as `messages.interruption`.
    """
    if not tensorrt.has("IProgressMonitor") or not tensorrt.has("IBuilderConfig.progress_monitor"):
        return None
    base: Any = tensorrt.module.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._steps: dict[str, tuple[int, int]] = {}
            self._outer: str | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = (0, int(num_steps))
            if not parent_phase:
                self._outer = phase_name
            self._tell("" if phase_name == self._outer else phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            _, steps = self._steps.get(phase_name, (0, 0))
            self._steps[phase_name] = (int(step) + 1, steps)
            self._tell("" if phase_name == self._outer else phase_name)
            # False ends the build.
            return messages.interruption is None

        def phase_finish(self, phase_name: str) -> None:
            _, steps = self._steps.get(phase_name, (0, 0))
            self._steps[phase_name] = (steps, steps)
            self._tell("")

        def _tell(self, detail: str) -> None:
            if self._outer is None:
                return
            done, steps = self._steps[self._outer]
            try:
                observer.advanced(f"TensorRT: {self._outer}", min(done, steps), steps, detail)
            except BaseException as interruption:
                # Raised into the library, it would end the process.
                messages.interruption = interruption

    return Monitor()
