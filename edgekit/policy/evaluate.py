"""One clause against a table of scores.

Samples that count: a clause about a map metric is about the samples whose maps could be compared, that is, all but
those where both are zero; agreement and undefined maps are about all samples; the accuracy drop about those with a
label. The numbers are the same on every machine: shares of counts, exactly rounded means, and confidence bounds
rounded outwards to nine decimals, far from the last bits in which mathematical libraries differ.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import METRICS, Metric
from edgekit.metrics.classification import accuracy
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.statistics import Bounds, clopper_pearson, mean, quantiles, samples_to_decide
from edgekit.policy.clauses import (
    AccuracyDropClause,
    AgreementClause,
    Clause,
    MeanClause,
    QuantileClause,
    ShareClause,
    UndefinedClause,
)
from edgekit.policy.context import NOTHING_BESIDE, Context
from edgekit.policy.policy import Policy
from edgekit.policy.result import ClauseResult
from edgekit.policy.words import clause_in_words, result_in_words

__all__ = ["evaluate_clause", "right_label_wrong_evidence"]

_WORST_KEPT = 10
_DECIMALS = 10**9

_Values = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


def evaluate_clause(
    clause: Clause,
    policy: Policy,
    table: ScoreTable,
    context: Context = NOTHING_BESIDE,  # noqa: ARG001 - no clause looks beside the scores yet
) -> ClauseResult:
    """Judge one clause of `policy` by a table that `check_scores` accepts."""
    if isinstance(clause, (ShareClause, MeanClause, QuantileClause)):
        result = _metric_result(clause, policy, table)
    elif isinstance(clause, AgreementClause):
        against = tuple(np.flatnonzero(~table.agrees)[:_WORST_KEPT].tolist())
        result = _share_result(clause, policy, table.agrees, against)
    elif isinstance(clause, UndefinedClause):
        result = _undefined_result(clause, policy, table)
    else:
        result = _accuracy_result(clause, policy, table)
    result = replace(result, text=clause_in_words(clause, policy.confidence))
    return replace(result, explanation=result_in_words(result, policy.min_samples))


def right_label_wrong_evidence(policy: Policy, table: ScoreTable) -> _Flags:
    """True where the engine gives the right answer for reasons that are not the teacher's, bool [N].

    Right is the label where it is known, else the teacher's top-1. The evidence is wrong where a map was lost (state
    "one_zero" or "non_finite") or misses the threshold of any share clause of the policy.
    """
    right = np.where(table.label >= 0, table.engine_class == table.label, table.agrees)
    state = np.array(table.state, dtype=np.str_)
    wrong = (state == "one_zero") | (state == "non_finite")
    for clause in policy.clauses:
        values = _view_of(clause, table) if isinstance(clause, ShareClause) else None
        if isinstance(clause, ShareClause) and values is not None:
            wrong |= ~np.isnan(values) & ~METRICS[clause.metric].reaches(values, clause.threshold)
    confused: _Flags = right & wrong
    return confused


def _view_of(clause: ShareClause | MeanClause | QuantileClause, table: ScoreTable) -> _Values | None:
    columns = table.metrics if clause.view == "teacher-class" else table.own_class_metrics
    return columns.get(clause.metric)


def _unjudged(clause: Clause, **known: Any) -> ClauseResult:
    """A result with nothing found yet; inconclusive until somebody shows otherwise."""
    nothing = ClauseResult(clause, "", "", "inconclusive", None, None, None, 0, None, None, ())
    return replace(nothing, **known)


def _metric_result(
    clause: ShareClause | MeanClause | QuantileClause, policy: Policy, table: ScoreTable
) -> ClauseResult:
    column = _view_of(clause, table)
    if column is None:
        return _unjudged(clause, measured=False)
    metric = METRICS[clause.metric]
    present = np.flatnonzero(~np.isnan(column))
    values = column[present]
    worst = _worst_first(metric, values, present)
    if isinstance(clause, ShareClause):
        return _share_result(clause, policy, metric.reaches(values, clause.threshold), worst)
    if len(values) == 0:
        return _point_result(_unjudged(clause), policy, holds=False)
    observed = mean(values) if isinstance(clause, MeanClause) else quantiles(values, [clause.q])[0]
    holds = bool(metric.reaches(np.array([observed]), clause.bound)[0])
    return _point_result(_unjudged(clause, observed=observed, samples=len(values), worst=worst), policy, holds=holds)


def _worst_first(metric: Metric, values: _Values, places: npt.NDArray[np.intp]) -> tuple[int, ...]:
    badness = values if metric.better == "higher" else -values
    return tuple(int(place) for place in places[np.argsort(badness, kind="stable")[:_WORST_KEPT]])


def _share_result(
    clause: ShareClause | AgreementClause, policy: Policy, good: _Flags, worst: tuple[int, ...]
) -> ClauseResult:
    """A share held against its Clopper-Pearson bounds. Failing needs no least number of samples: the bound is exact."""
    count, successes = len(good), int(good.sum())
    bounds = _outwards(clopper_pearson(successes, count, policy.confidence))
    result = _unjudged(
        clause,
        observed=successes / count if count else None,
        lower=bounds.lower,
        upper=bounds.upper,
        samples=count,
        successes=successes,
        worst=worst,
    )
    if bounds.upper < clause.at_least:
        return replace(result, outcome="fail")
    shown = bounds.lower >= clause.at_least
    if shown and count >= policy.min_samples:
        return replace(result, outcome="pass")
    # Without samples there is no share to go by: what a faultless engine would need.
    share = result.observed if result.observed is not None else 1.0
    deciding = count if shown else samples_to_decide(share, clause.at_least, policy.confidence)
    return replace(result, samples_needed=None if deciding is None else max(deciding, policy.min_samples))


def _outwards(bounds: Bounds) -> Bounds:
    return Bounds(
        math.floor(bounds.lower * _DECIMALS) / _DECIMALS, min(1.0, math.ceil(bounds.upper * _DECIMALS) / _DECIMALS)
    )


def _point_result(result: ClauseResult, policy: Policy, *, holds: bool) -> ClauseResult:
    """A value as it is, without a bound: it says nothing about other samples when there are too few."""
    if result.samples < policy.min_samples:
        return replace(result, outcome="inconclusive", samples_needed=policy.min_samples)
    return replace(result, outcome="pass" if holds else "fail")


def _undefined_result(clause: UndefinedClause, policy: Policy, table: ScoreTable) -> ClauseResult:
    undefined = np.flatnonzero(~table.compared)
    count = len(table)
    observed = len(undefined) / count if count else None
    result = _unjudged(
        clause,
        observed=observed,
        samples=count,
        successes=len(undefined),
        worst=tuple(undefined[:_WORST_KEPT].tolist()),
    )
    return _point_result(result, policy, holds=observed is not None and observed <= clause.at_most)


def _accuracy_result(clause: AccuracyDropClause, policy: Policy, table: ScoreTable) -> ClauseResult:
    teacher, engine = accuracy(table.label, table.teacher_class), accuracy(table.label, table.engine_class)
    if teacher.total == 0:
        if clause.required:
            return _unjudged(clause, samples_needed=policy.min_samples, measured=False)
        return _unjudged(clause, outcome="not-measured", measured=False)
    # One division of counts: the difference of two shares is off by a rounding that can cross the bound.
    drop = (teacher.successes - engine.successes) / teacher.total
    lost = (table.label >= 0) & (table.teacher_class == table.label) & (table.engine_class != table.label)
    result = _unjudged(
        clause, observed=drop, samples=teacher.total, worst=tuple(np.flatnonzero(lost)[:_WORST_KEPT].tolist())
    )
    return _point_result(result, policy, holds=drop <= clause.at_most)
