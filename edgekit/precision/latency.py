"""How long candidates take: measured on the target's engine, summed from a cost table, or not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgekit.bench.latency import LatencySubject, measure_latency
from edgekit.bench.options import LatencyOptions
from edgekit.bench.result import LatencyReport
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.precision.candidate import Candidate
from edgekit.precision.costs import CostTable

__all__ = ["CandidateLatency", "estimated", "not_measured", "timed"]

_ROUNDS = 10


@dataclass(frozen=True)
class CandidateLatency:
    """Latencies of candidates.

    Attributes:
        source: "measured", "cost table" or "not measured".
        told: How, or why not, in words.
        milliseconds: Median of one image, by candidate.
        report: Every time, where it was measured.
    """

    source: str
    told: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    report: LatencyReport | None = None

    @property
    def known(self) -> bool:
        """There are latencies."""
        return bool(self.milliseconds)

    def is_faster(self, name: str, other: str) -> bool:
        """Whether one is faster than another beyond what the machine's noise explains.

        Measured, that is: in three rounds of four at least. Of a cost table any difference counts.
        """
        if name not in self.milliseconds or other not in self.milliseconds:
            return False
        if self.report is not None:
            return self.report.ratio(name, other).quartiles[1] < 1.0
        return self.milliseconds[name] < self.milliseconds[other]

    def in_words(self, name: str, other: str) -> str:
        """How many times as long one takes as another."""
        if self.report is not None:
            ratio = self.report.ratio(name, other)
            low, high = ratio.quartiles
            return f"{ratio.median:.2f} times as long as {other} (quartiles {low:.2f} to {high:.2f})"
        return f"{self.milliseconds[name] / max(self.milliseconds[other], 1e-12):.2f} times as long as {other}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "source": self.source,
            "told": self.told,
            "milliseconds": dict(self.milliseconds),
            "report": None if self.report is None else self.report.to_dict(),
        }


def not_measured(why: str) -> CandidateLatency:
    """Nothing is known."""
    return CandidateLatency("not measured", why)


def timed(
    artifacts: Mapping[str, Path],
    engine: str,
    images: npt.NDArray[Any],
    runs: int,
    observer: Observer = NULL_OBSERVER,
) -> CandidateLatency:
    """Time candidates beside each other at batch 1, each in a process of its own.

    Args:
        artifacts: Candidate to the file its engine opens.
        engine: Registry name.
        images: Prepared, float32 [M, 3, H, W].
        runs: Timed runs of each, at least 1.
        observer: Told of the progress.

    Raises:
        UnavailableError: An engine died or did not answer.
    """
    rounds = min(_ROUNDS, runs)
    how = LatencyOptions(warmup=max(5, runs // 2), rounds=rounds, iterations=-(-runs // rounds))
    report = measure_latency(
        {name: LatencySubject(engine, path) for name, path in artifacts.items()}, images, how, observer
    )
    medians = {name: result.percentile_ms(50) for name, result in report.results.items()}
    told = f"median of {rounds * how.iterations} runs on {report.environment['processor']}, one image at a time"
    return CandidateLatency("measured", told, medians, report)


def estimated(
    table: CostTable, candidates: Mapping[str, Candidate], names: Sequence[str], precisions: Sequence[str]
) -> CandidateLatency:
    """Sum the costs of operations, without what a runtime adds where precisions meet.

    Args:
        table: The costs, checked by `check_costs`.
        candidates: By name.
        names: Whose latency is wanted.
        precisions: What operations outside INT8 may compute in.
    """
    sums = {name: table.total(frozenset(candidates[name].int8), precisions) for name in names}
    told = (
        f"sum of {len(table.costs)} operations measured on {table.device} ({table.measured}), "
        "without conversions between precisions"
    )
    return CandidateLatency("cost table", told, sums)
