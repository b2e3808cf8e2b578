"""Watching the process that builds and verifies: what it says, whether it still lives, and when to give up."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from typing import IO, Any

from edgekit.core.children import child_environment, error_from_dict
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import DefectError, UnavailableError

__all__ = ["supervised", "worker_command"]

_STDERR_TAIL = 2000
_GRACE_S = 10.0


def worker_command() -> tuple[str, ...]:
    """The command that starts the worker with this interpreter."""
    return (sys.executable, "-m", "edgekit.device.worker")


def supervised(
    bundle: Path,
    output: Path,
    silence_s: float,
    observer: Observer = NULL_OBSERVER,
    command: Sequence[str] | None = None,
) -> None:
    """Have the work done in a process of its own.

    Args:
        bundle: The candidate.
        output: Where engines and scores go.
        silence_s: Seconds without a sign of life after which the process is ended.
        observer: Told what the process says.
        command: Another worker's command, for tests.

    Raises:
        EdgekitError: What the work raised there.
        UnavailableError: The process hung, or ended without a word, as a library does that crashes.
    """
    with TemporaryDirectory(prefix="edgekit-device-") as scratch:
        words = [*(command or worker_command()), str(bundle.resolve()), str(output.resolve())]
        stderr = Path(scratch) / "stderr.txt"
        process = _start(words, Path(scratch), stderr)
        assert process.stdout is not None
        lines: Queue[str | None] = Queue()
        # Reading blocks and has no timeout on every system; a thread of its own can be waited for.
        reader = threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            _listen(process, lines, silence_s, observer, stderr)
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
    process: subprocess.Popen[str], lines: Queue[str | None], silence_s: float, observer: Observer, stderr: Path
) -> None:
    while True:
        try:
            line = lines.get(timeout=silence_s)
        except Empty:
            raise UnavailableError(
                "TensorRT gave no sign of life, and its process was ended.",
                expected=f"progress, or an end, within {silence_s:g} seconds",
                found="a process that still ran",
                hint="look at the kernel's log (dmesg) and restart the device; a large network on a small module may "
                "need longer: give --patience more seconds",
            ) from None
        if line is None:
            raise _died(process, stderr)
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


def _died(process: subprocess.Popen[str], stderr: Path) -> UnavailableError:
    try:
        code: object = process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        code = "none yet"
    tail = stderr.read_bytes()[-_STDERR_TAIL:].decode("utf-8", "replace").strip()
    return UnavailableError(
        "The process that builds ended before its work was done.",
        expected="engines and scores, or an error that says why not",
        found=f"exit code {code}; " + (f"it last said:\n{tail}" if tail else "it said nothing"),
        hint="a code of -9 or 137 is the kernel's, for want of memory: close other programs; -11 is a crash of the "
        "library",
    )
