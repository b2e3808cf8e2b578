"""Clauses and their results as sentences: the same words in a terminal, a report and a log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgekit.metrics.agreement import METRICS
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
from edgekit.policy.release_clauses import ANSWERS, COSTS

if TYPE_CHECKING:
    from edgekit.policy.result import ClauseResult, GroupResult

__all__ = ["clause_in_words", "group_in_words", "percent", "plain", "result_in_words"]

_COUNTED = (ShareClause, AgreementClause, UndefinedClause, WrongEvidenceClause)
_OVER_CLASSES = (ShareClause, AgreementClause, MeanClause, QuantileClause)


def clause_in_words(clause: Clause, confidence: float) -> str:
    """What is demanded, such as "share of samples with cosine >= 0.90 is at least 95 %, with 95 % confidence"."""
    demand = _demand(clause)
    if isinstance(clause, _OVER_CLASSES) and clause.per_class:
        demand = f"in every class of the {clause.class_of}: {demand}"
    return f"{demand}, with {percent(confidence)} confidence" if has_confidence(clause) else demand


def _demand(clause: Clause) -> str:
    if isinstance(clause, ShareClause):
        wanted = f"{clause.metric} {_direction(clause.metric)} {plain(clause.threshold)}"
        return f"share of samples with {wanted}{_view(clause.view)} is at least {percent(clause.at_least)}"
    if isinstance(clause, AgreementClause):
        return f"share of samples with the teacher's top-1 is at least {percent(clause.at_least)}"
    if isinstance(clause, MeanClause):
        return f"mean {clause.metric}{_view(clause.view)} {_direction(clause.metric)} {plain(clause.bound)}"
    if isinstance(clause, QuantileClause):
        quantile = f"{percent(clause.q)} quantile of {clause.metric}{_view(clause.view)}"
        return f"{quantile} {_direction(clause.metric)} {plain(clause.bound)}"
    if isinstance(clause, UndefinedClause):
        return f"share of samples whose two maps are both zero is at most {percent(clause.at_most)}"
    if isinstance(clause, AccuracyDropClause):
        return f"accuracy drop from teacher to engine is at most {_points(clause.at_most)}"
    if isinstance(clause, WrongEvidenceClause):
        right = "the teacher's top-1" if clause.right == "teacher" else "the right label"
        kept = f"{clause.metric} {_direction(clause.metric)} {plain(clause.threshold)}{_view(clause.view)}"
        return f"of samples with {right}, the share without {kept} is at most {percent(clause.at_most)}"
    if isinstance(clause, LocalisationClause):
        return _localisation(clause)
    if isinstance(clause, BaselineClause):
        what = clause.of if clause.of in ANSWERS else f"mean {clause.of}{_view(clause.view)}"
        amount = _points(clause.margin) if clause.of in ANSWERS else plain(clause.margin)
        worse = (
            f"is worse than the baseline's by at most {amount}" if clause.margin else "is not worse than the baseline's"
        )
        return f"{what} {worse}, on the same samples"
    return f"{COSTS[clause.cost].description} is at most {_amount(clause.at_most, clause.cost)}"


def _localisation(clause: LocalisationClause) -> str:
    mean = f"mean {clause.metric} of the engine's map on masks"
    if clause.demand == "bound":
        return f"{mean} >= {plain(clause.limit)}"
    if clause.demand == "drop":
        return f"{mean} is below the teacher's by at most {plain(clause.limit)}"
    if clause.limit == 0:
        return f"{mean} is not below that of a map of the image's middle"
    return f"{mean} exceeds that of a map of the image's middle by at least {plain(clause.limit)}"


def result_in_words(result: ClauseResult, min_samples: int) -> str:
    """What was found, such as "57 of 60 samples (95.00 %), confidence bounds 87.64 % and 98.63 %; ..."."""
    if result.groups:
        return _groups_in_words(result)
    found = _nothing_measured(result) if result.observed is None else _found(result.clause, result)
    if result.outcome != "inconclusive":
        return found
    return f"{found}; {_what_would_decide(result, min_samples)}"


def group_in_words(clause: Clause, group: GroupResult) -> str:
    """What was found in one class."""
    if group.outcome == "not-measured":
        return f"left out: {group.samples} samples are too few"
    return "no sample to judge by" if group.observed is None else _found(clause, group)


def _found(clause: Clause, found: ClauseResult | GroupResult) -> str:
    observed = found.observed
    assert observed is not None, "asked by whoever found nothing"
    if isinstance(clause, BudgetClause):
        return f"{_amount(observed, clause.cost)} measured"
    if isinstance(clause, AccuracyDropClause):
        return f"{_points(observed)} on {found.samples} labelled samples"
    if isinstance(clause, BaselineClause) and clause.of in ANSWERS:
        return f"gain of {100 * observed:.2f} percentage points over {found.samples} pairs{_bounds(found, shares=True)}"
    if isinstance(clause, _COUNTED):
        shown = f"{found.successes} of {found.samples} samples ({100 * observed:.2f} %)"
        return shown + _bounds(found, shares=True)
    shown = f"{observed:.4f} over {found.samples} samples"
    if isinstance(clause, BaselineClause):
        shown = f"gain of {observed:.4f} over {found.samples} pairs"
    elif isinstance(clause, LocalisationClause):
        shown = f"{observed:.4f} over {found.samples} samples with a mask"
    return shown + _bounds(found, shares=False)


def _bounds(found: ClauseResult | GroupResult, *, shares: bool) -> str:
    if found.lower is None or found.upper is None:
        return ""
    if shares:
        return f", confidence bounds {_rounded_down(found.lower)} and {_rounded_up(found.upper)}"
    down, up = math.floor(found.lower * 10_000) / 10_000, math.ceil(found.upper * 10_000) / 10_000
    return f", confidence bounds {down:.4f} and {up:.4f}"


def _groups_in_words(result: ClauseResult) -> str:
    """How many classes hold, and the worst of them."""
    judged = [group for group in result.groups if group.outcome != "not-measured"]
    skipped = len(result.groups) - len(judged)
    told = f"; {skipped} classes left out, with too few samples" if skipped else ""
    if not judged:
        return f"no class has enough samples{told}"
    held = sum(group.outcome == "pass" for group in judged)
    (worst,) = [group for group in judged if _same(group, result)][:1] or judged[:1]
    found = f"{held} of {len(judged)} classes hold; worst is class {worst.name}: {group_in_words(result.clause, worst)}"
    if result.outcome == "inconclusive":
        needed = result.samples_needed
        told += (
            "; nobody can say how many samples would decide"
            if needed is None
            else f"; {needed} samples in all would decide if classes keep their shares and values"
        )
    return found + told


def _same(group: GroupResult, result: ClauseResult) -> bool:
    """Whether a class is the one whose numbers the clause's result carries."""
    keys = ("outcome", "observed", "lower", "upper", "samples", "successes")
    return all(getattr(group, key) == getattr(result, key) for key in keys)


def _nothing_measured(result: ClauseResult) -> str:
    clause = result.clause
    if result.measured:
        return "no sample to judge by"
    by_label = isinstance(clause, AccuracyDropClause)
    by_label |= isinstance(clause, WrongEvidenceClause) and clause.right == "label"
    by_label |= isinstance(clause, _OVER_CLASSES) and clause.per_class and clause.class_of == "label"
    if by_label:
        return "not measured: no sample has a label"
    if isinstance(clause, LocalisationClause):
        return "not measured: no sample has a mask"
    if isinstance(clause, BaselineClause):
        return "not measured: no baseline with samples and scores to compare"
    if isinstance(clause, BudgetClause):
        return "not measured: nothing here says what it costs"
    return "not measured: the scores do not hold this metric"


def _what_would_decide(result: ClauseResult, min_samples: int) -> str:
    if not result.measured:
        return "nothing is shown"
    if result.samples_needed is None:
        return "too close to what is asked for any practical number of samples"
    if result.samples < min_samples and result.samples_needed == min_samples:
        return f"the policy asks for at least {min_samples} samples"
    if isinstance(result.clause, _COUNTED):
        return f"{result.samples_needed} samples would decide if this share held"
    return f"about {result.samples_needed} samples would decide if this value and its spread held"


def _direction(metric: str) -> str:
    return ">=" if METRICS[metric].better == "higher" else "<="


def _view(view: str) -> str:
    return "" if view == "teacher-class" else " (engine's map of its own class)"


def plain(value: float) -> str:
    """A number as it was written, with two decimals at least."""
    short = f"{value:.2f}"
    return short if float(short) == value else f"{value:.12g}"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.6g} %"


def _points(share: float) -> str:
    return f"{100 * share:.6g} percentage points"


def _amount(value: float, cost: str) -> str:
    return f"{value:.10g} {COSTS[cost].unit}"


def _rounded_down(share: float) -> str:
    return f"{math.floor(share * 10_000) / 100:.2f} %"


def _rounded_up(share: float) -> str:
    return f"{math.ceil(share * 10_000) / 100:.2f} %"
