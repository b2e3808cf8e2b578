"""Which samples are shown: the worst, some in the middle, and those with the right answer for the wrong reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.metrics.agreement import METRICS
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.clauses import MeanClause, QuantileClause, ShareClause
from edgekit.policy.evaluate import right_label_wrong_evidence
from edgekit.policy.policy import Policy

__all__ = ["SampleSelection", "ranking_metric", "select_samples"]

_WORST, _TYPICAL, _WRONG_EVIDENCE = 8, 4, 6
# A map that was lost is worse than one that is only as far from the teacher's as can be.
_STATE_RANK = {"non_finite": 0, "one_zero": 1, "scored": 2, "both_zero": 3}


@dataclass(frozen=True)
class SampleSelection:
    """Indices into the golden set.

    Attributes:
        metric: The metric that ranks, None where the table has none.
        worst: Compared samples, worst first.
        typical: The samples nearest the median that are not among the worst, nearest first.
        wrong_evidence: Of all with the right answer and the wrong evidence, the worst few, worst first.
        wrong_evidence_count: How many those are in all.
    """

    metric: str | None
    worst: tuple[int, ...]
    typical: tuple[int, ...]
    wrong_evidence: tuple[int, ...]
    wrong_evidence_count: int

    @property
    def pictured(self) -> tuple[int, ...]:
        """Every sample that is shown, each once."""
        return tuple(dict.fromkeys((*self.worst, *self.typical, *self.wrong_evidence)))


def ranking_metric(policy: Policy, table: ScoreTable) -> str | None:
    """The metric that the policy cares about most: of its first clause about a metric, else cosine, else any."""
    named = [
        clause.metric for clause in policy.clauses if isinstance(clause, (ShareClause, MeanClause, QuantileClause))
    ]
    return next((name for name in (*named, "cosine", *table.metrics) if name in table.metrics), None)


def select_samples(policy: Policy, table: ScoreTable) -> SampleSelection:
    """Choose the samples to show. The same table and policy give the same samples; ties go by index."""
    confused = np.flatnonzero(right_label_wrong_evidence(policy, table))
    metric = ranking_metric(policy, table)
    if metric is None:
        shown = tuple(confused[:_WRONG_EVIDENCE].tolist())
        return SampleSelection(None, (), (), shown, len(confused))
    values = table.metrics[metric]
    goodness = values if METRICS[metric].better == "higher" else -values
    states = np.array([_STATE_RANK[state] for state in table.state], dtype=np.int64)
    order = [int(index) for index in np.lexsort((goodness, states)) if table.state[index] != "both_zero"]
    worst = tuple(order[:_WORST])
    middle: list[int] = []
    if order:
        distance = np.abs(values - np.median(values[order]))
        middle = sorted(set(order) - set(worst), key=lambda index: (float(distance[index]), index))
    members = set(confused.tolist())
    return SampleSelection(
        metric=metric,
        worst=worst,
        typical=tuple(middle[:_TYPICAL]),
        wrong_evidence=tuple([index for index in order if index in members][:_WRONG_EVIDENCE]),
        wrong_evidence_count=len(confused),
    )
