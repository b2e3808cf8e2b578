"""The published schema of policies takes what the reader takes, and refuses what it refuses, in the same place."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
from policy_tables import CASES

from edgekit.config.policy_schema import policy_schema
from edgekit.errors import BadInputError
from edgekit.policy.clauses import CLAUSES, clause_to_dict
from edgekit.policy.document import load_preset, policy_from_dict, preset_names
from edgekit.policy.policy import Policy

CHECK = jsonschema.Draft202012Validator(policy_schema())


def document(*clauses: dict[str, Any], **other: Any) -> dict[str, Any]:
    raw = {"name": "mine", "confidence": 0.95, "min_samples": 50, "clauses": list(clauses or (SHARE,)), **other}
    return {key: value for key, value in raw.items() if value is not ...}


SHARE = clause_to_dict(CASES["share"].clause)


def places(raw: dict[str, Any]) -> set[int | None]:
    """Numbers of the clauses, counted from 1, that the schema complains about; None for the policy itself."""
    found = set()
    for error in CHECK.iter_errors(raw):
        path = list(error.absolute_path)
        found.add(path[1] + 1 if len(path) > 1 and path[0] == "clauses" else None)
    return found


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(policy_schema())


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid(name: str) -> None:
    CHECK.validate(json.loads(json.dumps(load_preset(name).to_dict())))


@pytest.mark.parametrize("kind", CLAUSES)
def test_every_kind_is_valid_and_described(kind: str) -> None:
    clause = CASES[kind].clause
    policy = Policy("x", 0.9, tuple({clause, CASES["share"].clause}), 1, 0.95)
    CHECK.validate(json.loads(json.dumps(policy.to_dict())))
    node = policy_schema()["$defs"][kind]
    assert node["description"].endswith((".", "with confidence.", "they are, or with confidence."))
    assert all(value.get("description") or key == "kind" for key, value in node["properties"].items())


CLAUSE_CASES = {
    f"{kind} {bad}": {**clause_to_dict(case.clause), **bad}
    for kind, case in CASES.items()
    for bad in case.bad
    if float("inf") not in bad.values()  # which no JSON can write
}
CLAUSE_CASES |= {
    "not a mapping": "cosine >= 0.9",  # type: ignore[dict-item]
    "no kind": {"metric": "cosine", "threshold": 0.9, "at_least": 0.9},
    "unknown kind": {**SHARE, "kind": "proportion"},
    "kind a list": {**SHARE, "kind": ["share"]},
    "unknown key": {**SHARE, "treshold": 0.9},
    "missing key": {"kind": "share", "metric": "cosine", "at_least": 0.9},
    "threshold above the best": {**SHARE, "threshold": 1.01},
    "threshold of a distance": {**SHARE, "metric": "argmax-distance", "threshold": 1},
    "threshold text": {**SHARE, "threshold": "0.9"},
    "threshold true": {**SHARE, "threshold": True},
    "classes without over": {**SHARE, "class_of": "label"},
    "skipping without over": {**SHARE, "over": "all", "small_classes": "skip"},
    "negative classes": {**SHARE, "over": "class", "min_class_samples": -1},
    "no demand of masks": {"kind": "localisation", "metric": "pointing"},
    "two demands of masks": {"kind": "localisation", "metric": "pointing", "bound": 0.5, "drop": 0.1},
    "margin of everything": {"kind": "no-worse-than-baseline", "of": "accuracy", "margin": 1},
    "view of answers": {"kind": "no-worse-than-baseline", "of": "accuracy", "margin": 0.1, "view": "own-class"},
    "confidence of a bound": {**SHARE, "confidence": 0.9},
}


@pytest.mark.parametrize("clause", CLAUSE_CASES.values(), ids=CLAUSE_CASES)
def test_a_clause_is_refused_by_both_in_the_same_place(clause: Any) -> None:
    raw = document(clause_to_dict(CASES["agreement"].clause), clause)
    with pytest.raises(BadInputError) as caught:
        policy_from_dict(copy.deepcopy(raw), where="x.yaml")
    assert caught.value.where == "x.yaml: clause 2"
    assert places(raw) == {2}


POLICY_CASES = {
    "unknown key": document(confidense=0.9),
    "missing name": document(name=...),
    "empty name": document(name=" "),
    "name a number": document(name=3),
    "missing confidence": document(confidence=...),
    "certain": document(confidence=1.0),
    "unsure": document(confidence=0.49),
    "in percent": document(confidence=95),
    "confidence text": document(confidence="0.95"),
    "family certain": document(family_confidence=1),
    "family unsure": document(family_confidence=0.2),
    "family text": document(family_confidence="high"),
    "no samples": document(min_samples=0),
    "half a sample": document(min_samples=0.5),
    "samples true": document(min_samples=True),
    "other format": document(format="edgekit.policy/2"),
    "no clauses": document(clauses=[]),
    "clauses a mapping": document(clauses={"kind": "agreement"}),
    "the same twice": document(SHARE, SHARE),
    "only costs": document(clause_to_dict(CASES["budget"].clause)),
    "only beside": document(
        clause_to_dict(CASES["budget"].clause), clause_to_dict(CASES["no-worse-than-baseline"].clause)
    ),
}


@pytest.mark.parametrize("raw", POLICY_CASES.values(), ids=POLICY_CASES)
def test_a_policy_is_refused_by_both_and_not_for_a_clause(raw: dict[str, Any]) -> None:
    with pytest.raises(BadInputError) as caught:
        policy_from_dict(copy.deepcopy(raw), where="x.yaml")
    assert caught.value.where == "x.yaml"
    assert places(raw) == {None}


TAKEN = {
    "whole numbers": document({"kind": "mean", "metric": "cosine", "bound": 1}, {"kind": "undefined", "at_most": 0}),
    "defaults spelt out": document({**SHARE, "over": "all", "class_of": "teacher", "min_class_samples": 0}),
    "nothing demanded of the family": document(family_confidence=None),
    "null for what is not demanded": document(
        {"kind": "localisation", "metric": "pointing", "bound": 0.5, "drop": None}
    ),
    "with its format": document(format="edgekit.policy/1"),
    "per class": document({**SHARE, "over": "class", "class_of": "label", "min_class_samples": 20}),
}


@pytest.mark.parametrize("raw", TAKEN.values(), ids=TAKEN)
def test_both_take_what_people_write(raw: dict[str, Any]) -> None:
    policy_from_dict(copy.deepcopy(raw), where="x.yaml")
    assert places(raw) == set()
