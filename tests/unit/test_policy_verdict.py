"""Verdicts: the truth table, the exact boundaries, what counts for whom, and that nothing unshown passes."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgekit.errors import ExitCode, IntegrityError
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.clauses import (
    AccuracyDropClause,
    AgreementClause,
    Clause,
    MeanClause,
    QuantileClause,
    ShareClause,
    UndefinedClause,
)
from edgekit.policy.document import load_preset
from edgekit.policy.evaluate import right_label_wrong_evidence
from edgekit.policy.policy import Policy
from edgekit.policy.result import ClauseResult
from edgekit.policy.verdict import judge

COSINE = ShareClause("cosine", 0.9, 0.95)


def table(
    cosine: list[float],
    *,
    own: list[float] | None = None,
    label: list[int] | None = None,
    teacher: list[int] | None = None,
    engine: list[int] | None = None,
) -> ScoreTable:
    """Scores in which every higher-is-better metric equals `cosine`; NaN: two zero maps, -1: one was lost."""
    count = len(cosine)
    values = np.array(cosine, dtype=np.float64)
    lost, absent = values == -1, np.isnan(values)
    state = np.where(absent, "both_zero", np.where(lost, "one_zero", "scored"))

    def columns(of: np.ndarray) -> dict[str, np.ndarray]:
        good = {name: of if metric.better == "higher" else 1 - of for name, metric in METRICS.items()}
        return {name: np.where(of == -1, METRICS[name].worst, column) for name, column in good.items()}

    return ScoreTable(
        sample=tuple(f"{index:064x}" for index in range(count)),
        label=np.array(label if label is not None else [-1] * count, dtype=np.int64),
        teacher_class=np.array(teacher if teacher is not None else [0] * count, dtype=np.int64),
        engine_class=np.array(engine if engine is not None else teacher or [0] * count, dtype=np.int64),
        state=tuple(state.tolist()),
        metrics=columns(values),
        own_class_metrics=columns(np.array(own)) if own is not None else {},
        localisation={},
    )


def policy(*clauses: Clause, min_samples: int = 1, confidence: float = 0.95) -> Policy:
    return Policy("test", confidence, clauses, min_samples)


def only(clause: Clause, scores: ScoreTable, min_samples: int = 1) -> ClauseResult:
    verdict = judge(policy(clause, min_samples=min_samples), scores)
    (result,) = verdict.clauses
    assert verdict.outcome == (result.outcome if result.outcome != "not-measured" else "inconclusive")
    return result


NAN = float("nan")


def test_59_faultless_samples_pass_and_58_do_not() -> None:
    assert only(COSINE, table([1.0] * 59)).outcome == "pass"
    short = only(COSINE, table([1.0] * 58))
    assert (short.outcome, short.samples_needed) == ("inconclusive", 59)
    assert short.lower == pytest.approx(0.05 ** (1 / 58), abs=1e-8)


def test_the_threshold_itself_is_good_enough() -> None:
    at, below = only(COSINE, table([0.9] * 59)), only(COSINE, table([np.nextafter(0.9, 0)] * 59))
    assert (at.successes, at.outcome) == (59, "pass")
    assert (below.successes, below.outcome) == (0, "fail")
    distance = ShareClause("argmax-distance", 0.25, 0.95)
    assert only(distance, table([0.75] * 59)).successes == 59
    assert only(distance, table([0.74] * 59)).successes == 0


def test_a_share_fails_as_soon_as_it_is_shown_to_be_too_low_however_few_the_samples() -> None:
    result = only(COSINE, table([0.1] * 4), min_samples=50)
    assert result.outcome == "fail"
    assert result.samples_needed is None
    assert result.upper is not None
    assert result.upper < 0.95


def test_nothing_passes_below_the_least_number_of_samples() -> None:
    result = only(COSINE, table([1.0] * 80), min_samples=100)
    assert (result.outcome, result.samples_needed) == ("inconclusive", 100)
    assert result.explanation.endswith("the policy asks for at least 100 samples")
    assert only(COSINE, table([1.0] * 30), min_samples=40).samples_needed == 59
    assert only(COSINE, table([1.0] * 100), min_samples=100).outcome == "pass"


def test_a_share_exactly_as_asked_is_never_decided() -> None:
    result = only(COSINE, table([1.0] * 95 + [0.0] * 5))
    assert (result.outcome, result.observed, result.samples_needed) == ("inconclusive", 0.95, None)
    assert "too close" in result.explanation


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.data(), st.sampled_from([0.5, 0.9, 0.95]), st.integers(1, 120))
def test_a_share_follows_its_exact_binomial_tails(n: int, data: st.DataObject, asked: float, least: int) -> None:
    good = data.draw(st.integers(0, n))
    scores = table([1.0] * good + [0.0] * (n - good))
    result = only(ShareClause("cosine", 0.9, asked), scores, min_samples=least)
    at_least = stats.binom.sf(good - 1, n, asked)
    at_most = stats.binom.cdf(good, n, asked)
    if at_least <= 0.05:
        assert result.outcome == ("pass" if n >= least else "inconclusive")
    else:
        assert result.outcome == ("fail" if at_most < 0.05 else "inconclusive")
    if result.outcome == "inconclusive":
        assert result.samples_needed is None or result.samples_needed > n
    assert result.lower is not None
    assert result.upper is not None
    assert result.lower <= good / n <= result.upper


def test_undefined_samples_are_left_out_of_map_clauses_and_counted_by_their_own() -> None:
    scores = table([1.0] * 59 + [NAN] * 41)
    verdict = judge(policy(COSINE, MeanClause("ssim", 0.9), AgreementClause(0.9), UndefinedClause(0.4)), scores)
    share, average, agreement, undefined = verdict.clauses
    assert (share.samples, share.outcome) == (59, "pass")
    assert (average.samples, average.observed) == (59, 1.0)
    assert (agreement.samples, agreement.outcome) == (100, "pass")
    assert (undefined.samples, undefined.successes, undefined.observed) == (100, 41, 0.41)
    assert (undefined.outcome, verdict.outcome) == ("fail", "fail")
    assert undefined.worst == tuple(range(59, 69))
    assert verdict.states == {"scored": 59, "both_zero": 41, "one_zero": 0, "non_finite": 0}


def test_the_bounds_of_point_clauses_are_inclusive() -> None:
    assert only(UndefinedClause(0.05), table([1.0] * 95 + [NAN] * 5)).outcome == "pass"
    assert only(UndefinedClause(0.05), table([1.0] * 94 + [NAN] * 6)).outcome == "fail"
    assert only(UndefinedClause(0.0), table([1.0] * 5)).outcome == "pass"
    assert only(MeanClause("cosine", 0.75), table([0.5, 1.0])).outcome == "pass"
    assert only(MeanClause("cosine", 0.76), table([0.5, 1.0])).outcome == "fail"
    assert only(MeanClause("js-divergence", 0.25), table([0.5, 1.0])).outcome == "pass"
    assert only(MeanClause("js-divergence", 0.24), table([0.5, 1.0])).outcome == "fail"


def test_quantiles_interpolate_and_face_the_bound_in_the_metrics_direction() -> None:
    scores = table([index / 10 for index in range(11)])
    assert only(QuantileClause("cosine", 0.25, 0.25), scores).observed == 0.25
    assert only(QuantileClause("cosine", 0.25, 0.25), scores).outcome == "pass"
    assert only(QuantileClause("cosine", 0.25, 0.3), scores).outcome == "fail"
    assert only(QuantileClause("js-divergence", 0.9, 0.9), scores).outcome == "pass"
    assert only(QuantileClause("js-divergence", 0.9, 0.85), scores).outcome == "fail"


@pytest.mark.parametrize(
    "clause", [MeanClause("cosine", 0.1), QuantileClause("cosine", 0.5, 0.1), UndefinedClause(0.9)], ids=str
)
def test_point_clauses_are_inconclusive_with_too_few_samples(clause: Clause) -> None:
    few = only(clause, table([1.0] * 9), min_samples=10)
    assert (few.outcome, few.samples_needed) == ("inconclusive", 10)
    assert only(clause, table([1.0] * 10), min_samples=10).outcome == "pass"


def test_lost_maps_cannot_hide_in_a_mean() -> None:
    clause = MeanClause("cosine", 0.95)
    assert only(clause, table([1.0] * 97 + [0.9] * 3)).outcome == "pass"
    lost = only(clause, table([1.0] * 97 + [-1.0] * 3))
    assert lost.observed == pytest.approx(0.94)
    assert lost.outcome == "fail"
    assert lost.worst[:3] == (97, 98, 99)


def test_the_worst_samples_come_first_and_are_few() -> None:
    values = [0.99, 0.2, 0.95, 0.4, 0.1] + [1.0] * 20
    assert only(COSINE, table(values)).worst[:5] == (4, 1, 3, 2, 0)
    assert only(ShareClause("js-divergence", 0.1, 0.95), table(values)).worst[:5] == (4, 1, 3, 2, 0)
    assert len(only(COSINE, table(values)).worst) == 10
    swapped = table([1.0] * 4, teacher=[0, 1, 2, 3], engine=[0, 2, 2, -1])
    assert only(AgreementClause(0.5), swapped).worst == (1, 3)


def test_accuracy_may_drop_by_exactly_the_bound() -> None:
    label = [0] * 100
    scores = table([1.0] * 100, label=label, teacher=[0] * 90 + [1] * 10, engine=[0] * 88 + [1] * 12)
    result = only(AccuracyDropClause(0.02), scores)
    # The difference of the two shares is 0.020000000000000018.
    assert (result.observed, result.outcome, result.samples) == (0.02, "pass", 100)
    assert result.worst == (88, 89)
    assert only(AccuracyDropClause(0.0199), scores).outcome == "fail"
    better = table([1.0] * 100, label=label, teacher=[0] * 88 + [1] * 12, engine=[0] * 90 + [1] * 10)
    assert only(AccuracyDropClause(-0.01), better).outcome == "pass"
    assert only(AccuracyDropClause(-0.03), better).outcome == "fail"


def test_accuracy_without_labels_is_not_measured_and_when_demanded_inconclusive() -> None:
    scores = table([1.0] * 60)
    optional = only(AccuracyDropClause(0.02, required=False), scores)
    assert (optional.outcome, optional.observed) == ("not-measured", None)
    assert optional.explanation == "not measured: no sample has a label"
    demanded = only(AccuracyDropClause(0.02), scores)
    assert demanded.outcome == "inconclusive"
    both = judge(policy(COSINE, AccuracyDropClause(0.02, required=False)), scores)
    assert both.outcome == "pass"


def test_accuracy_counts_labelled_samples_only() -> None:
    scores = table([1.0] * 12, label=[0] * 9 + [-1] * 3, teacher=[0] * 12, engine=[0] * 9 + [1] * 3)
    assert only(AccuracyDropClause(0.02), scores).samples == 9
    assert only(AccuracyDropClause(0.02), scores, min_samples=10).outcome == "inconclusive"


def test_a_view_reads_the_maps_it_names() -> None:
    scores = table([1.0] * 60, own=[0.2] * 59 + [NAN])
    # A teacher's map that is not zero cannot have an undefined comparison: such a table is refused.
    with pytest.raises(IntegrityError):
        judge(policy(COSINE), scores)
    scores = table([1.0] * 59 + [NAN], own=[0.2] * 59 + [NAN])
    assert only(COSINE, scores).outcome == "pass"
    own = only(replace(COSINE, view="own-class"), scores)
    assert (own.samples, own.outcome) == (59, "fail")


def test_own_class_maps_may_be_comparable_where_the_others_are_both_zero() -> None:
    scores = table([1.0] * 59 + [NAN], own=[1.0] * 59 + [-1.0])
    own = only(replace(COSINE, view="own-class"), scores)
    assert (own.samples, own.successes) == (60, 59)
    assert own.worst[0] == 59


def test_a_metric_that_was_not_scored_is_inconclusive_and_says_so() -> None:
    scores = table([1.0] * 60)
    for clause in (
        replace(COSINE, view="own-class"),
        MeanClause("ssim", 0.5, view="own-class"),
        QuantileClause("ssim", 0.5, 0.5, view="own-class"),
    ):
        result = only(clause, scores)
        assert (result.outcome, result.measured) == ("inconclusive", False)
        assert "not measured" in result.explanation


@pytest.mark.parametrize("name", ["default", "lenient", "strict"])
@pytest.mark.parametrize("scores", [table([]), table([NAN] * 200)], ids=["empty", "all undefined"])
def test_a_table_that_shows_nothing_never_passes(name: str, scores: ScoreTable) -> None:
    verdict = judge(load_preset(name), scores)
    assert verdict.outcome != "pass"
    assert all(result.outcome != "pass" for result in verdict.clauses if "cosine" in result.text)
    if len(scores) == 0:
        assert verdict.outcome == "inconclusive"


def test_an_empty_table_says_how_many_samples_a_faultless_engine_would_need() -> None:
    assert only(COSINE, table([])).samples_needed == 59
    assert only(MeanClause("cosine", 0.5), table([]), min_samples=50).samples_needed == 50


def outcomes_of(clause: str) -> Clause:
    """On 100 samples of cosine 0.95, agreement 0.5, no labels: a clause with the outcome it is named after."""
    return {
        "pass": MeanClause("cosine", 0.9),
        "fail": MeanClause("cosine", 0.99),
        "inconclusive": AgreementClause(0.5),
        "not-measured": AccuracyDropClause(0.5, required=False),
    }[clause]


KINDS = ("pass", "fail", "inconclusive", "not-measured")


@pytest.mark.parametrize("held", [held for size in (1, 2, 3, 4) for held in permutations(KINDS, size)], ids="-".join)
def test_truth_table(held: tuple[str, ...]) -> None:
    scores = table([0.95] * 100, teacher=[0] * 100, engine=[0, 1] * 50)
    verdict = judge(policy(*map(outcomes_of, held)), scores)
    assert tuple(result.outcome for result in verdict.clauses) == held
    if "fail" in held:
        expected = ("fail", ExitCode.GATE_FAILED)
    elif "inconclusive" in held or "pass" not in held:
        expected = ("inconclusive", ExitCode.INCONCLUSIVE)
    else:
        expected = ("pass", ExitCode.OK)
    assert (verdict.outcome, verdict.exit_code) == expected


def test_right_for_the_wrong_reason() -> None:
    cosine = [1.0, 0.5, 0.5, 0.5, -1.0, NAN, 1.0]
    scores = table(
        cosine,
        own=[1.0, 1.0, 1.0, 1.0, 1.0, NAN, 0.5],
        label=[0, 0, 1, -1, 0, 0, 0],
        teacher=[0, 1, 0, 2, 0, 0, 0],
        engine=[0, 0, 0, 2, 0, 0, 0],
    )
    # 1: right by its label though the teacher is not; 2: wrong; 3: right by the teacher; 4: map lost; 5: undefined.
    assert right_label_wrong_evidence(policy(COSINE), scores).nonzero()[0].tolist() == [1, 3, 4]
    both = policy(COSINE, replace(COSINE, view="own-class"))
    assert right_label_wrong_evidence(both, scores).nonzero()[0].tolist() == [1, 3, 4, 6]
    assert right_label_wrong_evidence(policy(MeanClause("ssim", 0.5)), scores).nonzero()[0].tolist() == [4]
    assert judge(policy(COSINE), scores).right_label_wrong_evidence == 3


def test_good_maps_pass_every_preset_and_drifted_ones_fail_each() -> None:
    rng = np.random.default_rng(4)
    label = rng.integers(0, 5, 400).tolist()
    good = table(rng.uniform(0.96, 1.0, 400).tolist(), own=[0.97] * 400, label=label, teacher=label)
    drifted = table(rng.uniform(0.2, 0.9, 400).tolist(), own=[0.97] * 400, label=label, teacher=label)
    for name in ("default", "lenient", "strict"):
        assert judge(load_preset(name), good).outcome == "pass"
        assert judge(load_preset(name), drifted).outcome == "fail"


def test_explanations_are_rounded_away_from_claims() -> None:
    result = only(COSINE, table([1.0] * 57 + [0.0] * 3))
    lower, upper = stats.beta.ppf(0.05, 57, 4), stats.beta.ppf(0.95, 58, 3)
    assert result.explanation.startswith("57 of 60 samples (95.00 %), confidence bounds ")
    shown = [float(word) / 100 for word in result.explanation.split() if word.count(".") == 1 and word[0].isdigit()]
    assert shown[0] <= lower < shown[0] + 1e-4
    assert shown[1] - 1e-4 < upper <= shown[1]
    assert only(MeanClause("ssim", 0.5), table([0.75] * 4)).explanation == "0.7500 over 4 samples"
    drop = table([1.0] * 50, label=[0] * 50, teacher=[0] * 50, engine=[1] + [0] * 49)
    assert only(AccuracyDropClause(0.05), drop).explanation == "2 percentage points on 50 labelled samples"
    assert only(COSINE, table([1.0] * 58)).explanation.endswith("59 samples would decide if this share held")
    assert "no sample to judge by" in only(COSINE, table([])).explanation


def test_an_impossible_table_is_not_judged() -> None:
    scores = table([1.0] * 60)
    with pytest.raises(IntegrityError, match="impossible"):
        judge(policy(COSINE), replace(scores, metrics=scores.metrics | {"cosine": np.full(60, NAN)}))
