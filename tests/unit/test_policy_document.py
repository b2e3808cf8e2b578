"""Policies as documents: strict reading, refusal of gates that are none, presets, and the words for every clause."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.errors import BadInputError
from edgekit.metrics.agreement import METRICS, score_agreement
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
from edgekit.policy.document import load_preset, policy_from_dict, preset_names
from edgekit.policy.policy import Policy
from edgekit.policy.words import clause_in_words

ONE_OF_EACH: dict[str, tuple[Clause, str]] = {
    "share": (
        ShareClause("cosine", 0.9, 0.95),
        "share of samples with cosine >= 0.90 is at least 95 %, with 95 % confidence",
    ),
    "agreement": (
        AgreementClause(0.9),
        "share of samples with the teacher's top-1 is at least 90 %, with 95 % confidence",
    ),
    "mean": (MeanClause("argmax-distance", 0.125), "mean argmax-distance <= 0.125"),
    "quantile": (
        QuantileClause("ssim", 0.05, 0.5, view="own-class"),
        "5 % quantile of ssim (engine's map of its own class) >= 0.50",
    ),
    "undefined": (UndefinedClause(0.05), "share of samples whose two maps are both zero is at most 5 %"),
    "accuracy-drop": (
        AccuracyDropClause(0.02, required=False),
        "accuracy drop from teacher to engine is at most 2 percentage points",
    ),
    "wrong-evidence": (
        WrongEvidenceClause("cosine", 0.9, 0.05, right="label"),
        "of samples with the right label, the share without cosine >= 0.90 is at most 5 %, with 95 % confidence",
    ),
    "localisation": (
        LocalisationClause("energy-inside", drop=0.05, required=False),
        "mean energy-inside of the engine's map on masks is below the teacher's by at most 0.05, with 95 % confidence",
    ),
    "no-worse-than-baseline": (
        BaselineClause("agreement", 0.01),
        "agreement is worse than the baseline's by at most 1 percentage points, on the same samples, with 95 % "
        "confidence",
    ),
    "budget": (BudgetClause("latency-p99-ms", 12.5), "99th percentile of the latency at batch 1 is at most 12.5 ms"),
}


def document() -> dict[str, Any]:
    policy = Policy("mine", 0.95, tuple(clause for clause, _ in ONE_OF_EACH.values()), 50)
    plain: dict[str, Any] = json.loads(dump_canonical(policy.to_dict()))
    return plain


def test_one_of_each_kind_is_tested_here() -> None:
    assert set(ONE_OF_EACH) == set(CLAUSES)
    assert all(CLAUSES[kind] is type(clause) for kind, (clause, _) in ONE_OF_EACH.items())


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_every_clause_has_its_sentence(kind: str) -> None:
    clause, sentence = ONE_OF_EACH[kind]
    assert clause_in_words(clause, 0.95) == sentence


@pytest.mark.parametrize("metric", METRICS)
def test_the_sentence_points_in_the_direction_of_the_metric(metric: str) -> None:
    sign = "<=" if METRICS[metric].better == "lower" else ">="
    assert f"with {metric} {sign} 0.25 (engine's" in clause_in_words(
        ShareClause(metric, 0.25, 0.5, view="own-class"), 0.99
    )


def test_a_policy_survives_storage() -> None:
    policy = policy_from_dict(document(), where="here")
    assert policy_from_dict(policy.to_dict(), where="here") == policy
    assert dump_canonical(policy.to_dict()) == dump_canonical(document())


def test_whole_numbers_and_defaults_are_read_as_people_write_them() -> None:
    raw = {
        "name": "short",
        "confidence": 0.9,
        "min_samples": 1,
        "clauses": [{"kind": "mean", "metric": "cosine", "bound": 1}, {"kind": "undefined", "at_most": 0}],
    }
    policy = policy_from_dict(raw, where="here")
    assert policy.clauses == (MeanClause("cosine", 1.0, "teacher-class"), UndefinedClause(0.0))
    assert isinstance(policy.clauses[0].bound, float)  # type: ignore[union-attr]
    assert policy.to_dict()["format"] == "edgekit.policy/1"


@pytest.mark.parametrize("name", ["default", "lenient", "strict"])
def test_the_presets_are_read_and_named_after_their_file(name: str) -> None:
    policy = load_preset(name)
    assert policy.name == name
    stored = parse_strict(dump_canonical(policy.to_dict()), where=name)
    assert policy_from_dict(stored, where=name) == policy
    assert any(isinstance(clause, AgreementClause) for clause in policy.clauses)
    assert any(isinstance(clause, UndefinedClause) for clause in policy.clauses)


def test_the_presets_are_these_and_others_are_refused() -> None:
    assert preset_names() == ("default", "lenient", "strict")
    with pytest.raises(BadInputError, match="relaxed") as caught:
        load_preset("relaxed")
    assert "default, lenient, strict" in str(caught.value.expected)
    with pytest.raises(BadInputError):
        load_preset("../presets/default")


def test_the_default_demands_what_its_documentation_says() -> None:
    assert load_preset("default") == Policy(
        name="default",
        confidence=0.95,
        min_samples=50,
        clauses=(
            ShareClause("cosine", 0.9, 0.95),
            MeanClause("spearman", 0.8),
            MeanClause("iou-top20", 0.6),
            AgreementClause(0.9),
            UndefinedClause(0.05),
            AccuracyDropClause(0.02, required=False),
        ),
    )


def bounds_of(policy: Policy) -> dict[tuple[str, str, str], float]:
    """Each demand's strength, larger for stricter, by what it is about."""
    strength: dict[tuple[str, str, str], float] = {}
    for clause in policy.clauses:
        metric, view = getattr(clause, "metric", ""), getattr(clause, "view", "")
        for name, value in vars(clause).items():
            if isinstance(value, float):
                lower = name == "at_most" or (name != "at_least" and metric and METRICS[metric].better == "lower")
                strength[clause.kind, f"{metric}/{view}", name] = -value if lower else value
    return strength


def test_strict_is_stricter_than_default_and_lenient_laxer() -> None:
    lenient, default, strict = (load_preset(name) for name in ("lenient", "default", "strict"))
    for laxer, stricter in ((lenient, default), (default, strict)):
        ours, theirs = bounds_of(laxer), bounds_of(stricter)
        assert set(ours) <= set(theirs)
        assert all(theirs[key] > value for key, value in ours.items())
        assert stricter.min_samples > laxer.min_samples


def test_what_the_presets_documentation_claims_about_noise_is_so() -> None:
    noise = np.random.default_rng(0).random((2, 400, 10, 10))
    _, metrics = score_agreement(noise[0], noise[1], ["cosine", "iou-top20"])
    assert metrics["cosine"].mean() == pytest.approx(0.75, abs=0.01)
    assert metrics["iou-top20"].mean() == pytest.approx(0.11, abs=0.01)


def edited(place: int | None, **changes: Any) -> dict[str, Any]:
    raw = document()
    target = raw if place is None else raw["clauses"][place]
    for key, value in changes.items():
        if value is ...:
            del target[key]
        else:
            target[key] = value
    return raw


SHARE, AGREEMENT, MEAN, QUANTILE, UNDEFINED, DROP = range(6)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (edited(None, confidense=0.9), "confidense"),
    "missing name": (edited(None, name=...), "lacks"),
    "missing confidence": (edited(None, confidence=...), "lacks"),
    "missing min_samples": (edited(None, min_samples=...), "lacks"),
    "missing clauses": (edited(None, clauses=...), "lacks"),
    "other format": (edited(None, format="edgekit.policy/9"), "format"),
    "empty name": (edited(None, name=" "), "name"),
    "name not text": (edited(None, name=3), "name"),
    "no clauses": (edited(None, clauses=[]), "clauses"),
    "clauses a mapping": (edited(None, clauses={"kind": "agreement"}), "list"),
    "clause text": (edited(None, clauses=["cosine >= 0.9"]), "kind"),
    "the same demand twice": (edited(None, clauses=[{"kind": "agreement", "at_least": 0.5}] * 2), "twice"),
    "certain": (edited(None, confidence=1.0), "confidence"),
    "unsure": (edited(None, confidence=0.49), "confidence"),
    "percent for a share": (edited(None, confidence=95), "confidence"),
    "confidence not a number": (edited(None, confidence=float("nan")), "confidence"),
    "no least number": (edited(None, min_samples=0), "min_samples"),
    "half a sample": (edited(None, min_samples=50.5), "min_samples"),
    "min_samples true": (edited(None, min_samples=True), "min_samples"),
    "unknown kind": (edited(SHARE, kind="proportion"), "unknown kind"),
    "kind a list": (edited(SHARE, kind=["share"]), "unknown kind"),
    "unknown clause key": (edited(SHARE, treshold=0.9), "treshold"),
    "missing clause key": (edited(SHARE, threshold=...), "lacks"),
    "unknown metric": (edited(SHARE, metric="cosin"), "cosin"),
    "metric not text": (edited(SHARE, metric=["cosine"]), "not a name"),
    "unknown view": (edited(SHARE, view="both"), "view"),
    "threshold out of range": (edited(SHARE, threshold=1.1), "threshold"),
    "threshold that every sample reaches": (edited(SHARE, threshold=-1), "threshold"),
    "threshold text": (edited(SHARE, threshold="0.9"), "threshold"),
    "threshold true": (edited(SHARE, threshold=True), "threshold"),
    "share of all": (edited(SHARE, at_least=1.0), "at_least"),
    "share of none": (edited(SHARE, at_least=0), "at_least"),
    "agreement of all": (edited(AGREEMENT, at_least=1), "at_least"),
    "agreement in percent": (edited(AGREEMENT, at_least=90), "at_least"),
    "mean that every engine reaches": (edited(MEAN, bound=1.0), "bound"),
    "mean not finite": (edited(MEAN, bound=float("inf")), "bound"),
    "quantile at the end": (edited(QUANTILE, q=0), "q of"),
    "quantile beyond": (edited(QUANTILE, q=1.5), "q of"),
    "all may be undefined": (edited(UNDEFINED, at_most=1), "at_most"),
    "undefined negative": (edited(UNDEFINED, at_most=-0.1), "at_most"),
    "undefined false": (edited(UNDEFINED, at_most=False), "at_most"),
    "undefined null": (edited(UNDEFINED, at_most=None), "at_most"),
    "drop of everything": (edited(DROP, at_most=1), "at_most"),
    "required as text": (edited(DROP, required="no"), "required"),
}


@pytest.mark.parametrize(("raw", "message"), REFUSED.values(), ids=REFUSED)
def test_a_policy_that_is_misspelt_or_no_gate_is_refused_with_its_place(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        policy_from_dict(copy.deepcopy(raw), where="policy.yaml")
    assert str(caught.value.where).startswith("policy.yaml")


@pytest.mark.parametrize("raw", [None, [], "default", 3])
def test_what_is_no_policy_at_all_is_refused(raw: object) -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        policy_from_dict(raw, where="policy.yaml")


def test_messages_name_what_is_known_and_the_clause_concerned() -> None:
    with pytest.raises(BadInputError) as caught:
        policy_from_dict(edited(MEAN, metric="cosin"), where="policy.yaml")
    assert caught.value.where == "policy.yaml: clause 3"
    assert caught.value.expected == "one of " + ", ".join(METRICS)
    with pytest.raises(BadInputError) as caught:
        policy_from_dict(edited(SHARE, kind="proportion"), where="policy.yaml")
    assert caught.value.expected == "kind: one of " + ", ".join(CLAUSES)
    with pytest.raises(BadInputError) as caught:
        policy_from_dict(edited(SHARE, treshold=0.9), where="policy.yaml")
    assert caught.value.hint == "did you mean 'threshold'?"


def test_a_policy_made_in_code_is_held_to_the_same() -> None:
    with pytest.raises(BadInputError, match="clauses"):
        Policy("empty", 0.95, (), 50)
    with pytest.raises(BadInputError, match="threshold"):
        ShareClause("js-divergence", 1.0, 0.95)
