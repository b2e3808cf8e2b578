"""A build with a limit on its time, in a process of its own: TensorRT can neither be asked to hurry nor be interrupted.

Versions before 10 tell of no progress, and a builder that hangs in the driver never returns. A process can be ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.supervised import Patience, run_supervised
from edgekit.core.telling import tell_work
from edgekit.engines.tensorrt.build import build_plan
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.plan_file import PlanHeader, read_plan
from edgekit.engines.tensorrt.running import RunOptions

__all__ = ["build_within_limit", "main", "worker_command"]

_PATHS = ("timing_cache", "calibration_cache", "scales", "half_graph")
_TUPLES = ("batches", "tactic_sources")


def worker_command() -> tuple[str, ...]:
    """The command that starts the building process with this interpreter."""
    return (sys.executable, "-m", "edgekit.engines.tensorrt.limited_build")


def build_within_limit(
    graph: Path, artifact: Path, options: BuildOptions, observer: Observer = NULL_OBSERVER
) -> PlanHeader:
    """As `build_plan`; where `options.time_limit_s` is above 0 in a process of its own, which is ended after that time.

    Raises:
        EdgekitError: As `build_plan`.
        UnavailableError: The time is up, or the process ended without a word.
    """
    limit = options.time_limit_s
    if limit == 0:
        return build_plan(graph, artifact, options, observer)
    patience = Patience(
        limit,
        whole=True,
        message="TensorRT took longer for an engine than it is allowed, and its process was ended.",
        expected=f"an engine within {limit} seconds",
        hint="raise tensorrt.time_limit_s (0 is no limit), lower tensorrt.optimisation_level, or keep the timing cache "
        "(tensorrt.timing_cache): a second build need not time the same kernels; where nothing helps, look at the "
        "kernel's log (dmesg) for a driver that hangs",
    )
    # The process starts in a folder of its own.
    told = {key: str(value.resolve()) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    words = [*worker_command(), str(graph.resolve()), str(artifact.resolve()), json.dumps(told)]
    run_supervised(words, patience, observer, expected="an engine")
    return read_plan(artifact)[0]


def main(arguments: Sequence[str]) -> int:
    """Build a graph (first argument) into a file (second) as the options say (third, JSON); returns the exit code."""
    raw: dict[str, Any] = json.loads(arguments[2])
    for key in _PATHS:
        raw[key] = None if raw[key] is None else Path(raw[key])
    for key in _TUPLES:
        raw[key] = None if raw[key] is None else tuple(raw[key])
    raw["run"] = RunOptions(**raw["run"])
    options = replace(BuildOptions(), **raw)
    return tell_work(lambda observer: _work(Path(arguments[0]), Path(arguments[1]), options, observer))


def _work(graph: Path, artifact: Path, options: BuildOptions, observer: Observer) -> None:
    build_plan(graph, artifact, options, observer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
