"""The observers of the command line: live bars on a terminal, plain lines in a log, both on standard error.

Standard output belongs to results. Observers never raise: a log that cannot be written must not end the work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from edgekit.core.progress import Observer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["PlainObserver", "RichObserver", "make_observer"]

_SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def make_observer(quiet: bool) -> Iterator[Observer]:
    """The observer that suits where standard error goes, live until the block ends.

    Args:
        quiet: Progress is not shown; notes still are, since they say that something is not as it was asked for.
    """
    if quiet:
        yield PlainObserver(progress=False)
    elif _is_live_terminal() and find_spec("rich") is not None:
        observer = RichObserver()
        try:
            yield observer
        finally:
            observer.close()
    else:
        yield PlainObserver()


def _is_live_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def _outcome(skipped: bool, seconds: float) -> str:
    return "unchanged, not done again" if skipped else f"done in {seconds:.1f} s"


def _note(message: str) -> str:
    return f"note: {message}"


class PlainObserver:
    """One line for each event, and for long tasks about one every five seconds.

    Args:
        progress: False shows notes only.
        clock: Seconds, monotonic.
        write: Receives one line without its newline.
    """

    def __init__(
        self,
        *,
        progress: bool = True,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self._progress = progress
        self._clock = clock
        self._write = write or (lambda line: click.echo(line, err=True))
        self._last: dict[str, tuple[float, int]] = {}

    def stage_started(self, stage: str) -> None:
        """Say so."""
        self._say(f"{stage}: started", progress=True)

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        """Say how it ended."""
        self._say(f"{stage}: {_outcome(skipped, seconds)}{': ' if summary else ''}{summary}", progress=True)

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        """Say so at the start, at the end, and in between when the last line is old."""
        now = self._clock()
        when, before = self._last.get(task, (float("-inf"), 0))
        # A task that goes back to a lower count begins again under the same name.
        begins = task not in self._last or done < before
        ends = total is not None and done >= total
        if begins or ends or now - when >= _SECONDS_BETWEEN_LINES:
            count = f"{done}" if total is None else f"{done}/{total}"
            self._say(f"  {task}: {count}{' ' if detail else ''}{detail}", progress=True)
            when = now
        self._last[task] = (when, done)

    def noted(self, message: str) -> None:
        """Say it."""
        self._say(_note(message), progress=False)

    def _say(self, line: str, *, progress: bool) -> None:
        if self._progress or not progress:
            with suppress(OSError, ValueError):
                self._write(line)


class RichObserver:
    """A bar for each running task under the list of finished stages."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._bars: Progress = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._bars.start()

    def stage_started(self, stage: str) -> None:
        """Show a bar of unknown length until the stage says more."""
        self._clear()
        self._tasks[stage] = self._bars.add_task(stage, total=None, detail="")

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        """Replace the bars by one line."""
        self._clear()
        text = f"{stage:<10} {_outcome(skipped, seconds)}{': ' if summary else ''}{summary}"
        self._print(text, "dim" if skipped else "green")

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        """Move the task's bar."""
        with suppress(OSError, ValueError):
            if task not in self._tasks:
                self._tasks[task] = self._bars.add_task(task, total=total, detail=detail)
            self._bars.update(self._tasks[task], completed=done, total=total, detail=detail)

    def noted(self, message: str) -> None:
        """Print the note above the bars."""
        self._print(_note(message), "yellow")

    def close(self) -> None:
        """Take the bars off the screen. May be called twice."""
        with suppress(OSError, ValueError):
            self._bars.stop()

    def _clear(self) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._tasks.clear()

    def _print(self, text: str, style: str) -> None:
        with suppress(OSError, ValueError):
            self._bars.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)
