"""The latency stage: the candidates timed side by side on this machine, once for each set of artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bench.latency import LatencySubject, measure_latency
from edgekit.bench.options import LatencyOptions
from edgekit.bench.power.record import PowerNotMeasured
from edgekit.bench.power.registry import PowerSource, find_power_sources
from edgekit.bench.result import LatencyRatio, LatencyReport
from edgekit.bundle.golden import read_golden
from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.environment import environment_print
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.engines.protocol import EngineOptions
from edgekit.interface.preprocess import preprocess
from edgekit.pipeline.candidates import CandidateId, float_partner
from edgekit.policy.policy import Policy
from edgekit.verify.beside import power_round_s

__all__ = ["LATENCY_NAME", "LatencyRequest", "latency"]

LATENCY_NAME = "latency.json"
_VERSION = 3
_ROUNDS = 10
_IMAGES = 8


@dataclass(frozen=True)
class LatencyRequest:
    """What is timed.

    Attributes:
        candidates: Every precision on every engine, the preferred first.
        artifacts: Candidate name to artifact.
        golden: Folder of the golden set, whose first images are used.
        options: How engines run.
        runs: Timed runs of each.
        policy: What is demanded: of power or energy, engines run long enough for a sensor to see them.
    """

    candidates: tuple[CandidateId, ...]
    artifacts: Mapping[str, Path]
    golden: Path
    options: EngineOptions
    runs: int
    policy: Policy


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
        power=True,
        round_s=power_round_s(request.policy),
    )
    engines = {item.name: item.engine for item in request.candidates}
    options: dict[str, JsonValue] = {
        "engines": dict(engines),
        "how": how.to_dict(),
        "environment": environment_print(),
        # What could not be read yesterday may be readable today, and is measured then.
        "sensors": [item.name for item in find_power_sources() if isinstance(item, PowerSource)],
    }
    stage = Stage("latency", _VERSION, options, {**request.artifacts, "golden": request.golden})

    def body(folder: Path) -> Mapping[str, Any]:
        golden = read_golden(request.golden)
        images = preprocess(golden.pixels[:_IMAGES], golden.card.input)
        subjects = {name: LatencySubject(engines[name], path) for name, path in request.artifacts.items()}
        report = measure_latency(subjects, images, how, observer)
        write_json(folder / LATENCY_NAME, report.to_dict())
        if how.round_s:
            _tell_what_is_missing(report, observer)
        return _facts(request.candidates, report)

    return run_stage(stage, destination, body, observer)


def _tell_what_is_missing(report: LatencyReport, observer: Observer) -> None:
    """The policy demands power or energy: a reader of its verdict wants to know why there is none."""
    reasons = {item.power.reason for item in report.results.values() if isinstance(item.power, PowerNotMeasured)}
    for reason in sorted(reasons):
        observer.noted(f"The policy demands power or energy, which was not measured: {reason}.")


def _facts(candidates: Sequence[CandidateId], report: LatencyReport) -> Mapping[str, Any]:
    medians = {name: result.percentile_ms(50) for name, result in report.results.items()}
    ratios: dict[str, dict[str, LatencyRatio]] = {}
    for item in candidates:
        if item.precision != "fp32":
            of_engine = report.ratio(item.name, float_partner(item, candidates).name)
            ratios.setdefault(item.precision, {})[item.engine] = of_engine
    told = [f"{name} {median:.3f} ms" for name, median in medians.items()]
    alone = len(ratios) == 1 and all(len(found) == 1 for found in ratios.values())
    told += [
        f"ratio {ratio.median:.2f}" + ("" if alone else f" of {precision} on {engine}")
        for precision, found in ratios.items()
        for engine, ratio in found.items()
    ]
    return {
        "p50_ms": medians,
        "further": {name: result.further_costs() for name, result in report.results.items()},
        **{
            f"{precision}_over_fp32": {engine: ratio.to_dict() for engine, ratio in found.items()}
            for precision, found in ratios.items()
        },
        "summary": ", ".join(told),
    }
