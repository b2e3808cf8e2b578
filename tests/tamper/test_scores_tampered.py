"""A stored score table reads back exactly, and one that was edited is refused, whatever was edited."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.errors import BadInputError, IntegrityError
from edgekit.metrics.agreement import METRICS, score_agreement
from edgekit.metrics.localisation import LOCALISATION, centre_prior, score_localisation
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import (
    LOCALISATION_SIDES,
    check_scores,
    read_scores,
    scores_from_dict,
    scores_to_dict,
    write_scores,
)

CLASSES = 4


def real_table(count: int = 12, seed: int = 0) -> ScoreTable:
    """Scores as a verification makes them, with every state among them."""
    rng = np.random.default_rng(seed)
    teacher = rng.gamma(0.7, size=(count, 4, 4)).astype(np.float32)
    engine = (teacher * rng.uniform(0.5, 1.5, size=teacher.shape)).astype(np.float32)
    own = (teacher * rng.uniform(0.5, 1.5, size=teacher.shape)).astype(np.float32)
    if count >= 5:
        teacher[1] = engine[1] = own[1] = 0
        teacher[2] = own[2] = 0
        engine[3] = 0
        engine[4, 0, 0] = own[4, 0, 0] = np.nan
    masks = rng.random((count, 8, 8)) < 0.3
    masks[:1] = False
    blind = np.broadcast_to(centre_prior(4, 4), teacher.shape)
    states, metrics = score_agreement(teacher, engine)
    teacher_class = rng.integers(0, CLASSES, count)
    engine_class = np.where(np.arange(count) % 3 == 0, rng.integers(0, CLASSES, count), teacher_class)
    engine_class[4:5] = -1
    return ScoreTable(
        sample=tuple(f"{index:064x}" for index in range(count)),
        label=rng.integers(-1, CLASSES, count),
        teacher_class=teacher_class,
        engine_class=engine_class,
        state=states,
        metrics=metrics,
        own_class_metrics=score_agreement(teacher, own).metrics,
        localisation={
            f"{side}/{name}": values
            for side, maps in zip(LOCALISATION_SIDES, (blind, engine, teacher), strict=True)
            for name, values in score_localisation(maps, masks).items()
        },
    )


def same(first: ScoreTable, second: ScoreTable) -> bool:
    for name in ("sample", "state"):
        if getattr(first, name) != getattr(second, name):
            return False
    for name in ("label", "teacher_class", "engine_class"):
        if not np.array_equal(getattr(first, name), getattr(second, name)):
            return False
    for name in ("metrics", "own_class_metrics", "localisation"):
        one, other = getattr(first, name), getattr(second, name)
        if one.keys() != other.keys():
            return False
        if any(one[key].tobytes() != other[key].tobytes() for key in one):
            return False
    return True


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_a_table_survives_storage_bit_for_bit(count: int, seed: int) -> None:
    table = real_table(count, seed)
    stored = dump_canonical(scores_to_dict(table))
    again = scores_from_dict(parse_strict(stored, where="here"), classes=CLASSES, where="here")
    assert same(table, again)
    assert again.label.dtype == np.int64
    assert dump_canonical(scores_to_dict(again)) == stored


def test_a_table_survives_a_file(tmp_path: Path) -> None:
    table = replace(real_table(), own_class_metrics={}, localisation={})
    write_scores(tmp_path / "scores.json", table)
    assert same(read_scores(tmp_path / "scores.json", classes=CLASSES), table)
    assert same(read_scores(tmp_path / "scores.json"), table)
    with pytest.raises(BadInputError):
        read_scores(tmp_path / "none.json", classes=CLASSES)


def first(table: dict[str, Any], state: str) -> int:
    return int(table["state"].index(state))


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, key, value = path

    def edit(document: dict[str, Any]) -> None:
        place: Any = document
        for step in way:
            place = place[step]
        assert place[key] != value
        place[key] = value

    return edit


def at_state(group: str, state: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(document: dict[str, Any]) -> None:
        row = first(document, state)
        assert document[group]["cosine"][row] != value
        document[group]["cosine"][row] = value

    return edit


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, key = path

    def edit(document: dict[str, Any]) -> None:
        place: Any = document
        for step in way:
            place = place[step]
        del place[key]

    return edit


EDITS: dict[str, Callable[[dict[str, Any]], None]] = {
    "format": put("format", "edgekit.scores/2"),
    "key missing": drop("label"),
    "key added": lambda document: document.update(note="fine"),
    "column of another type": put("label", "1 2 3"),
    "group of another type": put("metrics", [1.0]),
    "metric column of another type": put("metrics", "cosine", {"0": 1.0}),
    "unknown metric": lambda document: document["metrics"].update({"vibes": document["metrics"]["cosine"]}),
    "metric removed from one view": drop("own_class_metrics", "cosine"),
    "unknown localisation": lambda document: document["localisation"].update({"engine/luck": [None] * 12}),
    "unknown side": lambda document: document["localisation"].update({"god/pointing": [None] * 12}),
    "unknown state": put("state", 0, "perfect"),
    "state not text": put("state", 0, 0),
    "a sample removed": drop("sample", 3),
    "a label removed": drop("label", 3),
    "a state removed": drop("state", 3),
    "a score removed": drop("metrics", "ssim", 3),
    "an own score removed": drop("own_class_metrics", "ssim", 3),
    "a localisation removed": drop("localisation", "engine/pointing", 3),
    "digest shortened": put("sample", 2, "ab"),
    "digest in capitals": put("sample", 2, "A" * 64),
    "digest a number": put("sample", 2, 7),
    "label too large": put("label", 0, CLASSES),
    "label too small": put("label", 0, -2),
    "label huge": put("label", 0, 10**30),
    "label a float": put("label", 0, 1.5),
    "label true": lambda document: document["label"].__setitem__(0, True),
    "teacher without an answer": put("teacher_class", 0, -1),
    "teacher's class too large": put("teacher_class", 0, CLASSES),
    "engine's class too large": put("engine_class", 0, CLASSES),
    "engine's class null": put("engine_class", 0, None),
    "score above its range": put("metrics", "cosine", 0, 1.5),
    "score below its range": put("metrics", "iou-top20", 0, -0.01),
    "score huge": put("metrics", "cosine", 0, 10**400),
    "score text": put("metrics", "cosine", 0, "0.99"),
    "score true": lambda document: document["metrics"]["cosine"].__setitem__(0, True),
    "score hidden as undefined": put("metrics", "cosine", 0, None),
    "undefined score made up": at_state("metrics", "both_zero", 0.99),
    "lost map made good": at_state("metrics", "one_zero", 0.99),
    "broken map made good": at_state("metrics", "non_finite", 0.99),
    "own score hidden as undefined": put("own_class_metrics", "cosine", 0, None),
    "own score made up for one metric": at_state("own_class_metrics", "both_zero", 0.99),
    "own score out of range": put("own_class_metrics", "cosine", 0, -1.01),
    "bad sample called undefined": put("state", 0, "both_zero"),
    "lost map called scored only in name": lambda document: document["state"].__setitem__(
        first(document, "both_zero"), "scored"
    ),
    "localisation out of range": put("localisation", "engine/pixel-auc", 5, 1.01),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_table_is_refused_and_the_place_is_named(edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(dump_canonical(scores_to_dict(real_table())))
    scores_from_dict(copy.deepcopy(document), classes=CLASSES, where="scores.json")
    edit(document)
    with pytest.raises(IntegrityError) as caught:
        scores_from_dict(document, classes=CLASSES, where="scores.json")
    assert str(caught.value.where).startswith("scores.json")


@pytest.mark.parametrize("raw", [None, [], "scores", 3, {}])
def test_what_is_no_table_at_all_is_refused(raw: object) -> None:
    with pytest.raises(IntegrityError, match="malformed"):
        scores_from_dict(raw, where="scores.json")


def test_nan_and_infinity_are_no_numbers_even_from_a_careless_parser() -> None:
    for value in (math.nan, math.inf):
        document = scores_to_dict(real_table())
        document["metrics"]["cosine"][0] = value
        with pytest.raises(IntegrityError):
            scores_from_dict(document, where="scores.json")


def test_an_impossible_table_is_not_written_either() -> None:
    table = real_table()
    wrong = replace(table, metrics={**table.metrics, "cosine": np.full(len(table), 0.9)})
    with pytest.raises(IntegrityError, match="impossible") as caught:
        scores_to_dict(wrong)
    assert "cosine, sample 1" in str(caught.value.where)
    with pytest.raises(IntegrityError, match="length"):
        check_scores(replace(table, label=table.label[:-1]))


def test_every_registered_name_is_accepted() -> None:
    table = real_table()
    check_scores(table, classes=CLASSES)
    assert set(table.metrics) == set(METRICS)
    assert len(table.localisation) == len(LOCALISATION_SIDES) * len(LOCALISATION)
