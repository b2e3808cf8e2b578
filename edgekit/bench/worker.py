"""The process that times one engine. It is told what to do on standard input and answers on standard output.

One JSON document a line each way. Three requests: "open" opens and warms up an engine, "block" times a number of runs,
"close" ends the process, and so does the end of the input. Every request names exactly the keys of the dataclass it
becomes. An answer holds "ok": true and the result, or "ok": false and an error of the edgekit family, after which the
process ends.

It is started by `edgekit.bench.process`, never by people.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import OWN_CLASS
from edgekit.bench.memory import peak_memory_bytes
from edgekit.core.canonical import parse_strict
from edgekit.core.children import error_to_dict
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.registry import ENGINES
from edgekit.errors import DefectError, EdgekitError

__all__ = ["BlockRequest", "OpenRequest", "main", "wait_until_quiet"]

# Threads of ONNX Runtime were seen to spin for up to 20 ms after a run (2 cores, onnxruntime 1.31). Rather than trust
# one machine's number, the process watches its own processor time until it stands still; the window is long enough for
# a spinning thread to get its share of a processor that others use too.
_QUIET_WINDOW_S = 0.04
_QUIET_SHARE = 0.05
_QUIET_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class OpenRequest:
    """Open an engine.

    Attributes:
        engine: Registry name.
        artifact: Absolute path of the artifact.
        images: Absolute path of a .npy file, float32 [M, 3, H, W], that runs take their batches from in turn.
        batch: Images a run.
        threads: See `EngineOptions`.
        warmup: Untimed runs.
    """

    engine: str
    artifact: str
    images: str
    batch: int
    threads: int
    warmup: int


@dataclass(frozen=True)
class BlockRequest:
    """Time a block of runs.

    Attributes:
        lead_in: Untimed runs before the timed ones.
        iterations: Timed runs.
        least_s: The block goes on, untimed, until this many seconds have passed since its first timed run.
    """

    lead_in: int
    iterations: int
    least_s: float = 0.0


class _Load:
    """An open engine and the batches it is fed with, in turn."""

    def __init__(self, request: OpenRequest) -> None:
        engine = ENGINES.load(request.engine)
        self.runner: Runner = engine.open(Path(request.artifact), EngineOptions(threads=request.threads))
        images: npt.NDArray[np.float32] = np.load(request.images, allow_pickle=False)
        count = -(-len(images) // request.batch)
        order = np.arange(count * request.batch) % len(images)
        self._batches = [np.ascontiguousarray(images[picked]) for picked in order.reshape(count, request.batch)]
        self._classes = np.full(request.batch, OWN_CLASS, dtype=np.int32)
        self._turn = 0
        self.run(request.warmup)

    def run(self, times: int) -> list[float]:
        """Milliseconds of each of so many runs: from handing over a prepared batch to holding its answers."""
        samples = []
        for _ in range(times):
            batch = self._batches[self._turn % len(self._batches)]
            self._turn += 1
            begun = time.perf_counter_ns()
            self.runner.run(batch, self._classes)
            samples.append((time.perf_counter_ns() - begun) / 1e6)
        return samples

    def block(self, request: BlockRequest) -> dict[str, Any]:
        """Time a block. Its beginning and end are on the clock that all processes of a machine share."""
        self.run(request.lead_in)
        begun, first = time.monotonic(), self._turn
        samples = self.run(request.iterations)
        while time.monotonic() - begun < request.least_s:
            self.run(1)
        return {
            "samples_ms": samples,
            "runs": self._turn - first,
            "begun_s": begun,
            "ended_s": time.monotonic(),
            "peak_memory_bytes": peak_memory_bytes(),
        }


def wait_until_quiet() -> bool:
    """Wait until this process stops using the processor. False when it did not within two seconds.

    An engine whose threads still spin would be measured as slowness of the engine beside it.
    """
    deadline = time.monotonic() + _QUIET_TIMEOUT_S
    while time.monotonic() < deadline:
        used, begun = time.process_time(), time.monotonic()
        time.sleep(_QUIET_WINDOW_S)
        if time.process_time() - used < _QUIET_SHARE * (time.monotonic() - begun):
            return True
    return False


def _answer(request: Mapping[str, Any], load: _Load | None) -> tuple[dict[str, Any], _Load | None]:
    """The answer to a request, and the engine that is open after it."""
    wanted = dict(request)
    verb = wanted.pop("request", None)
    if verb == "open" and load is None:
        load = _Load(OpenRequest(**wanted))
        return {"info": load.runner.info.to_dict(), "quiet": wait_until_quiet()}, load
    if verb == "block" and load is not None:
        return {**load.block(BlockRequest(**wanted)), "quiet": wait_until_quiet()}, load
    raise DefectError("A process that times an engine was asked for something it cannot do.", found=repr(request))


def _serve(requests: TextIO, answers: TextIO) -> int:
    load: _Load | None = None
    # Nothing here makes reference cycles; a collection in the middle of a run would only be noise.
    gc.disable()
    try:
        for line in requests:
            try:
                request = parse_strict(line.encode("utf-8"), where="a request")
                if request == {"request": "close"}:
                    return 0
                answer, load = _answer(request, load)
            except EdgekitError as error:
                _say(answers, {"ok": False, **error_to_dict(error)})
                return int(error.exit_code)
            _say(answers, {"ok": True, **answer})
    finally:
        if load is not None:
            load.runner.close()
    return 0


def _say(answers: TextIO, document: Mapping[str, Any]) -> None:
    answers.write(json.dumps(document, allow_nan=False) + "\n")
    answers.flush()


def main() -> int:
    """Serve requests until told to close; returns the exit code."""
    # Runtimes print to standard output as they please; the answers travel on a descriptor of their own.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with answers:
        return _serve(sys.stdin, answers)


if __name__ == "__main__":
    sys.exit(main())
