"""Latency of engines beside each other, each in a process of its own.

Engines take turns in short blocks, and every other round in reverse, so that a machine that warms up or is busy for a
while treats them alike. They never share a process: threads of ONNX Runtime spin after a run and slow whoever runs
beside them, and a runtime that crashes must not take the measurement with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bench.options import LatencyOptions
from edgekit.bench.power.monitor import PowerMonitor, Turn
from edgekit.bench.process import Block, WorkerProcess, WorkerSettings, worker_command
from edgekit.bench.result import LatencyReport, LatencyResult
from edgekit.bench.worker import BlockRequest, OpenRequest
from edgekit.core.environment import environment_print
from edgekit.core.files import foreign_os_errors
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError

__all__ = ["LatencySubject", "measure_latency"]

# Different inputs keep a cache from answering for the memory; more than a handful change nothing.
_MOST_BATCHES = 8


@dataclass(frozen=True)
class LatencySubject:
    """What is measured.

    Attributes:
        engine: Registry name of the engine.
        artifact: The file it opens.
    """

    engine: str
    artifact: Path


def measure_latency(
    subjects: Mapping[str, LatencySubject],
    images: npt.NDArray[np.float32],
    options: LatencyOptions = LatencyOptions(),  # noqa: B008 - frozen
    observer: Observer = NULL_OBSERVER,
) -> LatencyReport:
    """Time engines beside each other; warm-up is not counted.

    Args:
        subjects: Name, such as "int8", to what is measured.
        images: float32 [M, 3, H, W], prepared as the engines expect; used in turn.
        options: How it is measured, and whether power is read beside it.
        observer: Told about each round, and about engines that kept the processor busy out of turn.

    Returns:
        Every time that was measured, in milliseconds, with the machine's description; and what each engine took of
        memory and, where it was asked for, of power.

    Raises:
        BadInputError: No subject, no image, or images that do not fit an engine.
        IntegrityError: An artifact is damaged.
        UnavailableError: An engine cannot run here, died or did not answer in time.
    """
    if not subjects or images.ndim != 4 or not len(images):
        raise BadInputError(
            "There is nothing to measure.",
            expected="at least one engine, and images float32 [M, 3, H, W]",
            found=f"{len(subjects)} engines, {images.dtype} {list(images.shape)}",
        )
    bench = _Bench(subjects, options, observer)
    monitor = PowerMonitor([subject.engine for subject in subjects.values()]) if options.power else None
    if monitor is None:
        bench.run(images)
    else:
        with monitor:
            monitor.rest()
            bench.run(images)
            monitor.rest()
    for name in sorted(bench.restless):
        observer.noted(
            f"The engine {name!r} kept the processor busy between its runs; others may look slower than they are."
        )
    results = {name: bench.result(name, monitor) for name in subjects}
    return LatencyReport(results, options, environment_print())


class _Bench:
    """Engines opened one after the other and timed in turns."""

    def __init__(self, subjects: Mapping[str, LatencySubject], options: LatencyOptions, observer: Observer) -> None:
        self._subjects, self._options, self._observer = subjects, options, observer
        self._infos: dict[str, Mapping[str, Any]] = {}
        self._blocks: dict[str, list[Block]] = {name: [] for name in subjects}
        self.restless: set[str] = set()

    def run(self, images: npt.NDArray[np.float32]) -> None:
        """Open, time and close them all."""
        with ExitStack() as stack:
            with foreign_os_errors(Path("the temporary folder"), "prepare a measurement"):
                scratch = Path(stack.enter_context(TemporaryDirectory(prefix="edgekit-bench-")))
                np.save(scratch / "images.npy", images[: _MOST_BATCHES * self._options.batch])
            workers: dict[str, WorkerProcess] = {}
            # Opened one after the other, so that no engine warms up beside another.
            for name, subject in self._subjects.items():
                # Names are the caller's and may hold anything; folders are numbered.
                settings = WorkerSettings(name, scratch / str(len(workers)), self._options.timeout_s, worker_command())
                settings.scratch.mkdir()
                workers[name] = stack.enter_context(WorkerProcess(settings))
                answer = workers[name].open(_open_request(subject, scratch / "images.npy", self._options))
                self._infos[name] = answer["info"]
                if not answer["quiet"]:
                    self.restless.add(name)
            self._take_turns(workers)

    def _take_turns(self, workers: Mapping[str, WorkerProcess]) -> None:
        options = self._options
        request = BlockRequest(options.lead_in, options.iterations, options.round_s)
        self._observer.advanced("latency", 0, options.rounds)
        for number in range(options.rounds):
            for name in list(workers) if number % 2 == 0 else reversed(list(workers)):
                block = workers[name].block(request)
                self._blocks[name].append(block)
                if not block.quiet:
                    self.restless.add(name)
            self._observer.advanced("latency", number + 1, options.rounds)

    def result(self, name: str, monitor: PowerMonitor | None) -> LatencyResult:
        """What was found of one engine, after everything ended."""
        blocks, batch = self._blocks[name], self._options.batch
        turns = [Turn(block.begun_s, block.ended_s, block.runs * batch) for block in blocks]
        return LatencyResult(
            engine=self._infos[name],
            batch=batch,
            rounds=tuple(block.samples_ms for block in blocks),
            quiet=name not in self.restless,
            # It only grows, so the last block tells that of all of them.
            peak_memory_bytes=blocks[-1].peak_memory_bytes,
            power=monitor.result(self._subjects[name].engine, turns) if monitor is not None else None,
        )


def _open_request(subject: LatencySubject, images: Path, options: LatencyOptions) -> OpenRequest:
    return OpenRequest(
        engine=subject.engine,
        artifact=str(subject.artifact.resolve()),
        images=str(images),
        batch=options.batch,
        threads=options.threads,
        warmup=options.warmup,
    )
