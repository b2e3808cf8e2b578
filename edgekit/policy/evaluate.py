"""One clause against a table of scores, and what stands beside it.

Samples that count: a clause about a map metric is about the samples whose maps could be compared, that is, all but
those where both are zero; agreement and undefined maps are about all samples; the accuracy drop about those with a
label, localisation about those with a mask, a baseline about those that it was verified on too. The numbers are the
same on every machine: shares of counts, exactly rounded means, and confidence bounds rounded outwards to nine
decimals, far from the last bits in which mathematical libraries differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import METRICS
from edgekit.metrics.classification import accuracy
from edgekit.metrics.intervals import seed_of
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.assembled import in_full, not_measured
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
)
from edgekit.policy.context import NOTHING_BESIDE, Context
from edgekit.policy.judging import Rule, Scale, judge_mean, judge_quantile, judge_share, judge_value
from edgekit.policy.paired import evaluate_baseline, evaluate_localisation
from edgekit.policy.per_class import judge_classes
from edgekit.policy.policy import Policy
from edgekit.policy.result import ClauseResult, Judged
from edgekit.policy.words import clause_in_words, result_in_words

__all__ = ["evaluate_clause", "right_label_wrong_evidence"]

_Values = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]
_Places = npt.NDArray[np.intp]


def evaluate_clause(
    clause: Clause, policy: Policy, table: ScoreTable, context: Context = NOTHING_BESIDE
) -> ClauseResult:
    """Judge one clause of `policy` by a table that `check_scores` accepts, and by what stands beside it."""
    rule = Rule(policy.bound_confidence, policy.min_samples, seed_of(table.sample), policy.sequential)
    if isinstance(clause, (ShareClause, MeanClause, QuantileClause, AgreementClause)):
        result = _sampled(clause, policy, table, rule)
    elif isinstance(clause, UndefinedClause):
        result = _undefined(clause, table, rule)
    elif isinstance(clause, WrongEvidenceClause):
        result = _wrong_evidence(clause, table, rule)
    elif isinstance(clause, AccuracyDropClause):
        result = _accuracy_drop(clause, table, rule)
    elif isinstance(clause, LocalisationClause):
        result = evaluate_localisation(clause, table, rule)
    elif isinstance(clause, BaselineClause):
        result = evaluate_baseline(clause, table, context.baseline, rule)
    else:
        result = _budget(clause, context)
    result = replace(result, text=clause_in_words(clause, policy.bound_confidence))
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
        values = _column(clause, table) if isinstance(clause, ShareClause) else None
        if isinstance(clause, ShareClause) and values is not None:
            wrong |= ~np.isnan(values) & ~METRICS[clause.metric].reaches(values, clause.threshold)
    confused: _Flags = right & wrong
    return confused


def _column(clause: ShareClause | MeanClause | QuantileClause | WrongEvidenceClause, table: ScoreTable) -> Any:
    columns = table.metrics if clause.view == "teacher-class" else table.own_class_metrics
    return columns.get(clause.metric)


@dataclass(frozen=True)
class _Judging:
    """The samples that count for a clause, the worst first, and how any of them are judged together."""

    present: _Places
    worst: _Places
    judge: Callable[[_Places, Rule], Judged]


def _sampled(
    clause: ShareClause | MeanClause | QuantileClause | AgreementClause, policy: Policy, table: ScoreTable, rule: Rule
) -> ClauseResult:
    """A clause that any set of samples can be judged by: all of them, or each class."""
    judging = _judging_agreement(clause, table) if isinstance(clause, AgreementClause) else _judging(clause, table)
    if judging is None:
        return not_measured(clause)
    if not clause.per_class:
        return in_full(clause, judging.judge(judging.present, rule), judging.worst)
    classes = table.teacher_class if clause.class_of == "teacher" else table.label
    return judge_classes(clause, policy, classes, (judging.present, judging.worst), judging.judge, rule.seed)


def _judging_agreement(clause: AgreementClause, table: ScoreTable) -> _Judging:
    scale = Scale(clause.limit, clause.better)
    return _Judging(
        np.arange(len(table)),
        np.flatnonzero(~table.agrees),
        lambda places, rule: judge_share(table.agrees[places], scale, rule),
    )


def _judging(clause: ShareClause | MeanClause | QuantileClause, table: ScoreTable) -> _Judging | None:
    column = _column(clause, table)
    if column is None:
        return None
    metric = METRICS[clause.metric]
    present = np.flatnonzero(~np.isnan(column))
    badness = column[present] if metric.better == "higher" else -column[present]
    worst = present[np.argsort(badness, kind="stable")]

    def judge(places: _Places, rule: Rule) -> Judged:
        values = column[places]
        if isinstance(clause, ShareClause):
            return judge_share(metric.reaches(values, clause.threshold), Scale(clause.limit, clause.better), rule)
        low, high = sorted((metric.worst, metric.best))
        scale = Scale(clause.limit, clause.better, low, high)
        if isinstance(clause, MeanClause):
            return judge_mean(values, scale, clause.interval, rule)
        return judge_quantile(values, clause.q, scale, clause.interval, rule)

    return _Judging(present, worst, judge)


def _undefined(clause: UndefinedClause, table: ScoreTable, rule: Rule) -> ClauseResult:
    undefined = np.flatnonzero(~table.compared)
    count = len(table)
    observed = len(undefined) / count if count else None
    judged = judge_value(observed, count, rule, holds=observed is not None and observed <= clause.at_most)
    return in_full(clause, replace(judged, successes=len(undefined)), undefined)


def _wrong_evidence(clause: WrongEvidenceClause, table: ScoreTable, rule: Rule) -> ClauseResult:
    column = _column(clause, table)
    if column is None or (clause.right == "label" and not (table.label >= 0).any()):
        return not_measured(clause, required=clause.required or column is None)
    right = table.agrees if clause.right == "teacher" else (table.label >= 0) & (table.engine_class == table.label)
    counted = np.flatnonzero(right & ~np.isnan(column))
    metric = METRICS[clause.metric]
    wrong = ~metric.reaches(column[counted], clause.threshold)
    badness = column[counted] if metric.better == "higher" else -column[counted]
    worst = counted[np.argsort(badness, kind="stable")]
    judged = judge_share(wrong, Scale(clause.limit, clause.better), rule)
    return in_full(clause, judged, worst[: int(wrong.sum())])


def _accuracy_drop(clause: AccuracyDropClause, table: ScoreTable, rule: Rule) -> ClauseResult:
    teacher, engine = accuracy(table.label, table.teacher_class), accuracy(table.label, table.engine_class)
    if teacher.total == 0:
        result = not_measured(clause, required=clause.required)
        return replace(result, samples_needed=rule.min_samples if clause.required else None)
    # One division of counts: the difference of two shares is off by a rounding that can cross the bound.
    drop = (teacher.successes - engine.successes) / teacher.total
    lost = (table.label >= 0) & (table.teacher_class == table.label) & (table.engine_class != table.label)
    judged = judge_value(drop, teacher.total, rule, holds=drop <= clause.at_most)
    return in_full(clause, judged, np.flatnonzero(lost))


def _budget(clause: BudgetClause, context: Context) -> ClauseResult:
    cost = context.costs.get(clause.cost)
    if cost is None:
        return not_measured(clause, required=clause.required)
    return in_full(clause, Judged("pass" if cost <= clause.at_most else "fail", float(cost)), np.arange(0))
