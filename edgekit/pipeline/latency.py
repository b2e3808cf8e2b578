"""The latency stage: the candidates timed side by side on this machine, once for each pair of artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bench.latency import LatencySubject, measure_latency
from edgekit.bench.options import LatencyOptions
from edgekit.bundle.golden import read_golden
from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.environment import environment_print
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.engines.protocol import EngineOptions
from edgekit.interface.preprocess import preprocess

__all__ = ["LATENCY_NAME", "LatencyRequest", "latency"]

LATENCY_NAME = "latency.json"
_VERSION = 1
_ROUNDS = 10
_IMAGES = 8


@dataclass(frozen=True)
class LatencyRequest:
    """What is timed.

    Attributes:
        engine: Registry name of the engine.
        artifacts: Candidate name to artifact; "int8" and "fp32".
        golden: Folder of the golden set, whose first images are used.
        options: How engines run.
        runs: Timed runs of each.
    """

    engine: str
    artifacts: Mapping[str, Path]
    golden: Path
    options: EngineOptions
    runs: int


def latency(request: LatencyRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Time the candidates in turns at batch 1 and write `latency.json`.

    Raises:
        UnavailableError: An engine died or did not answer.
    """
    how = LatencyOptions(
        warmup=request.runs,
        rounds=min(_ROUNDS, request.runs),
        iterations=-(-request.runs // _ROUNDS),
        threads=request.options.threads,
    )
    options: dict[str, JsonValue] = {"engine": request.engine, "how": how.to_dict(), "environment": environment_print()}
    stage = Stage("latency", _VERSION, options, {**request.artifacts, "golden": request.golden})

    def body(folder: Path) -> Mapping[str, Any]:
        golden = read_golden(request.golden)
        images = preprocess(golden.pixels[:_IMAGES], golden.card.input)
        subjects = {name: LatencySubject(request.engine, path) for name, path in request.artifacts.items()}
        report = measure_latency(subjects, images, how, observer)
        write_json(folder / LATENCY_NAME, report.to_dict())
        ratio = report.ratio("int8", "fp32")
        medians = {name: result.percentile_ms(50) for name, result in report.results.items()}
        return {
            "p50_ms": medians,
            "int8_over_fp32": ratio.to_dict(),
            "summary": f"int8 {medians['int8']:.3f} ms, fp32 {medians['fp32']:.3f} ms, ratio {ratio.median:.2f}",
        }

    return run_stage(stage, destination, body, observer)
