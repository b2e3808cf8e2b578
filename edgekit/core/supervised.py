"""Watching a process of edgekit's own that works: what it says, whether it still lives, and when to give up.

The process says on standard output, one JSON document a line, what an observer is told (`{"said": ...}`) and once, at
the end, how it went (`{"ended": ...}`); `edgekit.core.telling` is its half.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from typing import IO, Any

from edgekit.core.children import child_environment, error_from_dict
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import DefectError, UnavailableError

__all__ = ["Patience", "run_supervised"]

_STDERR_TAIL = 2000
_GRACE_S = 10.0


@dataclass(frozen=True)
class Patience:
    """How long a process is waited for, and what is said when it is not any more.

    Attributes:
        seconds: Above 0.
        whole: They count from the start; otherwise from the last sign of life.
        message: Of the error.
        expected: Of the error.
        hint: Of the error.
    """

    seconds: float
    whole: bool
    message: str
    expected: str
    hint: str

    def left(self, begun: float) -> float:
        """Seconds that the next sign of life may take."""
        return max(0.0, begun + self.seconds - time.monotonic()) if self.whole else self.seconds


def run_supervised(
    words: Sequence[str], patience: Patience, observer: Observer = NULL_OBSERVER, *, expected: str
) -> None:
    """Have work done in a process of its own.

    Args:
        words: The command.
        patience: When it is ended.
        observer: Told what the process says.
        expected: What it makes, for messages.

    Raises:
        EdgekitError: What the work raised there.
        UnavailableError: The process hung, or ended without a word, as a library does that crashes.
    """
    with TemporaryDirectory(prefix="edgekit-work-") as scratch:
        stderr = Path(scratch) / "stderr.txt"
        process = _start(words, Path(scratch), stderr)
        assert process.stdout is not None
        lines: Queue[str | None] = Queue()
        # Reading blocks and has no timeout on every system; a thread of its own can be waited for.
        reader = threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            _listen(process, lines, patience, observer, (stderr, expected))
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()


def _start(words: Sequence[str], scratch: Path, stderr: Path) -> subprocess.Popen[str]:
    try:
        with stderr.open("wb") as errors:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                # Modules that lie in the user's folder must not be imported in place of the installed ones.
                cwd=scratch,
                env=child_environment(),
                encoding="utf-8",
            )
    except OSError as cause:
        raise UnavailableError(
            "A process that builds could not be started.",
            expected=words[0],
            found=str(cause),
            hint="run 'edgekit doctor', and close other programs where memory is short",
        ) from cause


def _listen(
    process: subprocess.Popen[str],
    lines: Queue[str | None],
    patience: Patience,
    observer: Observer,
    about: tuple[Path, str],
) -> None:
    begun = time.monotonic()
    while True:
        try:
            line = lines.get(timeout=patience.left(begun))
        except Empty:
            raise UnavailableError(
                patience.message,
                expected=patience.expected,
                found="a process that still ran",
                hint=patience.hint,
            ) from None
        if line is None:
            raise _died(process, *about)
        document = _document(line)
        if "ended" in document:
            if document["ended"] is not None:
                raise error_from_dict(document["ended"])
            return
        _pass_on(document, observer)


def _pump(stream: IO[str], lines: Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _document(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as cause:
        raise DefectError("The process that builds said something that cannot be read.", found=line[:500]) from cause
    if not isinstance(found, dict):
        raise DefectError("The process that builds said something that cannot be read.", found=line[:500])
    return found


def _pass_on(document: dict[str, Any], observer: Observer) -> None:
    said = document.pop("said", None)
    if said == "stage_started":
        observer.stage_started(document["stage"])
    elif said == "stage_finished":
        observer.stage_finished(**document)
    elif said == "advanced":
        observer.advanced(document["task"], document["done"], document["total"], document["detail"])
    elif said == "noted":
        observer.noted(document["message"])
    else:
        raise DefectError("The process that builds said something unexpected.", found=repr(document)[:500])


def _died(process: subprocess.Popen[str], stderr: Path, expected: str) -> UnavailableError:
    try:
        code: object = process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        code = "none yet"
    tail = stderr.read_bytes()[-_STDERR_TAIL:].decode("utf-8", "replace").strip()
    return UnavailableError(
        "The process that builds ended before its work was done.",
        expected=f"{expected}, or an error that says why not",
        found=f"exit code {code}; " + (f"it last said:\n{tail}" if tail else "it said nothing"),
        hint="a code of -9 or 137 is the kernel's, for want of memory: close other programs; -6 and -11 are a crash of "
        "the library",
    )
