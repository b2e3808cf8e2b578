"""A worker as a child process: started in its own Python, asked line by line, ended with what it said last."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Child", "NotRunError"]

_LONGEST = 300
# Where a machine keeps things is nobody else's business, and changes from run to run.
_FOLDERS = re.compile(r"(?:/[\w.@+\-]+)+/(?=[\w.@+\-])")


class NotRunError(Exception):
    """A tool is missing or failed; the message says why, for the table: one line, paths cut to their last part."""

    def __init__(self, reason: str) -> None:
        said = _FOLDERS.sub("", " ".join(reason.split())).replace("|", "/")
        # Long messages say where it happened at their beginning and what happened at their end.
        super().__init__(said if len(said) <= _LONGEST else f"{said[: _LONGEST // 3]} ... {said[-_LONGEST // 2 :]}")


class Child:
    """One worker of `workers/`, in a context.

    Args:
        python: Interpreter of its environment.
        script: The worker.
        request: What it reads; see `workers/serving.py`.
        folder: For its request and for what it prints.
        imports: Folder that it may import from, beside its own environment; None for nothing.
        seconds: It is killed where one answer takes longer.

    Raises:
        NotRunError: On entry and when asked: it is not there, or it ended.
    """

    def __init__(
        self,
        python: str,
        script: Path,
        request: Mapping[str, Any],
        folder: Path,
        imports: Path | None = None,
        seconds: float = 1800.0,
    ) -> None:
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if imports is not None:
            self._environment["PYTHONPATH"] = str(imports)
        self._python, self._script, self._request = python, script, request
        self._folder, self._seconds = folder, seconds
        self._printed = folder / f"{script.stem}.log"
        self.told: Mapping[str, Any] = {}

    def __enter__(self) -> Child:
        if shutil.which(self._python) is None:
            raise NotRunError(f"no Python of its environment at the place that was named ({self._script.stem})")
        self._folder.mkdir(parents=True, exist_ok=True)
        request = self._folder / f"{self._script.stem}.json"
        request.write_text(json.dumps(dict(self._request)), encoding="utf-8")
        with self._printed.open("wb") as printed:
            self._process = subprocess.Popen(
                [self._python, str(self._script), str(request)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                text=True,
                env=self._environment,
            )
        try:
            self.told = self._line()
        except NotRunError:
            self.__exit__(None, None, None)
            raise
        return self

    def ask(self, question: str) -> dict[str, Any]:
        """Send a line and wait for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{question}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise NotRunError(self._last_words()) from None
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(self._seconds, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise NotRunError(self._last_words())
        return dict(json.loads(line))

    def _last_words(self) -> str:
        self._process.wait()
        said = self._printed.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        ended = f"ended with {self._process.returncode}" if self._process.returncode >= 0 else "killed"
        return f"{ended}: {said[-1]}" if said else ended

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
