"""What stands beside scores and verdict: classes with their bounds, controls, hops, and how to do it again."""

from __future__ import annotations

import hashlib
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report_example import Case, example_blame, example_report
from test_report_page import LARGEST_PAGE, untied_numbers, written

from edgekit.core.canonical import dump_canonical
from edgekit.core.stages import FileRef, StageRecord
from edgekit.errors import DefectError, IntegrityError
from edgekit.metrics.statistics import clopper_pearson
from edgekit.policy.document import load_preset
from edgekit.report import page
from edgekit.report.classes import describe_classes
from edgekit.report.data import ControlSummary
from edgekit.report.hops import describe_hops
from edgekit.report.samples import difference_in_words

CAUGHT = ControlSummary("centre-prior", "fail", ("mean spearman >= 0.80",))
MISSED = ControlSummary("permuted-maps", "pass")
OPEN = ControlSummary("random-weights", "inconclusive")


def test_classes_have_exact_bounds_and_the_worst_stand_first() -> None:
    data = example_report(Case(noise=0.4, flips=0.2))
    policy = load_preset("default")
    told = describe_classes(data.golden, data.table, policy, "cosine")
    assert told["good_maps"] == "cosine at least 0.9"
    rows = told["rows"]
    for row in rows:
        member = data.table.label == row["index"]
        agreed = int((data.table.agrees & member).sum())
        bounds = clopper_pearson(agreed, int(member.sum()), policy.confidence)
        assert row["agreement_bounds"] == {"observed": row["agreement"], "lower": bounds.lower, "upper": bounds.upper}
        values = data.table.metrics["cosine"][member]
        present = values[~np.isnan(values)]
        assert row["good"]["successes"] == int((present >= 0.9).sum())
        assert row["good"]["samples"] == present.size
        assert row["good"]["lower"] < row["good"]["observed"] < row["good"]["upper"] or present.size == 0
    worst = {
        min(rows, key=lambda row: row["agreement"])["agreement"],
        min(rows, key=lambda row: row["metrics"]["cosine"])["agreement"],
    }
    assert rows[0]["agreement"] in worst


def test_a_class_whose_answers_flip_and_one_whose_maps_moved_both_stand_in_front() -> None:
    data = example_report(Case(samples=80, noise=0.05, flips=0, degenerate=False, classes=tuple("abcdefgh")))
    moved = {name: values.copy() for name, values in data.table.metrics.items()}
    moved["cosine"][data.table.label == 6] = 0.1
    answers = data.table.engine_class.copy()
    answers[data.table.label == 3] = 0
    table = replace(data.table, metrics=moved, engine_class=answers)
    rows = describe_classes(data.golden, table, load_preset("lenient"), "cosine")["rows"]
    assert {row["name"] for row in rows[:2]} == {"d", "g"}
    # Without a metric that ranks, answers alone do.
    assert describe_classes(data.golden, table, load_preset("lenient"), None)["rows"][0]["name"] == "d"


def test_a_thousand_classes_and_ten_thousand_samples_stay_small(tmp_path: Path) -> None:
    case = Case(samples=10_000, side=24, noise=0.5, flips=0.1, classes=tuple(f"class {place}" for place in range(1000)))
    data = example_report(case)
    begin = time.perf_counter()
    found, document, html = written(data, tmp_path)
    assert time.perf_counter() - begin < 60
    assert len(html.encode("utf-8")) < LARGEST_PAGE
    assert (tmp_path / "report.json").stat().st_size < LARGEST_PAGE
    assert len(document["classes"]["rows"]) == 1000
    shown = [text for text, around in found.texts if text.startswith("class ") and around[-1][0] == "th"]
    assert shown == [row["name"] for row in document["classes"]["rows"][: page.LARGEST_CLASS_TABLE]]
    assert "Only the worst are shown" in found.words


@pytest.mark.parametrize(
    ("controls", "state", "said", "weak"),
    [
        ((), "absent", "No controls were verified with this engine", []),
        ((), "off", "switched the controls off", []),
        ((CAUGHT,), "ran", "All of them were caught.", []),
        ((CAUGHT, MISSED, OPEN), "ran", "It does not fail: permuted-maps, random-weights.", [MISSED.name, OPEN.name]),
    ],
)  # fmt: skip
def test_controls_are_told_or_their_absence_is(
    controls: tuple[ControlSummary, ...], state: Any, said: str, weak: list[str], tmp_path: Path
) -> None:
    found, document, _ = written(example_report(controls=controls, controls_state=state), tmp_path)
    assert said in found.words
    assert document["controls"]["too_weak"] == weak
    assert [row["name"] for row in document["controls"]["rows"]] == [control.name for control in controls]
    assert ("too weak to tell this engine from nonsense" in document["headline"]) == bool(weak)
    assert untied_numbers(found, document) == []


def test_controls_that_contradict_their_state_cannot_be_reported() -> None:
    with pytest.raises(DefectError, match="controls"):
        example_report(controls=(CAUGHT,), controls_state="absent")
    with pytest.raises(DefectError, match="controls"):
        example_report(controls_state="ran")


def test_hops_and_tensors_are_told_from_the_blame_document(tmp_path: Path) -> None:
    found, document, _ = written(example_report(blame=example_blame()), tmp_path)
    hops = document["hops"]
    assert [hop["observed"] for hop in hops["hops"]] == [None, None, 0.99999, 0.9998, 0.87]
    assert [hop["title"] for hop in hops["hops"] if hop["broken"]] == ["the engine"]
    assert hops["axis"]["ticks"][-1] == 1.0
    assert (hops["tensors"][0]["observed"], hops["tensors_total"]) == (0.0957, 2)
    assert "not measured: give --build" in found.words
    assert "FP16 emulated on the CPU, not run on TensorRT" in found.words
    assert "first that breaks the policy" in found.words
    assert untied_numbers(found, document) == []
    assert "#hops" in [link["href"] for link in found.all("a")]


def test_a_report_without_blame_says_nothing_of_hops(tmp_path: Path) -> None:
    found, document, _ = written(example_report(), tmp_path)
    assert document["hops"] is None
    assert "hops" not in {section["id"] for section in found.all("section")}


def test_the_ledger_is_told_by_the_metric_that_ranks_where_it_holds_it() -> None:
    told = describe_hops(example_blame(), "spearman")
    assert told is not None
    assert told["metric"] == "spearman"
    other = describe_hops(example_blame(), "ssim")
    assert other is not None
    assert other["metric"] == "cosine"
    hops_only = describe_hops(example_blame() | {"blame": None}, "cosine")
    assert hops_only is not None
    assert (hops_only["tensors"], hops_only["tensors_total"]) == ([], 0)


@pytest.mark.parametrize("lost", ["format", "bundle", "ledger", "blame"])
def test_a_blame_document_that_is_none_is_refused(lost: str) -> None:
    spoiled = example_blame()
    del spoiled[lost]
    with pytest.raises(IntegrityError) as caught:
        describe_hops(spoiled, "cosine")
    assert caught.value.where == "blame.json"
    assert "edgekit blame" in str(caught.value.hint)


def test_every_part_of_a_hop_is_needed() -> None:
    for key in example_blame()["ledger"]["hops"][4]:
        spoiled = deepcopy(example_blame())
        del spoiled["ledger"]["hops"][4][key]
        if key in ("failed", "compared_with"):
            assert describe_hops(spoiled, "cosine") is not None
        else:
            with pytest.raises(IntegrityError, match="malformed"):
                describe_hops(spoiled, "cosine")


def test_commands_come_with_the_digests_of_what_they_make(tmp_path: Path) -> None:
    outputs = {
        "verify-int8": "scores.json",
        "build-int8": "model.onnx",
        "golden": "golden.json",
        "export": "model.onnx",
    }
    stages = tuple(
        StageRecord(name, "ab" * 32, {}, {}, {file: FileRef(f"{place:02}" * 32, 10)}, {"summary": ""})
        for place, (name, file) in enumerate(outputs.items(), start=1)
    )
    found, document, _ = written(example_report(stages=stages, target="a b; rm -rf"), tmp_path)
    told = {row["what"]: row["sha256"] for row in document["reproduce"]["digests"]}
    assert told == {
        "teacher": "ab" * 32,
        "policy": hashlib.sha256(dump_canonical(load_preset("lenient").to_dict())).hexdigest(),
        "scores": "01" * 32,
        "engine": "02" * 32,
        "golden set": "03" * 32,
        "FP32 graph": "04" * 32,
    }
    for digest in told.values():
        assert digest in found.words
    commands = [row["command"] for row in document["reproduce"]["commands"]]
    assert commands[1] == "edgekit build MODEL --target 'a b; rm -rf' --data DIR --recipe recipe.json --seed 7"
    assert commands[2:] == ["edgekit gate BUNDLE", "edgekit verify BUNDLE"]


def test_what_differs_is_said_in_words() -> None:
    teacher, engine = np.full((9, 9), 0.1), np.full((9, 9), 0.1)
    teacher[0, 0] = engine[8, 8] = 1.0
    told = difference_in_words(teacher, engine)
    assert told == "the engine looks more in the lower right and less in the upper left"
    assert difference_in_words(teacher, 3 * teacher) == "they are alike"
    assert "not finite" in difference_in_words(teacher, np.full((9, 9), np.nan))
