"""What got worse and what got better from one release to the next, on the images that both were verified on.

"Worse" is a word with a definition here. An outcome is worse where pass became inconclusive or fail, or inconclusive
became fail. A metric is worse where its mean over the pairs is, and where more samples got worse than better by an
exact sign test: the lower Clopper-Pearson bound on the share of those that got worse, among those that changed at all,
lies above one half. The confidence of 95 % is shared out (Bonferroni) among everything that is tested. No tolerance
enters: how much worse may pass is for a policy to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.layout import SCORES
from edgekit.bundle.open import Bundle
from edgekit.ci.clause_view import clause_column, clause_identities, good_samples
from edgekit.ci.pairing import Pairing, Scored, pair_samples, require_same_question, scored
from edgekit.errors import BadInputError
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.statistics import clopper_pearson, mean
from edgekit.policy.clauses import Clause
from edgekit.policy.result import ClauseResult
from edgekit.policy.verdict import Verdict
from edgekit.verify.gate import gate

__all__ = ["CONFIDENCE", "Changes", "ClauseChange", "Counted", "MetricChange", "SampleChange", "changes_since"]

CONFIDENCE = 0.95
_WORST_KEPT = 10
_RANK = {"pass": 0, "not-measured": 0, "inconclusive": 1, "fail": 2}

_Column = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SampleChange:
    """One sample of both sets.

    Attributes:
        name: Relative file name in the newer set. Foreign text.
        digest: SHA-256 of its pixels.
        before: The metric in the older release.
        after: The metric in the newer one.
    """

    name: str
    digest: str
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"name": self.name, "sha256": self.digest, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Counted:
    """How many samples moved which way.

    Attributes:
        worse: Samples that got worse.
        better: Samples that got better.
        same: Samples that did not change.
        shown: More got worse than better, by the sign test above.
    """

    worse: int
    better: int
    same: int
    shown: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


@dataclass(frozen=True)
class MetricChange:
    """A metric of the map of the teacher's class.

    Attributes:
        metric: Its name.
        pairs: Samples with a value in both releases.
        before: Mean over the pairs.
        after: Mean over the pairs.
        counted: Which way the samples went.
        worst: Those that got worse most, the worst first, ten at most.
    """

    metric: str
    pairs: int
    before: float
    after: float
    counted: Counted
    worst: tuple[SampleChange, ...]

    @property
    def difference(self) -> float:
        """Mean of the differences, after minus before, in the metric's own units."""
        return self.after - self.before

    @property
    def is_worse(self) -> bool:
        """The mean is worse, and so are shown to be more samples than not."""
        fell = self.difference < 0 if METRICS[self.metric].better == "higher" else self.difference > 0
        return fell and self.counted.shown

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "metric": self.metric,
            "pairs": self.pairs,
            "before": self.before,
            "after": self.after,
            "difference": self.difference,
            "worse": self.is_worse,
            "samples": self.counted.to_dict(),
            "worst": [sample.to_dict() for sample in self.worst],
        }


@dataclass(frozen=True)
class ClauseChange:
    """A clause of the newer bundle's policy, about both releases.

    Attributes:
        identity: As in `edgekit.ci.clause_view.clause_identities`.
        before: About all samples of the older release.
        after: About all samples of the newer one.
        lost: Names of paired samples that were good and are not, the first ten; empty of clauses that count nothing.
        counted: Paired samples that changed between good and bad; None of clauses that count nothing.
    """

    identity: str
    before: ClauseResult
    after: ClauseResult
    lost: tuple[str, ...]
    counted: Counted | None

    @property
    def is_worse(self) -> bool:
        """The outcome fell."""
        return _RANK[self.after.outcome] > _RANK[self.before.outcome]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "clause": self.identity,
            "text": self.after.text,
            "before": {"outcome": self.before.outcome, "observed": self.before.observed},
            "after": {"outcome": self.after.outcome, "observed": self.after.observed},
            "worse": self.is_worse,
            "samples": None if self.counted is None else self.counted.to_dict(),
            "lost": list(self.lost),
        }


@dataclass(frozen=True)
class Changes:
    """A newer release beside an older one.

    Attributes:
        baseline: Digest of the older bundle's manifest.
        before: Outcome of the older release under the policy that judges the newer one.
        after: Outcome of the newer one.
        pairing: Which samples both were verified on.
        clauses: Clause by clause.
        metrics: Metric by metric, those that both tables hold.
        agreement: Paired samples that had the teacher's top-1 and lost it (worse), or the other way round.
    """

    baseline: str
    before: str
    after: str
    pairing: Pairing
    clauses: tuple[ClauseChange, ...]
    metrics: tuple[MetricChange, ...]
    agreement: Counted

    @property
    def worse(self) -> tuple[str, ...]:
        """What got worse, a phrase each; empty where nothing is shown to."""
        found = []
        if _RANK[self.after] > _RANK[self.before]:
            found.append(f"the outcome was {self.before} and is {self.after}")
        found += [
            f"{item.identity} was {item.before.outcome} and is {item.after.outcome}"
            for item in self.clauses
            if item.is_worse
        ]
        found += [
            f"{item.metric} is worse on {item.counted.worse} of {item.pairs} samples and better on "
            f"{item.counted.better}: mean {item.before:.4f}, now {item.after:.4f}"
            for item in self.metrics
            if item.is_worse
        ]
        if self.agreement.shown:
            found.append(
                f"{self.agreement.worse} samples lost the teacher's top-1 and {self.agreement.better} gained it"
            )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "baseline": self.baseline,
            "before": self.before,
            "after": self.after,
            "golden": self.pairing.to_dict(),
            "worse": list(self.worse),
            "clauses": [item.to_dict() for item in self.clauses],
            "metrics": [item.to_dict() for item in self.metrics],
            "agreement": self.agreement.to_dict(),
        }


def changes_since(baseline: Bundle, newer: Scored, verdict: Verdict) -> Changes:
    """Hold a bundle against an older one.

    Args:
        baseline: The older one. Its integrity and its own verdict are checked as by the gate.
        newer: The newer one.
        verdict: About the newer one. Its policy judges the older one too.

    Raises:
        BadInputError: The older one was never verified, the two are not about the same thing, or share no image.
        EdgekitError: What `gate` raises about the older one.
    """
    if SCORES not in baseline:
        raise BadInputError(
            "A bundle that was never verified is no baseline.",
            where=str(baseline.folder),
            expected="a bundle with scores",
            found=f"status {baseline.manifest.status}",
            hint="name a bundle that 'edgekit build' or 'edgekit attach' completed",
        )
    judged, older = gate(baseline, verdict.policy).verdict, scored(baseline)
    require_same_question(older, newer)
    old, new = older.table, newer.table
    pairing = pair_samples(old.sample, new.sample)
    names = sorted(old.metrics.keys() & new.metrics.keys())
    tested = len(names) + 1
    agrees = [table.agrees[rows].astype(np.float64) for table, rows in ((old, pairing.before), (new, pairing.after))]
    metrics = [_metric_change(name, old, newer, pairing, tested) for name in names]
    return Changes(
        baseline=older.digest,
        before=judged.outcome,
        after=verdict.outcome,
        pairing=pairing,
        clauses=_clause_changes((judged, verdict), old, newer, pairing),
        metrics=tuple(change for change in metrics if change is not None),
        agreement=_counted(agrees[0], agrees[1], tested),
    )


def _counted(before: _Column, after: _Column, tested: int) -> Counted:
    """Which way values went that are better when higher; `tested` is how many such questions share the confidence."""
    worse, better = int((after < before).sum()), int((after > before).sum())
    bound = clopper_pearson(worse, worse + better, 1 - (1 - CONFIDENCE) / tested).lower
    return Counted(worse, better, len(before) - worse - better, bound > 0.5)


def _metric_change(name: str, old: ScoreTable, newer: Scored, pairing: Pairing, tested: int) -> MetricChange | None:
    before, after = old.metrics[name][pairing.before], newer.table.metrics[name][pairing.after]
    present = np.flatnonzero(~np.isnan(before) & ~np.isnan(after))
    if not len(present):
        return None
    before, after, rows = before[present], after[present], pairing.after[present]
    # As if higher were better for every metric.
    was, now = (before, after) if METRICS[name].better == "higher" else (-before, -after)
    gain = now - was
    order = np.argsort(gain, kind="stable")[:_WORST_KEPT]
    worst = tuple(
        SampleChange(
            newer.names[rows[place]], newer.table.sample[rows[place]], float(before[place]), float(after[place])
        )
        for place in order
        if gain[place] < 0
    )
    return MetricChange(name, len(present), mean(before), mean(after), _counted(was, now, tested), worst)


def _clause_changes(
    verdicts: tuple[Verdict, Verdict], old: ScoreTable, newer: Scored, pairing: Pairing
) -> tuple[ClauseChange, ...]:
    changes = []
    identities = clause_identities([result.clause for result in verdicts[1].clauses])
    for identity, before, after in zip(identities, verdicts[0].clauses, verdicts[1].clauses, strict=True):
        was, now = good_samples(after.clause, old), good_samples(after.clause, newer.table)
        counted, names = None, ()
        if was is not None and now is not None:
            was, now = was[pairing.before], now[pairing.after]
            lost, gained = np.flatnonzero((was == 1) & (now == 0)), int(((was == 0) & (now == 1)).sum())
            counted = Counted(len(lost), gained, len(was) - len(lost) - gained, shown=False)
            rows = _worst_first(after.clause, newer.table, pairing.after[lost])[:_WORST_KEPT]
            names = tuple(newer.names[row] for row in rows)
        changes.append(ClauseChange(identity, before, after, names, counted))
    return tuple(changes)


def _worst_first(clause: Clause, table: ScoreTable, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Rows of a table in the order of the clause's metric; as they are where it is about none."""
    column = clause_column(clause, table)
    if column is None:
        return rows
    values = column[rows]
    higher = METRICS[str(getattr(clause, "metric"))].better == "higher"  # noqa: B009 - not of every clause
    return rows[np.argsort(values if higher else -values, kind="stable")]
