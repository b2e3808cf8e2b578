"""The half of a supervised process: it says how far it is and how it went, see `edgekit.core.supervised`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import TextIO

from edgekit.core.children import error_to_dict
from edgekit.core.progress import Observer
from edgekit.errors import EdgekitError

__all__ = ["tell_work"]


class _Teller:
    """An observer that writes what it is told as lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def say(self, **document: object) -> None:
        """One line."""
        self._stream.write(json.dumps(document) + "\n")
        self._stream.flush()

    def stage_started(self, stage: str) -> None:
        self.say(said="stage_started", stage=stage)

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        self.say(said="stage_finished", stage=stage, skipped=skipped, seconds=seconds, summary=summary)

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        self.say(said="advanced", task=task, done=done, total=total, detail=detail)

    def noted(self, message: str) -> None:
        self.say(said="noted", message=message)


def tell_work(work: Callable[[Observer], None]) -> int:
    """Do work and tell of it on standard output; returns the exit code."""
    # Runtimes print to standard output as they please; what is said travels on a descriptor of its own.
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    teller = _Teller(stream)
    try:
        work(teller)
    except EdgekitError as error:
        teller.say(ended=error_to_dict(error))
        return int(error.exit_code)
    teller.say(ended=None)
    return 0
