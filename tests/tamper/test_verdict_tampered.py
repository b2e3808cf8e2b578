"""A stored verdict reads back equal, words and all, and one that was edited is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekit.core.canonical import dump_canonical
from edgekit.errors import IntegrityError
from edgekit.metrics.agreement import score_agreement
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.document import load_preset
from edgekit.policy.verdict import Verdict, judge


def some_verdict() -> Verdict:
    """Strict about 60 samples, of which one map was lost and two are undefined: clauses of every outcome."""
    rng = np.random.default_rng(9)
    teacher = rng.gamma(0.7, size=(60, 5, 5))
    engine = teacher * rng.uniform(0.95, 1.05, size=teacher.shape)
    teacher[1:3] = engine[1:4] = 0
    states, metrics = score_agreement(teacher, engine)
    answers = np.arange(60) % 4
    table = ScoreTable(
        sample=tuple(f"{index:064x}" for index in range(60)),
        label=np.full(60, -1),
        teacher_class=answers,
        engine_class=np.where(np.arange(60) < 40, 0, answers),
        state=states,
        metrics=metrics,
        own_class_metrics=metrics,
        localisation={},
    )
    return judge(load_preset("strict"), table)


def test_the_verdict_stored_here_has_clauses_of_several_outcomes() -> None:
    assert {result.outcome for result in some_verdict().clauses} == {"fail", "inconclusive"}
    assert some_verdict().outcome == "fail"


def test_a_verdict_survives_storage_with_its_words() -> None:
    verdict = some_verdict()
    stored = json.loads(dump_canonical(verdict.to_dict()))
    assert stored == verdict.to_dict()
    assert Verdict.from_dict(stored, where="here") == verdict


def test_words_are_beside_the_numbers_where_people_read_them() -> None:
    verdict = some_verdict()
    told = verdict.to_dict_in_words()
    for entry, plain, result in zip(told["clauses"], verdict.to_dict()["clauses"], verdict.clauses, strict=True):
        assert entry == plain | {"text": result.text, "explanation": result.explanation}
        assert result.text
        assert result.explanation


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "outcome": lambda raw: raw.update(outcome="pass"),
    "unknown outcome": lambda raw: raw.update(outcome="fine"),
    "clause outcome": lambda raw: [entry.update(outcome="pass") for entry in raw["clauses"]],
    "unknown clause outcome": lambda raw: raw["clauses"][0].update(outcome="fine"),
    "clause removed": lambda raw: raw["clauses"].pop(),
    "clauses null": lambda raw: raw.update(clauses=None),
    "clause null": lambda raw: raw["clauses"].__setitem__(0, None),
    "clause of another kind": lambda raw: raw["clauses"][0].update(kind="mean"),
    "bound moved": lambda raw: raw["clauses"][0].update(bound=0.5),
    "observed text": lambda raw: raw["clauses"][0].update(observed="0.99"),
    "samples negative": lambda raw: raw["clauses"][0].update(samples=-1),
    "worst true": lambda raw: raw["clauses"][0].update(worst=[True]),
    "measured text": lambda raw: raw["clauses"][0].update(measured="yes"),
    "key added to a clause": lambda raw: raw["clauses"][0].update(note="fine"),
    "key removed from a clause": lambda raw: raw["clauses"][0].pop("lower"),
    "key added": lambda raw: raw.update(note="fine"),
    "key removed": lambda raw: raw.pop("states"),
    "state removed": lambda raw: raw["states"].pop("both_zero"),
    "state count": lambda raw: raw["states"].update(both_zero=0),
    "state added": lambda raw: raw["states"].update(perfect=0),
    "samples": lambda raw: raw.update(samples=1000),
    "policy weakened away": lambda raw: raw["policy"].update(clauses=[]),
    "policy unreadable": lambda raw: raw.update(policy="strict"),
    "format": lambda raw: raw.update(format="edgekit.verdict/2"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_verdict_is_refused(edit: Callable[[dict[str, Any]], Any]) -> None:
    raw = json.loads(dump_canonical(some_verdict().to_dict()))
    Verdict.from_dict(copy.deepcopy(raw), where="verdict.json")
    edit(raw)
    with pytest.raises(IntegrityError) as caught:
        Verdict.from_dict(raw, where="verdict.json")
    assert str(caught.value.where).startswith("verdict.json")


@pytest.mark.parametrize("raw", [None, [], "pass", {}])
def test_what_is_no_verdict_at_all_is_refused(raw: object) -> None:
    with pytest.raises(IntegrityError, match="malformed"):
        Verdict.from_dict(raw, where="verdict.json")
