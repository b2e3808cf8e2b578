"""Policies whose samples are watched: what they may hold, and by what bounds they judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import BadInputError
from edgekit.metrics.anytime import anytime_mean_bounds, anytime_share_bounds
from edgekit.policy.clauses import (
    CLAUSES,
    AccuracyDropClause,
    AgreementClause,
    BudgetClause,
    Clause,
    LocalisationClause,
    MeanClause,
    QuantileClause,
    ShareClause,
    UndefinedClause,
    WrongEvidenceClause,
    may_be_watched,
)
from edgekit.policy.document import policy_from_dict
from edgekit.policy.judging import Rule, Scale, judge_mean, judge_quantile, judge_share
from edgekit.policy.policy import Policy

WATCHED = Rule(0.95, 10, (0,) * 8, sequential=True)
FIXED = Rule(0.95, 10, (0,) * 8)
ALLOWED: tuple[Clause, ...] = (
    ShareClause("cosine", 0.9, 0.95),
    ShareClause("cosine", 0.9, 0.8, over="class"),
    AgreementClause(0.9),
    WrongEvidenceClause("cosine", 0.9, 0.05),
    MeanClause("ssim", 0.8, interval="exact"),
    QuantileClause("cosine", 0.05, 0.8, interval="exact"),
    BudgetClause("latency-p50-ms", 5.0),
)
REFUSED: tuple[Clause, ...] = (
    MeanClause("ssim", 0.8),
    MeanClause("ssim", 0.8, interval="bootstrap"),
    QuantileClause("cosine", 0.05, 0.8),
    QuantileClause("cosine", 0.05, 0.8, interval="bootstrap"),
    UndefinedClause(0.1),
    AccuracyDropClause(0.02),
    LocalisationClause("pixel-auc", bound=0.6),
)


def policy(*clauses: Clause, **values: Any) -> Policy:
    return Policy("watched", 0.95, clauses, 10, sequential=True, **values)


def test_what_may_be_watched_goes_through_the_strict_reader() -> None:
    whole = policy(*ALLOWED)
    assert whole.to_dict()["sequential"] is True
    assert policy_from_dict(whole.to_dict(), where="here") == whole
    assert "sequential" not in Policy("fixed", 0.95, ALLOWED, 10).to_dict()


@pytest.mark.parametrize("clause", REFUSED, ids=repr)
def test_what_may_not_is_refused(clause: Clause) -> None:
    with pytest.raises(BadInputError, match="nobody may watch") as caught:
        policy(ALLOWED[0], clause)
    assert clause.kind in str(caught.value)
    assert "interval: exact" in (caught.value.expected or "")


def test_every_kind_of_clause_was_thought_of() -> None:
    told = {clause.kind for clause in (*ALLOWED, *REFUSED)} | {"no-worse-than-baseline"}
    assert told == set(CLAUSES)
    assert all(map(may_be_watched, ALLOWED))


def test_sequential_is_true_or_false() -> None:
    with pytest.raises(BadInputError, match="sequential"):
        Policy("odd", 0.95, ALLOWED, 10, sequential="yes")  # type: ignore[arg-type]


@given(st.integers(0, 200), st.integers(0, 200))
def test_shares_are_judged_by_bounds_that_may_be_watched(good: int, bad: int) -> None:
    flags = np.arange(good + bad) < good
    judged = judge_share(flags, Scale(0.9, "higher"), WATCHED)
    bounds = anytime_share_bounds(good, good + bad, 0.95)
    assert judged.lower == pytest.approx(bounds.lower, abs=2e-9)
    assert judged.upper == pytest.approx(bounds.upper, abs=2e-9)
    # Whatever is decided under watch is decided by a bound of fixed size too, never the other way.
    fixed = judge_share(flags, Scale(0.9, "higher"), FIXED)
    assert judged.outcome in {fixed.outcome, "inconclusive"}


def test_a_mean_is_judged_by_its_bet() -> None:
    values = np.clip(np.random.RandomState(3).normal(0.95, 0.02, 200), -1, 1)
    judged = judge_mean(values, Scale(0.9, "higher", -1, 1), "exact", WATCHED)
    bounds = anytime_mean_bounds(values, 0.95, -1, 1)
    assert judged.outcome == "pass"
    assert judged.lower == pytest.approx(bounds.lower, abs=2e-9)
    assert judge_mean(values, Scale(0.99, "higher", -1, 1), "exact", WATCHED).outcome == "fail"
    few = judge_mean(values[:20], Scale(0.94, "higher", -1, 1), "exact", WATCHED)
    assert few.outcome == "inconclusive"
    assert few.samples_needed is not None
    assert few.samples_needed > 20


@pytest.mark.parametrize(("better", "limit"), [("higher", 0.8), ("lower", 0.2)])
def test_a_quantile_is_judged_as_the_share_it_stands_for(better: str, limit: float) -> None:
    values = np.concatenate([np.full(199, 0.9), np.full(1, 0.1)])
    scale, q = Scale(limit, better), 0.05
    if better == "lower":
        values, q = 1 - values, 0.95
    judged = judge_quantile(values, q, scale, "exact", WATCHED)
    share = judge_share(np.arange(200) < 199, Scale(0.95, "higher"), WATCHED)
    assert judged.outcome == share.outcome == "pass"
    assert (judged.lower, judged.upper, judged.successes) == (None, None, None)
    assert judge_quantile(values[:60], q, scale, "exact", WATCHED).samples_needed == 74


def test_what_is_told_to_be_needed_is_what_watching_needs() -> None:
    nothing = judge_share(np.zeros(0, dtype=np.bool_), Scale(0.95, "higher"), WATCHED)
    assert nothing.samples_needed == 74
    assert judge_share(np.zeros(0, dtype=np.bool_), Scale(0.95, "higher"), FIXED).samples_needed == 59
