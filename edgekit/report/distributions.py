"""Distributions of the metrics in numbers: summary, histogram, axis ticks, and what the policy asks of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import METRICS, Metric
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.statistics import summarise
from edgekit.policy.clauses import MeanClause, QuantileClause, ShareClause
from edgekit.policy.policy import Policy

__all__ = ["Demand", "Histogram", "describe_distributions", "histogram", "nice_ticks"]

_TICK_STEPS = 4
_BINS = 24
_DECIMALS = 12


@dataclass(frozen=True)
class Demand:
    """A number that the policy holds a metric against, to be marked on its axis.

    Attributes:
        kind: "share" (of each sample), "mean" or "quantile".
        value: The bound, in the metric's unit.
        q: Of a quantile, 0 to 1; None otherwise.
    """

    kind: str
    value: float
    q: float | None = None


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of equal width.

    Attributes:
        ticks: Round numbers, rising; the first and the last are the ends of the axis.
        edges: Ends of the bins; one more than there are counts.
        counts: Values a bin holds; a value on an edge belongs to the bin above, the last edge to the last bin.
        count_ticks: Round counts from 0, the last at least as large as every count.
    """

    ticks: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    count_ticks: tuple[float, ...]


def nice_ticks(low: float, high: float, steps: int = _TICK_STEPS) -> tuple[float, ...]:
    """Round numbers from at most `low` to at least `high`, in equal steps of 1, 2, 2.5 or 5 times a power of ten.

    Args:
        low: Finite.
        high: Finite, above `low`.
        steps: About how many steps.
    """
    rough = (high - low) / steps
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(place * step, _DECIMALS) + 0.0 for place in range(first, last + 1))


def histogram(values: npt.NDArray[np.float64], metric: Metric, marks: tuple[float, ...] = ()) -> Histogram:
    """Count the values of a metric on an axis that reaches from the worst value or mark to the best there can be.

    Args:
        values: float64 [N], without NaN, within the metric's range.
        metric: Gives the best value, which is always on the axis: a distribution far from it must look so.
        marks: Further numbers that the axis must hold.
    """
    # A little of the bad side of every mark belongs on the axis, or the mark would look like its end.
    least, most = sorted((metric.worst, metric.best))
    beyond = [min(most, max(least, mark + 0.05 * (mark - metric.best))) for mark in marks]
    present = [*values.tolist(), *beyond, metric.best]
    low, high = min(present), max(present)
    if high - low < 1e-6:
        # All at the best value: an axis needs an extent.
        low, high = (low - 0.01, high) if metric.better == "higher" else (low, high + 0.01)
    ticks = nice_ticks(low, high)
    cells = max(1, _BINS // (len(ticks) - 1)) * (len(ticks) - 1)
    edges = np.round(np.linspace(ticks[0], ticks[-1], cells + 1), _DECIMALS)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    return Histogram(
        ticks=ticks,
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        count_ticks=_count_ticks(int(counts.max(initial=0))),
    )


def _count_ticks(largest: int) -> tuple[float, ...]:
    """Ticks between the ends only where they are whole numbers: there is no half of a sample."""
    ticks = nice_ticks(0.0, float(max(largest, 1)), steps=3)
    return ticks if all(tick == int(tick) for tick in ticks) else (0.0, float(math.ceil(ticks[-1])))


def describe_distributions(table: ScoreTable, policy: Policy) -> dict[str, dict[str, Any]]:
    """Every metric's distribution over the samples compared, JSON-ready.

    Returns:
        Metric name to "better", "best", "worst", "description", "summary" (None without values; lost maps count with
        their worst value), "undefined" (samples without a value), "lost" (samples whose map is empty on one side or
        not finite), "demands" of the policy, and "histogram" of the samples that are neither (None without any).
    """
    described = {}
    state = np.array(table.state, dtype=np.str_)
    scored = state == "scored"
    lost = int(((state == "one_zero") | (state == "non_finite")).sum())
    for name in sorted(table.metrics):
        metric, values = METRICS[name], table.metrics[name]
        summary = summarise(values)
        demands = [asdict(demand) for demand in _demands(policy, name)]
        marks = tuple(float(demand["value"]) for demand in demands)
        described[name] = {
            "better": metric.better,
            "best": metric.best,
            "worst": metric.worst,
            "description": metric.description,
            "summary": summary.to_dict() if summary else None,
            "undefined": int(np.isnan(values).sum()),
            "lost": lost,
            "demands": demands,
            "histogram": asdict(histogram(values[scored], metric, marks)) if scored.any() else None,
        }
    return described


def _demands(policy: Policy, name: str) -> list[Demand]:
    """What the policy asks of a metric in the teacher-class view, which is the one that is drawn."""
    demands = []
    for clause in policy.clauses:
        if getattr(clause, "metric", None) != name or getattr(clause, "view", None) != "teacher-class":
            continue
        if isinstance(clause, ShareClause):
            demands.append(Demand("share", clause.threshold))
        elif isinstance(clause, MeanClause):
            demands.append(Demand("mean", clause.bound))
        elif isinstance(clause, QuantileClause):
            demands.append(Demand("quantile", clause.bound, clause.q))
    return demands
