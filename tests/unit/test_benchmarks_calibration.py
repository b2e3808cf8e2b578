"""Numbers, verdicts and tables of the benchmark of calibrators: by hand, and against slow definitions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from calibration.answers import Answers
from calibration.collect import Found
from calibration.methods import TOOLS, is_claimed, methods
from calibration.mobile import excited, inverted
from calibration.profiles import PROFILES, REAL_FORMAT
from calibration.scores import COLUMNS, numbers_of, score
from calibration.tables import plain
from calibration.text import markdown_table, text_of
from calibration.units import all_units, method_named, selected_units
from calibration.verdicts import Row, reduction, verdicts
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from scipy.stats import spearmanr
from torch import nn

from edgekit.calibrate.calibrator import CALIBRATORS
from edgekit.calibrate.formats import number_format

shares = st.floats(1e-6, 1 - 1e-6)


def row(method: str, cosine: float = 0.99, iou: float = 0.9, agrees: float = 0.98, **others) -> Row:
    numbers = dict.fromkeys(COLUMNS, 0.5) | {"cosine": cosine, "iou-top20": iou, "agrees": agrees, "images": 1000}
    numbers |= {
        f"{name}/{end}": 0.4 for name in ("cosine", "spearman", "iou-top20", "own-cosine") for end in ("p5", "p1")
    }
    kept = {"network": "net", "number_format": REAL_FORMAT, "images": 128, "tool": "edgekit"} | others
    return Row(method=method, numbers=numbers, seconds=1.0, ratio=2.0, peak_bytes=2.0**20, **kept)


# Scores


def answers(seed: int, count: int = 30) -> Answers:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 5)).astype(np.float32)
    asked, own = rng.random((2, count, 6, 6)).astype(np.float32)
    return Answers(logits, asked, own)


def test_scores_are_what_other_libraries_say():
    ours, theirs, labels = answers(0), answers(1), np.arange(30) % 5
    found = score(ours, theirs, labels)
    assert tuple(found) == COLUMNS
    p, q = softmax(ours.logits.astype(float), axis=1), softmax(theirs.logits.astype(float), axis=1)
    np.testing.assert_allclose(found["divergence"], rel_entr(p, q).sum(1), rtol=1e-9)
    ranks = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(ours.asked, theirs.asked, strict=True)]
    np.testing.assert_allclose(found["spearman"], ranks, rtol=1e-9)
    torch_cosine = torch.cosine_similarity(*(torch.from_numpy(each.own).flatten(1) for each in (ours, theirs)))
    np.testing.assert_allclose(found["own-cosine"], torch_cosine.numpy(), rtol=1e-5)
    assert found["correct"].tolist() == (theirs.logits.argmax(1) == labels).astype(float).tolist()


def test_the_same_answers_have_no_drift():
    found = numbers_of(score(answers(0), answers(0), np.zeros(30, dtype=int)))
    assert found["cosine"] == pytest.approx(1)
    assert found["iou-top20"] == found["agrees"] == 1
    assert found["divergence"] == pytest.approx(0, abs=1e-12)
    assert found["images"] == found["compared"] == 30


def test_empty_maps_are_counted_apart_and_vanished_ones_are_not():
    ours, theirs = answers(0), answers(0)
    ours.asked[:10] = 0
    theirs.asked[:10] = 0
    theirs.asked[10] = 0
    found = numbers_of(score(ours, theirs, np.zeros(30, dtype=int)))
    assert found["compared"] == 20
    assert found["cosine"] == pytest.approx((19 * 1 + -1) / 20)
    assert found["iou-top20"] == pytest.approx(19 / 20)


def test_percentiles_are_the_low_end():
    columns = {name: np.arange(101) / 100 for name in COLUMNS}
    found = numbers_of(columns)
    assert (found["cosine"], found["cosine/p5"], found["cosine/p1"]) == pytest.approx((0.5, 0.05, 0.01))
    assert "agrees/p5" not in found


# Verdicts


def test_reductions_by_hand():
    assert reduction(0.7, 1.0) == pytest.approx(0.3)
    assert reduction(2.0, 1.0) == -1
    assert reduction(0.0, 0.0) == 0
    assert reduction(0.1, 0.0) == -math.inf


def test_each_number_is_held_to_its_own_best_baseline():
    rows = [
        row("minmax", cosine=0.99, iou=0.80, agrees=0.980),
        row("NNCF mixed", cosine=0.98, iou=0.90, agrees=0.975, tool="nncf"),
        row("ORT entropy", cosine=0.9, iou=0.5, agrees=0.990, tool="onnxruntime"),
        row("attribution", cosine=0.995, iou=0.94, agrees=0.985),
    ]
    (found,) = verdicts(rows)
    assert (found.best_cosine, found.best_iou, found.best_agreement) == ("minmax", "NNCF mixed", "ORT entropy")
    assert found.cosine == pytest.approx(0.5)
    assert found.iou == pytest.approx(0.4)
    assert found.agreement == pytest.approx(-0.5)
    assert found.beside == pytest.approx(0.5)
    assert found.misses == ("agreement -0.50 ± 0.00 pp",)


@given(st.lists(st.tuples(shares, shares, shares), min_size=1, max_size=6), st.tuples(shares, shares, shares))
def test_a_claim_is_as_good_as_against_its_worst_opponent(others, ours):
    rows = [row(f"baseline {index}", *values) for index, values in enumerate(others)]
    (found,) = verdicts([*rows, row("attribution", *ours)])
    alone = [verdicts([other, row("attribution", *ours)])[0] for other in rows]
    assert found.cosine == pytest.approx(min(each.cosine for each in alone))
    assert found.iou == pytest.approx(min(each.iou for each in alone))
    assert found.agreement == pytest.approx(min(each.agreement for each in alone))


@pytest.mark.parametrize(
    ("agrees", "ratio", "method", "missed"),
    [
        (0.978, 2.0, "attribution-quick", ()),  # 0.2 points less, exactly
        (0.977, 2.0, "attribution-quick", ("agreement -0.30 ± 0.00 pp",)),
        (0.98, 3.1, "attribution-quick", ("time 3.1 x min-max",)),
        (0.98, 300.0, "attribution", ()),
    ],
)
def test_the_limits_of_agreement_and_time(agrees, ratio, method, missed):
    ours = replace(row(method, cosine=0.999, iou=0.99, agrees=agrees), ratio=ratio)
    assert verdicts([row("minmax"), ours])[0].misses == missed


def test_drift_of_less_than_thirty_per_cent_below_is_a_miss():
    (found,) = verdicts([row("minmax", cosine=0.99, iou=0.9), row("attribution", cosine=0.9925, iou=0.93)])
    assert found.misses == ("1 - cosine -25 %",)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=50))
def test_the_error_of_a_difference_is_that_of_pairs(wrong):
    ours, theirs = (frozenset(i for i, pair in enumerate(wrong) if pair[side]) for side in (0, 1))
    rows = [replace(row(name), disagreeing=which) for name, which in (("minmax", theirs), ("attribution", ours))]
    rows = [replace(each, numbers={**each.numbers, "images": len(wrong)}) for each in rows]
    differences = np.array([float(b) - float(a) for a, b in wrong])
    expected = 100 * differences.std() / math.sqrt(len(wrong))
    assert verdicts(rows)[0].agreement_error == pytest.approx(expected, abs=1e-9)


def test_only_rows_of_the_same_question_are_beside():
    ours = row("attribution")
    others = [row("minmax", network="other"), row("minmax", number_format="x86-u4s4"), row("minmax", images=8)]
    failed = replace(row("minmax"), numbers={}, not_run="broken")
    assert verdicts([ours, *others, failed, row("attribution-quick")]) == ()


# Units and methods


def test_every_calibrator_of_the_registry_is_compared_and_every_tool():
    ours = [method.name for method in methods() if method.ours]
    assert sorted(ours) == sorted(CALIBRATORS.names())
    assert ours[0] == "minmax"
    assert {method.tool for method in methods()} == {"edgekit", *TOOLS}
    assert all(method.worker.is_file() for method in methods())
    assert len({method.name for method in methods()}) == len(methods())
    assert not any(is_claimed(method.name) for method in methods() if not method.ours)


def test_other_tools_are_asked_for_real_bits_only():
    units = list(all_units(PROFILES["full"]))
    assert {unit.number_format for unit in units if not method_named(unit.method).ours} == {REAL_FORMAT}
    assert not number_format(REAL_FORMAT).simulated
    assert len({unit.network for unit in units}) >= 7
    assert len({unit.name for unit in units}) == len(set(units))


def test_patterns_choose_units():
    chosen = selected_units(PROFILES["quick"], ("*mid",), (), ("nncf*", "minmax"))
    assert {unit.network for unit in chosen} == {"cifar10-resnet20-mid"}
    assert {unit.method for unit in chosen} >= {"minmax", "NNCF mixed"}
    assert "ORT minmax" not in {unit.method for unit in chosen}
    memory = selected_units(PROFILES["full"], parts=("memory",))
    assert {unit.part for unit in memory} == {"memory"}
    assert {unit.images for unit in memory if unit.method == "minmax"} == set(PROFILES["full"].memory)


# Text


def document(rows, memory=()) -> str:
    return text_of(Found((), tuple(rows), tuple(memory), verdicts(rows), 0), PROFILES["full"], "a machine", ("a.png",))


def test_misses_come_first_and_with_their_numbers():
    rows = [
        row("minmax"),
        row("attribution", cosine=0.9925, iou=0.99),
        row("attribution-quick", cosine=0.999, iou=0.99),
    ]
    text = document(rows)
    said = text[text.index("## What does not hold") : text.index("## Against the best")]
    assert "- net, attribution: 1 - cosine -25 %" in said
    assert "attribution-quick:" not in said
    assert "| net | attribution-quick | -90 % (minmax) | -90 % (minmax) |" in text


def test_a_claimed_method_that_did_not_run_is_a_miss_and_a_tool_says_why():
    failed = [replace(row(name), numbers={}, not_run="no such thing") for name in ("attribution", "NNCF mixed")]
    text = document([row("minmax"), *failed])
    assert "- net, attribution: not run" in text[: text.index("## Against the best")]
    assert "- NNCF mixed on net: no such thing" in text


def test_memory_tells_its_growth():
    memory = [replace(row("minmax", images=count), peak_bytes=peak * 2.0**20) for count, peak in ((64, 50), (1024, 55))]
    assert "| minmax | 50 | 55 | 1.10 from 64 to 1024 |" in document([row("minmax")], memory)


def test_tables_are_rectangular():
    assert markdown_table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_json_has_neither_nan_nor_false_digits():
    assert plain({"a": math.nan, "b": (0.123456789, 3)}) == {"a": None, "b": [0.123457, 3]}


# Networks


@pytest.mark.parametrize("factory", [inverted, excited])
def test_mobile_networks_answer_with_a_map_of_eight_cells_a_side(factory):
    model = factory(classes=7).eval()
    taps = []
    model.last.register_forward_hook(lambda _module, _inputs, output: taps.append(output))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert taps[0].shape[2:] == (8, 8)


def test_mobile_networks_have_the_parts_they_are_there_for():
    kinds = {name: {type(part) for part in factory().modules()} for name, factory in (("2", inverted), ("3", excited))}
    assert nn.ReLU6 in kinds["2"]
    assert {nn.Hardswish, nn.Hardsigmoid} <= kinds["3"]
    for factory in (inverted, excited):
        convolutions = [part for part in factory().modules() if isinstance(part, nn.Conv2d)]
        assert any(part.groups == part.in_channels > 1 for part in convolutions)
