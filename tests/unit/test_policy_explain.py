"""What `edgekit policy explain` says is so: held against verdicts on engines that are as it imagines them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from policy_tables import CASES, scores

from edgekit.cli.policy import command
from edgekit.config.documents import read_policy
from edgekit.policy.clauses import (
    CLAUSES,
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
from edgekit.policy.context import Baseline, Context
from edgekit.policy.document import load_preset, preset_names
from edgekit.policy.explain import explain_policy
from edgekit.policy.explain_words import explanation_in_words
from edgekit.policy.judging import Rule
from edgekit.policy.needs import needs_of
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge

RULE = Rule(0.95, 30, ())

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "calibration" / "policies").iterdir())


def outcome(clause: Clause, bad: int, count: int, min_samples: int = 30) -> str:
    """What the clause says of so many samples of which some are bad."""
    values = np.concatenate([np.full(count - bad, 1.0), np.zeros(bad)])
    table = scores(values, engine=(values == 0).astype(int), label=np.zeros(count))
    if isinstance(clause, WrongEvidenceClause):
        table = replace(table, engine_class=np.zeros(count, np.int64))
    elif isinstance(clause, UndefinedClause):
        table = scores(np.where(values == 0, np.nan, values))
    policy = Policy("x", 0.95, (clause, MeanClause("cosine", -0.999)), min_samples)
    beside = Context(Baseline("0" * 64, scores(np.ones(count), label=np.zeros(count))))
    return judge(policy, table, beside).clauses[0].outcome


COUNTED: tuple[Clause, ...] = (
    ShareClause("cosine", 0.5, 0.9),
    AgreementClause(0.95),
    WrongEvidenceClause("cosine", 0.5, 0.1),
    QuantileClause("cosine", 0.1, 0.5, interval="exact"),
)


@pytest.mark.parametrize("clause", COUNTED, ids=str)
@pytest.mark.parametrize("count", [60, 250, 1000])
def test_so_many_may_fail_and_not_one_more(clause: Clause, count: int) -> None:
    needs = needs_of(clause, RULE, count)
    assert needs.can_pass
    assert needs.failures is not None
    assert outcome(clause, needs.failures, count) == "pass"
    assert outcome(clause, needs.failures + 1, count) != "pass"


@pytest.mark.parametrize("clause", [UndefinedClause(0.07), AccuracyDropClause(0.03)], ids=str)
@pytest.mark.parametrize("count", [60, 100, 1000])
def test_so_many_may_be_against_a_value_without_a_bound(clause: Clause, count: int) -> None:
    needs = needs_of(clause, RULE, count)
    assert needs.failures is not None
    assert outcome(clause, needs.failures, count) == "pass"
    assert outcome(clause, needs.failures + 1, count) == "fail"


FLAWLESS: tuple[Clause, ...] = (
    *COUNTED,
    UndefinedClause(0.07),
    AccuracyDropClause(0.03),
    MeanClause("cosine", 0.5),
    MeanClause("cosine", 0.9, interval="exact"),
    MeanClause("cosine", 0.9, interval="bootstrap"),
    QuantileClause("cosine", 0.01, 0.5, interval="exact"),
    BaselineClause("agreement", 0.03),
    BaselineClause("accuracy", 0.02),
    BaselineClause("cosine", 0.02),
)


@pytest.mark.parametrize("clause", FLAWLESS, ids=str)
def test_a_flawless_engine_passes_with_so_many_and_not_with_one_fewer(clause: Clause) -> None:
    needed = needs_of(clause, RULE).flawless
    assert needed is not None
    assert outcome(clause, 0, needed) == "pass"
    assert outcome(clause, 0, needed - 1) == "inconclusive"


@pytest.mark.parametrize("clause", COUNTED, ids=str)
def test_at_the_rates_it_names_so_many_samples_decide(clause: Clause) -> None:
    for rate in needs_of(clause, RULE).rates:
        assert rate.samples is not None
        # Whole samples, and then some for the rounding.
        count = 2 * rate.samples
        bad = (1 - rate.rate) * count
        assert outcome(clause, round(bad), count) == rate.outcome


def test_no_number_is_enough_to_show_what_is_not_so() -> None:
    assert needs_of(BaselineClause("agreement", 0.0), RULE).flawless is None
    assert needs_of(MeanClause("cosine", 1.0, interval="exact"), RULE).flawless is None
    policy = Policy("x", 0.95, (AgreementClause(0.9), BaselineClause("agreement", 0.0)), 30)
    explained = explain_policy(policy, 1000)
    assert explained.smallest is None
    assert explained.to_dict()["can_pass"] is False
    assert "With 1000 it cannot: demand 2 would not be shown." in explanation_in_words(explained)


@pytest.mark.parametrize(
    ("name", "smallest", "needs"), [("default", 59, ()), ("lenient", 30, ()), ("strict", 100, ("labels",))]
)
def test_the_smallest_number_with_which_a_preset_can_pass(name: str, smallest: int, needs: tuple[str, ...]) -> None:
    explained = explain_policy(load_preset(name))
    assert (explained.smallest, explained.needs) == (smallest, needs)
    for count, expected in ((smallest, "pass"), (smallest - 1, "inconclusive")):
        assert judge(load_preset(name), scores(np.ones(count), label=np.zeros(count))).outcome == expected


@pytest.mark.parametrize("kind", CLAUSES)
def test_every_kind_is_explained(kind: str) -> None:
    clause = CASES[kind].clause
    policy = Policy("x", 0.95, (clause, ShareClause("ssim", 0.5, 0.9)), 50)
    for count in (None, 10, 400):
        explained = explain_policy(policy, count)
        text = explanation_in_words(explained)
        assert explained.clauses[0].text.split()[0] in text
        assert all(len(line) <= 100 for line in text.splitlines())
        assert json.loads(json.dumps(explained.to_dict()))["clauses"][0]["kind"] == kind
        assert "None" not in text


def test_what_must_be_there_is_told() -> None:
    clauses = (
        ShareClause("cosine", 0.5, 0.9, over="class", class_of="label"),
        LocalisationClause("pointing", bound=0.5),
        BaselineClause("accuracy", 0.02, required=False),
        BudgetClause("power-w", 5),
    )
    explained = explain_policy(Policy("x", 0.95, clauses, 50))
    assert explained.needs == ("labels", "masks", "measured cost power-w")
    assert [each.needs for each in explained.clauses] == [
        *(("labels",), ("masks",), ("baseline", "labels"), ("measured cost power-w",))
    ]
    text = explanation_in_words(explained)
    assert "needs baseline and labels; left out without" in text
    assert "needs masks; inconclusive without" in text


def test_several_demands_mean_what_is_stated() -> None:
    bounded = (ShareClause("cosine", 0.5, 0.9), AgreementClause(0.9), ShareClause("ssim", 0.5, 0.9, over="class"))
    plain = Policy("x", 0.95, (*bounded, UndefinedClause(0.1)), 50)
    several = explain_policy(plain, classes=8).multiplicity
    assert len(several.risks) == 10
    assert several.false_pass == pytest.approx(0.05)
    assert several.all_hold == pytest.approx(0.5)
    assert several.false_block == pytest.approx(0.5)
    family = explain_policy(replace(plain, family_confidence=0.95), classes=8).multiplicity
    assert family.all_hold == pytest.approx(0.95)
    assert max(family.risks) == pytest.approx(0.05 / 3)
    assert min(family.risks) == pytest.approx(0.05 / 24)
    none = explain_policy(Policy("x", 0.95, (MeanClause("cosine", 0.5),), 50))
    assert (none.multiplicity.false_block, none.multiplicity.all_hold) == (0.0, 1.0)
    assert "No demand has a confidence bound" in explanation_in_words(none)


def test_over_classes_the_samples_are_divided() -> None:
    policy = Policy("x", 0.95, (ShareClause("cosine", 0.5, 0.9, over="class", min_class_samples=20),), 50)
    (each,) = explain_policy(policy, 300, classes=10).clauses
    assert (each.flawless, each.samples, each.failures) == (29, 30, 0)
    assert "of 30 samples (300 over 10 classes)" in explanation_in_words(explain_policy(policy, 300, classes=10))


# The commands.


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(command, list(arguments), catch_exceptions=False, standalone_mode=False)
    assert done.return_value == 0
    return done.output


def test_the_presets_are_listed() -> None:
    text = run("list")
    assert all(name in text for name in preset_names())
    stored = json.loads(run("list", "--json"))["policies"]
    assert stored["default"]["smallest_number_of_samples"] == 59


def test_a_preset_is_explained_in_full() -> None:
    """The whole of it, as somebody reads it who decides whether to use it."""
    assert run("explain", "default", "--samples", "500").splitlines()[:12] == [
        "A release passes policy 'default' when all 6 demands hold (1 of them only where there is something",
        "to measure it by), on at least 50 golden samples. It fails as soon as one demand is shown not to",
        "hold; what is shown neither way is inconclusive, and does not pass.",
        "",
        "1. share of samples with cosine >= 0.90 is at least 95 %, with 95 % confidence",
        "   judged by an exact binomial bound",
        "   samples that show it: 59 if all are good, 102 at 98.75 %, 223 at 97.5 %; that show it to fail: 78",
        "   at 90 %",
        "   of 500 samples: holds with at most 16 that are not good",
        "",
        "2. mean spearman >= 0.80",
        "   judged by the value of these samples, without a bound",
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_by_domain_are_explained(path: Path) -> None:
    policy = read_policy(path)
    document = json.loads(run("explain", str(path), "--samples", "2000", "--classes", "5", "--json"))
    assert len(document["clauses"]) == len(policy.clauses)
    assert document["can_pass"] is True
    text = run("explain", str(path), "--samples", "200")
    assert "With 200 it cannot" in text


def test_a_policy_that_is_none_is_refused(tmp_path: Path) -> None:
    from edgekit.errors import BadInputError

    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\n", encoding="utf-8")
    with pytest.raises(BadInputError, match="lacks a key"):
        run("explain", str(path))
    with pytest.raises(BadInputError, match="relaxed"):
        run("explain", "relaxed")
