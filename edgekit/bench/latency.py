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

import numpy as np
import numpy.typing as npt

from edgekit.bench.options import LatencyOptions
from edgekit.bench.process import WorkerProcess, WorkerSettings, worker_command
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
        options: How it is measured.
        observer: Told about each round, and about engines that kept the processor busy out of turn.

    Returns:
        Every time that was measured, in milliseconds, with the machine's description.

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
    restless: set[str] = set()
    with ExitStack() as stack:
        with foreign_os_errors(Path("the temporary folder"), "prepare a measurement"):
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix="edgekit-bench-")))
            np.save(scratch / "images.npy", images[: _MOST_BATCHES * options.batch])
        workers: dict[str, WorkerProcess] = {}
        infos = {}
        # Opened one after the other, so that no engine warms up beside another.
        for name, subject in subjects.items():
            # Names are the caller's and may hold anything; folders are numbered.
            settings = WorkerSettings(name, scratch / str(len(workers)), options.timeout_s, worker_command())
            settings.scratch.mkdir()
            workers[name] = stack.enter_context(WorkerProcess(settings))
            answer = workers[name].open(_open_request(subject, scratch / "images.npy", options))
            infos[name] = answer["info"]
            if not answer["quiet"]:
                restless.add(name)
        rounds = _rounds(workers, options, observer, restless)
    for name in sorted(restless):
        observer.noted(
            f"The engine {name!r} kept the processor busy between its runs; others may look slower than they are."
        )
    return LatencyReport(
        results={
            name: LatencyResult(infos[name], options.batch, tuple(rounds[name]), name not in restless)
            for name in subjects
        },
        options=options,
        environment=environment_print(),
    )


def _rounds(
    workers: Mapping[str, WorkerProcess], options: LatencyOptions, observer: Observer, restless: set[str]
) -> dict[str, list[tuple[float, ...]]]:
    """The times of every round, by name; names of engines that were not quiet afterwards are added to `restless`."""
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in workers}
    request = BlockRequest(options.lead_in, options.iterations)
    observer.advanced("latency", 0, options.rounds)
    for number in range(options.rounds):
        for name in list(workers) if number % 2 == 0 else reversed(list(workers)):
            samples, quiet = workers[name].block(request)
            rounds[name].append(samples)
            if not quiet:
                restless.add(name)
        observer.advanced("latency", number + 1, options.rounds)
    return rounds


def _open_request(subject: LatencySubject, images: Path, options: LatencyOptions) -> OpenRequest:
    return OpenRequest(
        engine=subject.engine,
        artifact=str(subject.artifact.resolve()),
        images=str(images),
        batch=options.batch,
        threads=options.threads,
        warmup=options.warmup,
    )
