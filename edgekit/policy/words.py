"""Clauses and their results as sentences: the same words in a terminal, a report and a log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgekit.metrics.agreement import METRICS
from edgekit.policy.clauses import (
    AccuracyDropClause,
    AgreementClause,
    Clause,
    MeanClause,
    QuantileClause,
    ShareClause,
    UndefinedClause,
)

if TYPE_CHECKING:
    from edgekit.policy.result import ClauseResult

__all__ = ["clause_in_words", "result_in_words"]

_COUNTED = (ShareClause, AgreementClause, UndefinedClause)


def clause_in_words(clause: Clause, confidence: float) -> str:
    """What is demanded, such as "share of samples with cosine >= 0.90 is at least 95 %, with 95 % confidence"."""
    sure = f"with {_percent(confidence)} confidence"
    if isinstance(clause, ShareClause):
        wanted = f"{clause.metric} {_direction(clause.metric)} {_plain(clause.threshold)}"
        share = f"is at least {_percent(clause.at_least)}, {sure}"
        return f"share of samples with {wanted}{_view(clause.view)} {share}"
    if isinstance(clause, AgreementClause):
        return f"share of samples with the teacher's top-1 is at least {_percent(clause.at_least)}, {sure}"
    if isinstance(clause, MeanClause):
        return f"mean {clause.metric}{_view(clause.view)} {_direction(clause.metric)} {_plain(clause.bound)}"
    if isinstance(clause, QuantileClause):
        quantile = f"{_percent(clause.q)} quantile of {clause.metric}{_view(clause.view)}"
        return f"{quantile} {_direction(clause.metric)} {_plain(clause.bound)}"
    if isinstance(clause, UndefinedClause):
        return f"share of samples whose two maps are both zero is at most {_percent(clause.at_most)}"
    return f"accuracy drop from teacher to engine is at most {_points(clause.at_most)}"


def result_in_words(result: ClauseResult, min_samples: int) -> str:
    """What was found, such as "57 of 60 samples (95.00 %), confidence bounds 87.64 % and 98.63 %; ..."."""
    if result.observed is None:
        found = _nothing_measured(result)
    elif isinstance(result.clause, _COUNTED):
        found = f"{result.successes} of {result.samples} samples ({100 * result.observed:.2f} %)"
        if result.lower is not None and result.upper is not None:
            found += f", confidence bounds {_rounded_down(result.lower)} and {_rounded_up(result.upper)}"
    elif isinstance(result.clause, AccuracyDropClause):
        found = f"{_points(result.observed)} on {result.samples} labelled samples"
    else:
        found = f"{result.observed:.4f} over {result.samples} samples"
    if result.outcome != "inconclusive":
        return found
    return f"{found}; {_what_would_decide(result, min_samples)}"


def _nothing_measured(result: ClauseResult) -> str:
    if isinstance(result.clause, AccuracyDropClause):
        return "not measured: no sample has a label"
    if not result.measured:
        return "not measured: the scores do not hold this metric"
    return "no sample to judge by"


def _what_would_decide(result: ClauseResult, min_samples: int) -> str:
    if not result.measured:
        return "nothing is shown"
    if result.samples_needed is None:
        return "too close to what is asked for any practical number of samples"
    if result.samples < min_samples and result.samples_needed == min_samples:
        return f"the policy asks for at least {min_samples} samples"
    return f"{result.samples_needed} samples would decide if this share held"


def _direction(metric: str) -> str:
    return ">=" if METRICS[metric].better == "higher" else "<="


def _view(view: str) -> str:
    return "" if view == "teacher-class" else " (engine's map of its own class)"


def _plain(value: float) -> str:
    """A number as it was written, with two decimals at least."""
    short = f"{value:.2f}"
    return short if float(short) == value else f"{value:.12g}"


def _percent(share: float) -> str:
    return f"{100 * share:.6g} %"


def _points(share: float) -> str:
    return f"{100 * share:.6g} percentage points"


def _rounded_down(share: float) -> str:
    return f"{math.floor(share * 10_000) / 100:.2f} %"


def _rounded_up(share: float) -> str:
    return f"{math.ceil(share * 10_000) / 100:.2f} %"
