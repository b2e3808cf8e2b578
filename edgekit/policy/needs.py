"""What a clause needs to be decided: how many samples, how many failures they may hold, and what must be there.

Everything here is said before anything was measured, of engines that are imagined: a flawless one, and ones whose
share of good samples is given. Where the answer depends on how values scatter, it is not made up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgekit.metrics.agreement import METRICS, Metric
from edgekit.metrics.intervals import bernstein_samples
from edgekit.metrics.statistics import least_sample, samples_to_decide
from edgekit.policy.clauses import (
    AccuracyDropClause,
    AgreementClause,
    BaselineClause,
    BudgetClause,
    Clause,
    LocalisationClause,
    MeanClause,
    QuantileClause,
    ShareClause,
    UndefinedClause,
    WrongEvidenceClause,
    has_confidence,
)
from edgekit.policy.judging import Rule, Scale, judge_mean
from edgekit.policy.release_clauses import ANSWERS
from edgekit.policy.words import clause_in_words

__all__ = ["ClauseNeeds", "RateNeed", "needs_of"]

# Parts of the failures that are allowed, at which a clause is asked how many samples it takes: two that pass, and one
# that fails.
_PARTS = (0.25, 0.5, 2.0)
_MOST_OF_A_MEAN = 100_000


@dataclass(frozen=True)
class RateNeed:
    """How many samples decide about an engine with this share of good samples, and how.

    Attributes:
        rate: Share of samples that are good, 0 to 1.
        outcome: "pass" or "fail".
        samples: None where no practical number decides.
    """

    rate: float
    outcome: str
    samples: int | None


@dataclass(frozen=True)
class ClauseNeeds:
    """What one clause needs.

    Attributes:
        clause: The demand.
        text: It in words.
        judged_by: What decides: a kind of confidence bound, or the value of the samples themselves.
        confidence: Of the bound; None where there is none.
        needs: Of "labels", "masks", "baseline" and "measured cost", what must be there beside maps and answers.
        required: False where the clause is left out when that is not there.
        per_class: Whether the numbers below are of each class, not of the whole set.
        flawless: Least samples with which a flawless engine passes; 0 where samples do not matter, None where none
            suffice.
        rates: Samples needed at a few shares of good samples; empty where the clause does not count samples.
        depends_on_spread: Whether more than `flawless` are needed, by how much values scatter.
        samples: For how many samples `failures` is said; None where nobody asked.
        failures: How many of them may be bad in a clause that holds; None where nobody asked, the clause does not
            count samples, or it cannot hold with so few.
        can_pass: Whether it can hold with `samples`; None where nobody asked.
    """

    clause: Clause
    text: str
    judged_by: str
    confidence: float | None
    needs: tuple[str, ...]
    required: bool
    per_class: bool
    flawless: int | None
    rates: tuple[RateNeed, ...]
    depends_on_spread: bool
    samples: int | None = None
    failures: int | None = None

    @property
    def can_pass(self) -> bool | None:
        """Whether so many samples can be enough; None where nobody asked."""
        return None if self.samples is None else self.flawless is not None and self.samples >= self.flawless

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "kind": self.clause.kind,
            "text": self.text,
            "judged_by": self.judged_by,
            "confidence": self.confidence,
            "needs": list(self.needs),
            "required": self.required,
            "per_class": self.per_class,
            "samples_if_flawless": self.flawless,
            "samples_at": [vars(rate).copy() for rate in self.rates],
            "depends_on_spread": self.depends_on_spread,
            "failures_allowed": self.failures,
            "can_pass": self.can_pass,
        }


def needs_of(clause: Clause, rule: Rule, samples: int | None = None) -> ClauseNeeds:
    """What a clause needs.

    Args:
        clause: The demand.
        rule: How sure one wants to be.
        samples: For how many to say what may fail; None for none.
    """
    per_class = False
    if isinstance(clause, (ShareClause, AgreementClause, MeanClause, QuantileClause)) and clause.per_class:
        per_class, rule = True, replace(rule, min_samples=clause.min_class_samples or rule.min_samples)
    share, confidence = _share_asked(clause), rule.confidence
    flawless = _flawless(clause, share, rule)
    holds_with = _failures_that_hold(clause, share, rule)
    allowed = None
    if samples is not None and holds_with is not None and flawless is not None and samples >= flawless:
        allowed = _largest(lambda bad: holds_with(bad, samples), samples)
    return ClauseNeeds(
        clause=clause,
        text=clause_in_words(clause, confidence),
        judged_by=_judged_by(clause, sequential=rule.sequential),
        confidence=confidence if has_confidence(clause) else None,
        needs=_beside(clause),
        required=bool(getattr(clause, "required", True)),
        per_class=per_class,
        flawless=flawless,
        rates=() if share is None else _rates(share, rule),
        depends_on_spread=has_confidence(clause) and share is None and not _by_answers(clause),
        samples=samples,
        failures=allowed,
    )


def _share_asked(clause: Clause) -> float | None:
    """Of a clause that counts samples, and of a quantile that is judged so: which share of them has to be good."""
    if isinstance(clause, (ShareClause, AgreementClause)):
        return clause.at_least
    if isinstance(clause, WrongEvidenceClause):
        return 1 - clause.at_most
    if isinstance(clause, QuantileClause) and clause.interval == "exact":
        return 1 - clause.q if clause.better == "higher" else clause.q
    return None


def _by_answers(clause: Clause) -> bool:
    return isinstance(clause, BaselineClause) and clause.of in ANSWERS


def _flawless(clause: Clause, share: float | None, rule: Rule) -> int | None:
    needed: int | None = 1
    confidence = rule.confidence
    if isinstance(clause, BudgetClause):
        return 0
    if share is not None:
        needed = rule.samples_for_share(1.0, share)
    elif isinstance(clause, BaselineClause) and clause.of in ANSWERS:
        # An engine that answers like the baseline: nothing is lost, and half of the risk says how little might be.
        half = 1 - (1 - confidence) / 2
        needed = samples_to_decide(1.0, 1 - clause.margin, half) if clause.margin else None
    elif isinstance(clause, MeanClause) and clause.interval == "exact":
        metric = METRICS[clause.metric]
        distance, width = abs(metric.best - clause.bound), abs(metric.best - metric.worst)
        if rule.sequential:
            return _watched_mean(clause, metric, rule)
        needed = bernstein_samples(np.full(2, metric.best), distance, confidence, width) if distance else None
    elif has_confidence(clause):
        needed = 2
    return None if needed is None else max(needed, rule.min_samples)


def _watched_mean(clause: MeanClause, metric: Metric, rule: Rule) -> int | None:
    """Least samples of the best value with which a watched mean holds; None where no practical number does."""
    low, high = sorted((metric.worst, metric.best))
    scale = Scale(clause.limit, clause.better, low, high)

    def holds(samples: int) -> bool:
        values = np.full(samples, metric.best)
        return judge_mean(values, scale, clause.interval, replace(rule, min_samples=1)).outcome == "pass"

    needed = least_sample(holds, _MOST_OF_A_MEAN)
    return None if needed is None else max(needed, rule.min_samples)


def _rates(asked: float, rule: Rule) -> tuple[RateNeed, ...]:
    rates = []
    for part in _PARTS:
        rate = max(0.0, 1 - (1 - asked) * part)
        passes = part < 1
        # Failing needs no least number of samples.
        least = rule if passes else replace(rule, min_samples=1)
        samples = least.samples_for_share(rate, asked)
        rates.append(RateNeed(rate, "pass" if passes else "fail", samples))
    return tuple(rates)


def _failures_that_hold(clause: Clause, share: float | None, rule: Rule) -> Callable[[int, int], bool] | None:
    """Whether the clause holds with so many bad ones of so many samples; None where it does not count them."""
    if isinstance(clause, (UndefinedClause, AccuracyDropClause)):
        return lambda bad, samples: bad / samples <= clause.at_most
    if share is None:
        return None
    return lambda bad, samples: rule.share_bounds(samples - bad, samples).lower >= share


def _largest(holds: Callable[[int], bool], most: int) -> int | None:
    """The largest number up to `most` that holds, of a condition that gets no easier; None where not even 0 does."""
    if not holds(0):
        return None
    good, bad = 0, most + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def _judged_by(clause: Clause, *, sequential: bool) -> str:
    if isinstance(clause, BudgetClause):
        return "the cost as measured"
    if sequential:
        return "an exact bound that holds at every number of samples at once"
    if not has_confidence(clause):
        return "the value of these samples, without a bound"
    if isinstance(clause, (ShareClause, AgreementClause, WrongEvidenceClause)):
        return "an exact binomial bound"
    if _by_answers(clause):
        return "exact binomial bounds on what was won and lost"
    if isinstance(clause, QuantileClause) and clause.interval == "exact":
        return "order statistics, exact"
    if isinstance(clause, QuantileClause):
        return "a percentile bootstrap bound, approximate and too narrow near the ends (exact is sound)"
    if isinstance(clause, MeanClause) and clause.interval == "exact":
        return "an empirical Bernstein bound, valid for any distribution"
    return "a bootstrap bound (BCa), approximate"


def _beside(clause: Clause) -> tuple[str, ...]:
    if isinstance(clause, BudgetClause):
        return (f"measured cost {clause.cost}",)
    if isinstance(clause, BaselineClause):
        return ("baseline", "labels") if clause.of == "accuracy" else ("baseline",)
    if isinstance(clause, LocalisationClause):
        return ("masks",)
    by_label = isinstance(clause, AccuracyDropClause)
    by_label |= isinstance(clause, WrongEvidenceClause) and clause.right == "label"
    by_label |= getattr(clause, "over", "all") == "class" and getattr(clause, "class_of", "") == "label"
    return ("labels",) if by_label else ()
