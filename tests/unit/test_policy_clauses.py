"""Every kind of clause: passes, fails, stays open, refuses bad values, survives storage, and says so in words."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_tables import CASES, Case, scores, with_masks

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.errors import BadInputError, IntegrityError
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.clauses import (
    BESIDE_THE_SCORES,
    CLAUSES,
    AgreementClause,
    BaselineClause,
    BudgetClause,
    Clause,
    LocalisationClause,
    MeanClause,
    QuantileClause,
    ShareClause,
    WrongEvidenceClause,
    clause_to_dict,
)
from edgekit.policy.context import NOTHING_BESIDE, Baseline, Context
from edgekit.policy.document import policy_from_dict
from edgekit.policy.policy import Policy
from edgekit.policy.result import ClauseResult
from edgekit.policy.verdict import Verdict, judge

ANYTHING = MeanClause("cosine", -0.999)
RANDOM = np.random.RandomState(3)


def policy(*clauses: Clause, min_samples: int = 50, **other: Any) -> Policy:
    return Policy("test", other.pop("confidence", 0.95), clauses, min_samples, **other)


def only(
    clause: Clause, table: ScoreTable, beside: Context = NOTHING_BESIDE, min_samples: int = 50, **other: Any
) -> ClauseResult:
    """The clause's own result; beside a clause that always holds, since a budget alone is no policy."""
    return judge(policy(clause, ANYTHING, min_samples=min_samples, **other), table, beside).clauses[0]


def test_every_kind_has_a_case() -> None:
    assert set(CASES) == set(CLAUSES)
    assert all(type(case.clause) is CLAUSES[kind] for kind, case in CASES.items())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_passes_fails_and_stays_open(case: Case) -> None:
    assert only(case.clause, case.passes, case.beside_pass).outcome == "pass"
    failed = only(case.clause, case.fails, case.beside_fail)
    assert failed.outcome == "fail"
    assert failed.samples_needed is None
    assert only(case.clause, case.open, case.beside_open).outcome == "inconclusive"
    assert failed.bound == case.clause.limit
    assert failed.better in ("higher", "lower")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_found_lies_between_its_bounds_on_the_side_it_says(case: Case) -> None:
    for table, beside in ((case.passes, case.beside_pass), (case.fails, case.beside_fail)):
        result = only(case.clause, table, beside)
        assert result.observed is not None
        good = result.observed >= result.bound if result.better == "higher" else result.observed <= result.bound
        assert good == (result.outcome == "pass")
        if result.lower is not None and result.upper is not None:
            assert result.lower <= result.observed <= result.upper


@pytest.mark.parametrize(("kind", "bad"), [(kind, bad) for kind, case in CASES.items() for bad in case.bad], ids=str)
def test_bad_values_are_refused_where_they_stand(kind: str, bad: dict[str, Any]) -> None:
    raw = {**clause_to_dict(CASES[kind].clause), **bad}
    with pytest.raises(BadInputError) as caught:
        policy_from_dict({"name": "x", "confidence": 0.9, "min_samples": 1, "clauses": [raw]}, where="x.yaml")
    assert caught.value.where == "x.yaml: clause 1"
    assert caught.value.expected
    assert caught.value.found or caught.value.message.startswith("There is no metric")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_verdict_survives_storage_with_its_words(case: Case) -> None:
    for table, beside in (
        (case.passes, case.beside_pass),
        (case.fails, case.beside_fail),
        (case.open, case.beside_open),
    ):
        verdict = judge(policy(case.clause, ANYTHING), table, beside)
        stored = parse_strict(dump_canonical(verdict.to_dict()), where="verdict")
        again = Verdict.from_dict(stored, where="verdict")
        assert again == verdict
        assert again.to_dict_in_words() == verdict.to_dict_in_words()
        assert verdict.clauses[0].text
        assert verdict.clauses[0].explanation


@pytest.mark.parametrize("kind", CLAUSES)
def test_keys_that_came_later_are_left_out_at_their_default(kind: str) -> None:
    """So that a policy that uses nothing new is stored as it was before there was anything new."""
    before = {
        "share": {"metric", "threshold", "at_least", "view"},
        "agreement": {"at_least"},
        "mean": {"metric", "bound", "view"},
        "quantile": {"metric", "q", "bound", "view"},
        "undefined": {"at_most"},
        "accuracy-drop": {"at_most", "required"},
    }
    if kind not in before:
        return
    case = CASES[kind]
    plain = replace(case.clause, interval="none") if hasattr(case.clause, "interval") else case.clause
    assert set(clause_to_dict(plain)) == {"kind", *before[kind]}
    result = only(plain, case.passes)
    assert set(result.to_dict()) == {
        *("kind", "outcome", "observed", "bound", "lower", "upper", "samples", "successes", "samples_needed"),
        *("worst", "measured"),
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_field_says_what_it_may_be(case: Case) -> None:
    assert all(item.metadata for item in fields(case.clause))


# Bounds of means and quantiles.


def test_a_mean_is_decided_by_its_bound_and_not_by_its_value() -> None:
    values = np.concatenate([np.full(90, 0.95), np.full(10, 0.55)])
    table = scores(values)
    assert only(MeanClause("cosine", 0.9), table).outcome == "pass"
    close = only(MeanClause("cosine", 0.9, interval="bootstrap"), table)
    assert close.outcome == "inconclusive"
    assert close.lower is not None
    assert close.observed is not None
    assert close.lower < 0.9 < close.observed
    assert close.samples_needed is not None
    assert close.samples_needed > 100
    assert "would decide if this value and its spread held" in close.explanation
    assert only(MeanClause("cosine", 0.87, interval="bootstrap"), table).outcome == "pass"
    assert only(MeanClause("cosine", 0.94, interval="bootstrap"), table).outcome == "fail"
    assert only(MeanClause("cosine", 0.6, interval="exact"), table).outcome == "pass"


def test_the_samples_that_a_mean_asks_for_decide_it() -> None:
    values = np.concatenate([np.full(90, 0.95), np.full(10, 0.55)])
    for interval in ("bootstrap", "exact"):
        clause = MeanClause("cosine", 0.89, interval=interval)
        asked = only(clause, scores(values)).samples_needed
        assert asked is not None
        more = -(-asked // 100) + 1
        assert only(clause, scores(np.tile(values, more))).outcome == "pass"
        assert only(clause, scores(np.tile(values, max(1, asked // 200)))).outcome == "inconclusive"


def test_a_bootstrap_decides_nothing_below_the_least_number_of_samples() -> None:
    clause = MeanClause("cosine", 0.9, interval="bootstrap")
    few = only(clause, scores(RANDOM.uniform(0.1, 0.2, 30)))
    assert (few.outcome, few.samples_needed) == ("inconclusive", 50)
    # An exact bound may.
    assert only(replace(clause, interval="exact"), scores(np.full(40, 0.0))).outcome == "fail"
    one = only(clause, scores([1.0]), min_samples=1)
    assert (one.outcome, one.samples_needed) == ("inconclusive", 2)
    assert only(clause, scores([])).outcome == "inconclusive"


@pytest.mark.parametrize("metric", ["cosine", "js-divergence"])
def test_an_exact_quantile_is_a_share(metric: str) -> None:
    """The q-quantile is good enough where a share 1 - q of the samples is, by the very same bound."""
    for bad in range(0, 40, 3):
        table = scores(np.concatenate([np.full(200 - bad, 0.95), np.full(bad, 0.5)]))
        good = 0.9 if metric == "cosine" else 0.1
        quantile = QuantileClause(metric, 0.1 if metric == "cosine" else 0.9, good, interval="exact")
        share = ShareClause(metric, good, 0.9)
        assert only(quantile, table).outcome == only(share, table).outcome, bad


def test_verdicts_do_not_depend_on_numpys_own_generators() -> None:
    table, clause = scores(RANDOM.uniform(0.8, 1, 300)), MeanClause("cosine", 0.9, interval="bootstrap")
    np.random.seed(1)
    first = only(clause, table)
    np.random.seed(2)
    assert only(clause, table) == first
    # The stream belongs to the samples, whatever they scored.
    other = replace(table, sample=tuple(reversed(table.sample)))
    assert only(clause, other).lower != first.lower


def test_bounds_are_the_ones_that_were_stored() -> None:
    """Fixed for ever: a bundle's verdict is found again on another machine, and by another numpy."""
    values = (np.arange(120) * 37 % 101) / 400 + 0.7
    found = {
        interval: (result.lower, result.upper)
        for interval in ("bootstrap", "exact")
        for result in [only(MeanClause("cosine", 0.9, interval=interval), scores(values))]
    }
    assert found == {"bootstrap": (0.812729166, 0.834270834), "exact": (0.660586425, 0.986205242)}


# Clauses over classes.


def test_the_worst_class_decides() -> None:
    classes = np.repeat([0, 1, 2], 100)
    values = np.where((classes == 1) & (np.arange(300) % 4 == 0), 0.3, 0.99)
    table = scores(values, teacher=classes)
    whole, each = ShareClause("cosine", 0.9, 0.85), ShareClause("cosine", 0.9, 0.85, over="class")
    assert only(whole, table).outcome == "pass"
    result = only(each, table)
    assert result.outcome == "fail"
    assert [(group.name, group.outcome) for group in result.groups] == [("0", "pass"), ("1", "fail"), ("2", "pass")]
    assert (result.samples, result.successes, result.observed) == (100, 75, 0.75)
    assert set(classes[list(result.worst)]) == {1}
    assert "2 of 3 classes hold; worst is class 1: 75 of 100" in result.explanation
    assert result.text.startswith("in every class of the teacher: share of samples")


@pytest.mark.parametrize(
    "clause",
    [
        ShareClause("cosine", 0.9, 0.85, over="class"),
        AgreementClause(0.85, over="class"),
        MeanClause("cosine", 0.9, over="class", interval="bootstrap"),
        MeanClause("cosine", 0.9, over="class"),
        QuantileClause("cosine", 0.1, 0.9, over="class", interval="exact"),
    ],
    ids=lambda clause: clause.kind,
)
def test_a_class_is_judged_as_if_it_were_alone(clause: Any) -> None:
    classes = np.arange(300) % 3
    values = RANDOM.uniform(0.85, 1, 300)
    engine = np.where(RANDOM.uniform(size=300) < 0.1, 5, classes)
    result = only(clause, scores(values, teacher=classes, engine=engine))
    for group in result.groups:
        chosen = classes == int(group.name)
        table = scores(values[chosen], teacher=classes[chosen], engine=engine[chosen])
        alone = only(replace(clause, over="all"), table)
        assert (group.samples, group.observed, group.successes) == (alone.samples, alone.observed, alone.successes)
        if getattr(clause, "interval", "") != "bootstrap":  # whose stream is that of the whole table
            assert (group.outcome, group.lower, group.upper) == (alone.outcome, alone.lower, alone.upper)
    outcomes = {group.outcome for group in result.groups}
    expected = "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass"
    assert result.outcome == expected


def test_small_classes_leave_it_open_or_are_skipped_and_told_of() -> None:
    classes = np.concatenate([np.zeros(100), np.ones(5)])
    table = scores(np.full(105, 0.99), teacher=classes)
    clause = ShareClause("cosine", 0.9, 0.9, over="class")
    small = only(clause, table)
    assert small.outcome == "inconclusive"
    assert small.samples_needed == 105 * 50 // 5
    skipping = only(replace(clause, small_classes="skip"), table)
    assert skipping.outcome == "pass"
    assert [group.outcome for group in skipping.groups] == ["pass", "not-measured"]
    assert "1 classes left out, with too few samples" in skipping.explanation
    # By a number of its own; and a class that small may still be shown to fail.
    assert only(replace(clause, min_class_samples=3), table).outcome == "inconclusive"
    assert only(replace(clause, at_least=0.5, min_class_samples=3), table).outcome == "pass"
    bad = scores(np.where(classes == 1, 0.1, 0.99), teacher=classes)
    assert only(clause, bad).outcome == "fail"
    nothing = only(replace(clause, small_classes="skip"), scores(np.full(20, 0.99)))
    assert nothing.outcome == "inconclusive"
    assert "no class has enough samples" in nothing.explanation


def test_classes_of_the_label_leave_out_samples_without_one() -> None:
    label = np.concatenate([np.zeros(60), np.ones(60), np.full(60, -1)])
    values = np.where(label == -1, 0.1, 0.99)
    clause = ShareClause("cosine", 0.9, 0.9, over="class", class_of="label")
    result = only(clause, scores(values, label=label))
    assert (result.outcome, [group.name for group in result.groups]) == ("pass", ["0", "1"])
    without = only(clause, scores(values))
    assert (without.outcome, without.measured) == ("inconclusive", False)
    assert "no sample has a label" in without.explanation


GROUPED = ShareClause("cosine", 0.9, 0.85, over="class")


@pytest.mark.parametrize(
    "change",
    [
        lambda groups: groups[0].update(name=0),
        lambda groups: groups[0].update(outcome="maybe"),
        lambda groups: groups[0].update(samples=-1),
        lambda groups: groups[0].update(lower="0.9"),
        lambda groups: groups[0].update(more=1),
        lambda groups: groups[0].pop("upper"),
        lambda groups: groups.append(3),
        lambda groups: groups.clear(),
    ],
)
def test_classes_of_a_stored_verdict_are_read_strictly(change: Any) -> None:
    table = scores(np.full(200, 0.99), teacher=np.arange(200) % 2)
    raw = parse_strict(dump_canonical(judge(policy(GROUPED), table).to_dict()), where="verdict")
    assert Verdict.from_dict(raw, where="verdict").clauses[0].groups
    change(raw["clauses"][0]["groups"])
    with pytest.raises(IntegrityError):
        Verdict.from_dict(raw, where="verdict")


# Wrong evidence.


def test_wrong_evidence_counts_right_answers_only() -> None:
    values = np.concatenate([np.full(150, 0.95), np.full(30, 0.2), np.full(20, np.nan)])
    engine = np.where((np.arange(200) >= 150) & (np.arange(200) < 165), 1, 0)
    result = only(WrongEvidenceClause("cosine", 0.9, 0.05), scores(values, engine=engine))
    assert (result.samples, result.successes, result.outcome) == (165, 15, "fail")
    assert set(result.worst) <= set(range(165, 180))
    labelled = WrongEvidenceClause("cosine", 0.9, 0.05, right="label")
    assert only(labelled, scores(values, engine=engine)).outcome == "inconclusive"
    assert only(replace(labelled, required=False), scores(values, engine=engine)).outcome == "not-measured"
    by_label = only(labelled, scores(values, engine=engine, label=np.ones(200)))
    assert (by_label.samples, by_label.successes, by_label.outcome) == (15, 15, "fail")


def test_wrong_evidence_mirrors_a_share() -> None:
    for wrong in range(0, 25, 2):
        table = scores(np.concatenate([np.full(200 - wrong, 0.95), np.full(wrong, 0.2)]))
        ours, share = (
            only(WrongEvidenceClause("cosine", 0.9, 0.05), table),
            only(ShareClause("cosine", 0.9, 0.95), table),
        )
        assert ours.outcome == share.outcome
        assert ours.samples_needed == share.samples_needed
        assert ours.upper == pytest.approx(1 - share.lower, abs=2e-9)  # type: ignore[operator]


# Localisation.


def test_localisation_is_held_against_what_it_says() -> None:
    engine = np.where(np.arange(100) < 20, np.nan, RANDOM.uniform(0.55, 0.65, 100))
    table = with_masks(scores(np.full(100, 0.95)), engine, engine + 0.02, 0.5)
    for clause, outcome in (
        (LocalisationClause("pointing", bound=0.5), "pass"),
        (LocalisationClause("pointing", bound=0.7), "fail"),
        (LocalisationClause("pointing", bound=0.6, interval="none"), None),
        (LocalisationClause("pointing", drop=0.03), "pass"),
        (LocalisationClause("pointing", drop=0.01), "fail"),
        (LocalisationClause("pointing", above_centre_prior=0.05), "pass"),
        (LocalisationClause("pointing", above_centre_prior=0.2), "fail"),
    ):
        result = only(clause, table)
        assert result.samples == 80
        assert outcome is None or result.outcome == outcome, clause
    # What both share falls out of the difference: the drop is known far better than either mean.
    drop = only(LocalisationClause("pointing", drop=0.03), table)
    assert drop.upper == pytest.approx(0.02, abs=1e-8)


def test_localisation_without_masks() -> None:
    bare = scores(np.full(100, 0.95))
    masked = with_masks(bare, np.full(100, np.nan), 0.5)
    for table in (bare, masked):
        required = only(LocalisationClause("pointing", bound=0.5), table)
        assert (required.outcome, required.measured) == ("inconclusive", False)
        assert "no sample has a mask" in required.explanation
        assert only(LocalisationClause("pointing", bound=0.5, required=False), table).outcome == "not-measured"


# Baselines.


def baseline(table: ScoreTable) -> Context:
    return Context(Baseline("0" * 64, table))


def test_a_baseline_is_paired_by_the_samples_digests() -> None:
    values = RANDOM.uniform(0.5, 1, 200)
    order = RANDOM.permutation(200)
    same = scores(values)
    shuffled = replace(scores(values[order]), sample=tuple(same.sample[place] for place in order))
    result = only(BaselineClause("cosine", 0.01), same, baseline(shuffled))
    assert (result.observed, result.outcome, result.samples) == (0.0, "pass", 200)
    # Half of the samples are known to the other.
    half = only(BaselineClause("cosine", 0.01), same, baseline(scores(values[100:], first=100)))
    assert (half.samples, half.outcome) == (100, "pass")
    strange = only(BaselineClause("cosine", 0.01), same, baseline(scores(values, first=1000)))
    assert (strange.outcome, strange.measured) == ("inconclusive", False)


def test_a_sample_that_is_there_twice_counts_once() -> None:
    values = np.full(60, 0.9)
    twice = replace(scores(np.tile(values, 2)), sample=scores(values).sample * 2)
    assert only(BaselineClause("cosine", 0.01), twice, baseline(scores(values))).samples == 60


def test_lower_is_better_turns_the_gain_around() -> None:
    better, worse = scores(np.full(100, 0.95)), scores(np.full(100, 0.9))
    for of in ("cosine", "js-divergence"):
        gain = only(BaselineClause(of, 0.01), better, baseline(worse))
        assert gain.observed == pytest.approx(0.05)
        assert gain.outcome == "pass"
        assert only(BaselineClause(of, 0.01), worse, baseline(better)).outcome == "fail"


def test_answers_are_compared_exactly() -> None:
    count = 1000
    old = scores(np.full(count, 0.9), engine=np.where(np.arange(count) < 50, 1, 0))
    new = scores(np.full(count, 0.9), engine=np.where((np.arange(count) >= 40) & (np.arange(count) < 60), 1, 0))
    result = only(BaselineClause("agreement", 0.01), new, baseline(old))
    # Won: 0 to 39. Lost: 50 to 59.
    assert (result.observed, result.outcome) == (0.03, "pass")
    assert result.worst == tuple(range(50, 60))
    assert result.text.startswith("agreement is worse than the baseline's by at most 1 percentage points")
    # Equal answers: how much may be lost is still bounded by how many were seen.
    equal = only(BaselineClause("agreement", 0.01), old, baseline(old))
    assert equal.lower == pytest.approx(-(1 - 0.025 ** (1 / count)), abs=1e-8)
    few = scores(np.full(100, 0.9), first=500)
    assert only(BaselineClause("agreement", 0.01), few, baseline(old)).outcome == "inconclusive"
    assert only(BaselineClause("accuracy", 0.01), new, baseline(old)).measured is False


def test_accuracy_uses_the_label_of_each_side() -> None:
    old = scores(np.full(400, 0.9), label=np.zeros(400))
    new = scores(np.full(400, 0.9), label=np.zeros(400), engine=np.where(np.arange(400) < 60, 1, 0))
    result = only(BaselineClause("accuracy", 0.05), new, baseline(old))
    assert (result.observed, result.outcome) == (-0.15, "fail")


def test_no_baseline_is_inconclusive_or_not_measured() -> None:
    table = scores(np.full(100, 0.9))
    assert only(BaselineClause("cosine", 0.1), table).outcome == "inconclusive"
    optional = only(BaselineClause("cosine", 0.1, required=False), table)
    assert optional.outcome == "not-measured"
    assert "no baseline" in optional.explanation


# Budgets, and policies without what stands beside the scores.


def test_a_cost_that_was_not_measured() -> None:
    table = scores(np.full(100, 0.9))
    assert only(BudgetClause("power-w", 5), table).outcome == "inconclusive"
    assert only(BudgetClause("power-w", 5, required=False), table).outcome == "not-measured"
    measured = only(BudgetClause("power-w", 5), table, Context(costs={"power-w": 4.25}))
    assert measured.explanation == "4.25 W measured"


def test_a_policy_says_something_about_maps_or_answers() -> None:
    with pytest.raises(BadInputError, match="nothing of the engine's answers or maps"):
        policy(BudgetClause("power-w", 5), BaselineClause("cosine", 0.1))


def test_the_policy_of_scores_leaves_out_what_they_do_not_show() -> None:
    share, budget, beside = ShareClause("cosine", 0.9, 0.9), BudgetClause("power-w", 5), BaselineClause("cosine", 0.1)
    plain = policy(share)
    assert plain.of_scores() is plain
    both = policy(share, budget, beside)
    assert both.of_scores().clauses == (share,)
    family = policy(share, budget, beside, family_confidence=0.95)
    assert family.of_scores().bound_confidence == pytest.approx(family.bound_confidence, abs=1e-12)
    assert {clause.kind for clause in both.clauses} - {clause.kind for clause in both.of_scores().clauses} == set(
        BESIDE_THE_SCORES
    )


# Several demands.


def test_the_family_divides_its_risk_among_the_bounds() -> None:
    clauses = (ShareClause("cosine", 0.9, 0.9), AgreementClause(0.9, over="class"), MeanClause("cosine", 0.5))
    assert policy(*clauses).bound_confidence == 0.95
    family = policy(*clauses, family_confidence=0.95)
    assert family.bounded == 2
    assert family.bound_confidence == pytest.approx(0.975)
    assert family.class_confidence(5) == pytest.approx(0.995)
    # A family that asks for less than each bound has anyway changes nothing.
    assert policy(*clauses, family_confidence=0.6).bound_confidence == 0.95
    table = scores(np.full(200, 0.95), teacher=np.arange(200) % 2)
    share, agreement, _ = judge(family, table).clauses
    assert share.lower == pytest.approx(0.025 ** (1 / 200), abs=1e-8)
    assert agreement.groups[0].lower == pytest.approx(0.0125 ** (1 / 100), abs=1e-8)
    assert "with 97.5 % confidence" in share.text


@pytest.mark.parametrize("value", [1, 0.4, "0.95", True])
def test_a_family_confidence_out_of_range(value: Any) -> None:
    with pytest.raises(BadInputError, match="family_confidence"):
        policy(ShareClause("cosine", 0.9, 0.9), family_confidence=value)


# Better scores never turn a pass into a fail, and bounds never cross.

MONOTONE = (
    ShareClause("cosine", 0.9, 0.8),
    ShareClause("cosine", 0.9, 0.8, over="class"),
    MeanClause("cosine", 0.8),
    MeanClause("cosine", 0.8, interval="bootstrap"),
    MeanClause("cosine", 0.8, interval="exact"),
    MeanClause("js-divergence", 0.2, interval="bootstrap"),
    QuantileClause("cosine", 0.25, 0.8, interval="exact"),
    QuantileClause("cosine", 0.25, 0.8, interval="bootstrap"),
    WrongEvidenceClause("cosine", 0.9, 0.2),
    BaselineClause("cosine", 0.05),
)


@pytest.mark.parametrize("clause", MONOTONE, ids=str)
@settings(deadline=None, max_examples=25)
@given(st.data())
def test_better_scores_never_turn_a_pass_into_a_fail(clause: Clause, data: st.DataObject) -> None:
    numbers = st.floats(0, 1).map(lambda value: round(value, 3))
    values = np.array(data.draw(st.lists(numbers, min_size=12, max_size=40)))
    gains = np.array(data.draw(st.lists(numbers, min_size=len(values), max_size=len(values))))
    beside = baseline(scores(np.full(len(values), 0.8)))
    classes = np.arange(len(values)) % 2
    before = only(clause, scores(values, teacher=classes), beside, min_samples=5)
    after = only(clause, scores(values + gains * (1 - values), teacher=classes), beside, min_samples=5)
    if before.outcome == "pass":
        assert after.outcome != "fail"
    if after.outcome == "fail":
        assert before.outcome != "pass"
    for result in (before, after):
        if result.lower is not None and result.upper is not None and result.observed is not None:
            assert result.lower <= result.observed <= result.upper
