"""The parent's side of a process that times one engine."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import IO, Any

from edgekit.bench.worker import BlockRequest, OpenRequest
from edgekit.core.canonical import parse_strict
from edgekit.core.children import child_environment, error_from_dict
from edgekit.errors import DefectError, IntegrityError, UnavailableError

__all__ = ["Block", "WorkerProcess", "WorkerSettings", "worker_command"]

_CLOSE_TIMEOUT_S = 5.0
_STDERR_TAIL = 2000
_BLOCK_ANSWER: Mapping[str, tuple[type, ...]] = {
    "samples_ms": (list,),
    "runs": (int,),
    "begun_s": (float,),
    "ended_s": (float,),
    "peak_memory_bytes": (int, type(None)),
    "quiet": (bool,),
}


def worker_command() -> tuple[str, ...]:
    """The command that starts a worker with this interpreter."""
    return (sys.executable, "-m", "edgekit.bench.worker")


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker is started.

    Attributes:
        name: What it times, for messages.
        scratch: An existing folder of ours, its working directory: modules that lie in the user's must not be
            imported in place of the installed ones.
        timeout_s: Longest wait for an answer, seconds.
        command: The program and its arguments.
    """

    name: str
    scratch: Path
    timeout_s: float
    command: Sequence[str]


@dataclass(frozen=True)
class Block:
    """What one block of runs was.

    Attributes:
        samples_ms: Milliseconds of each timed run.
        runs: Timed runs and those after them, without the lead-in.
        begun_s: Start of the first of them, on `time.monotonic`'s clock.
        ended_s: End of the last.
        peak_memory_bytes: See `edgekit.bench.memory.peak_memory_bytes`; so far, of the process that ran them.
        quiet: Whether the process was quiet afterwards.
    """

    samples_ms: tuple[float, ...]
    runs: int
    begun_s: float
    ended_s: float
    peak_memory_bytes: int | None
    quiet: bool


class WorkerProcess:
    """One engine in a process of its own. A context manager: leaving it ends the process, whatever it is doing."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._stderr_path = settings.scratch / "stderr.txt"
        self._answers: Queue[str | None] = Queue()
        self._process = self._start()
        # Reading blocks and has no timeout on every system; a thread of its own can be waited for.
        self._reader = threading.Thread(target=_pump, args=(self._process.stdout, self._answers), daemon=True)
        self._reader.start()

    def _start(self) -> subprocess.Popen[str]:
        try:
            with self._stderr_path.open("wb") as stderr:
                return subprocess.Popen(
                    list(self._settings.command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    cwd=self._settings.scratch,
                    env=child_environment(),
                    encoding="utf-8",
                )
        except OSError as cause:
            raise UnavailableError(
                f"A process for the engine {self._settings.name!r} could not be started.", found=str(cause)
            ) from cause

    def open(self, request: OpenRequest) -> dict[str, Any]:
        """Open the engine and warm it up; returns its info, and "quiet".

        Raises:
            EdgekitError: What the engine raised there.
            UnavailableError: The process died, or did not answer in time.
        """
        return self._ask("open", asdict(request), {"info": (dict,), "quiet": (bool,)})

    def block(self, request: BlockRequest) -> Block:
        """Time a block. Raises like `open`."""
        asked = time.monotonic()
        answer = self._ask("block", asdict(request), _BLOCK_ANSWER)
        block = Block(**{**answer, "samples_ms": tuple(answer["samples_ms"])})
        sound = (
            len(block.samples_ms) == request.iterations <= block.runs
            and all(isinstance(item, float) and item > 0 for item in block.samples_ms)
            # Readings of power are told apart by this clock: a process that has another one is out of step.
            and asked <= block.begun_s < block.ended_s <= time.monotonic()
            and (block.peak_memory_bytes is None or block.peak_memory_bytes > 0)
        )
        if not sound:
            raise self._out_of_step(answer)
        return block

    def _ask(self, verb: str, arguments: Mapping[str, Any], promised: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
        self._tell({"request": verb, **arguments})
        try:
            line = self._answers.get(timeout=self._settings.timeout_s)
        except Empty:
            raise UnavailableError(
                f"The engine {self._settings.name!r} did not answer in time.",
                expected=f"an answer within {self._settings.timeout_s:g} seconds",
                hint="measure fewer iterations, or allow more time",
            ) from None
        if line is None:
            raise self._died()
        try:
            answer = parse_strict(line.encode("utf-8"), where=self._settings.name)
        except IntegrityError as cause:
            raise self._out_of_step(line) from cause
        if isinstance(answer, dict) and answer.get("ok") is False:
            raise error_from_dict(answer)
        if not (
            isinstance(answer, dict)
            and answer.pop("ok", None) is True
            and set(answer) == set(promised)
            and all(isinstance(answer[key], kind) for key, kind in promised.items())
        ):
            raise self._out_of_step(answer)
        return answer

    def _tell(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as cause:
            raise self._died() from cause

    def _died(self) -> UnavailableError:
        try:
            code: object = self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = "none yet"
        tail = self._stderr_path.read_bytes()[-_STDERR_TAIL:].decode("utf-8", "replace").strip()
        return UnavailableError(
            f"The process that timed the engine {self._settings.name!r} ended before its work was done.",
            found=f"exit code {code}; " + (f"it last said:\n{tail}" if tail else "it said nothing"),
        )

    def _out_of_step(self, answer: object) -> DefectError:
        return DefectError(
            f"The process that times the engine {self._settings.name!r} answered something unexpected.",
            found=repr(answer)[:500],
        )

    def close(self) -> None:
        """End the process. May be called twice."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # The end of its input tells an idle worker to leave. One that is dead already leaves a broken pipe.
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def __enter__(self) -> WorkerProcess:
        """The process itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process, at once after an error."""
        if kind is not None:
            self._process.kill()
        self.close()


def _pump(stream: IO[str], answers: Queue[str | None]) -> None:
    for line in stream:
        answers.put(line)
    answers.put(None)
