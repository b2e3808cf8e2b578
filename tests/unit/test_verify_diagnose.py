"""The diagnosis on maps made for it: what is found, what is not, and that it copes with anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from faulty import FaultyRunner, on_logits, prepared_as
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_golden import GRAPH, tiny_golden

from edgekit.bundle.golden import GoldenSet
from edgekit.core.canonical import dump_canonical
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.interface.card import InputSpec
from edgekit.verify.answers import EngineAnswers, answer_golden
from edgekit.verify.diagnosis.batch_faults import find_mixed_maps
from edgekit.verify.diagnosis.diagnose import diagnose
from edgekit.verify.diagnosis.finding import Finding, best_of_each, closes, mean_cosine
from edgekit.verify.diagnosis.input_faults import _other_preparations
from edgekit.verify.diagnosis.map_faults import find_map_faults
from edgekit.verify.diagnosis.scale_faults import find_scale_faults
from edgekit.verify.diagnosis.sign_faults import find_sign_faults
from edgekit.verify.score import score_answers


def maps_like(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Maps before the ReLU: two blobs on a slope below zero, different from map to map."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    result = np.empty((count, height, width))
    for index in range(count):
        result[index] = -0.5 - 0.1 * rng.random((height, width))
        for strength in (1.0, 0.7):
            y, x = rng.uniform(0, height), rng.uniform(0, width)
            result[index] += 1.5 * strength * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4)
    return result.astype(np.float32)


SIGNED = maps_like(60, 8, 8)
TEACHER = np.maximum(SIGNED, 0)


def found(engine: np.ndarray, teacher: np.ndarray = TEACHER) -> list[str]:
    return [finding.fault for finding in findings_of_maps(np.ascontiguousarray(engine, dtype=np.float32), teacher)]


def findings_of_maps(engine: np.ndarray, teacher: np.ndarray = TEACHER) -> list[Finding]:
    """What the maps alone give away."""
    searches = (find_map_faults, find_sign_faults, find_scale_faults, find_mixed_maps)
    return [finding for search in searches for finding in search(teacher, engine)]


FAULTS: dict[str, tuple[str, np.ndarray]] = {
    "negated": ("sign-lost", -TEACHER),
    "negated before the ReLU": ("sign-lost", np.maximum(-SIGNED, 0)),
    "an absolute value": ("sign-lost", np.abs(SIGNED)),
    "transposed": ("map-transposed", TEACHER.transpose(0, 2, 1)),
    "flipped": ("map-flipped", TEACHER[:, :, ::-1]),
    "turned": ("map-rotated", np.rot90(TEACHER, 1, (1, 2))),
    "moved with what was there": ("map-shifted", np.roll(TEACHER, 1, axis=1)),
    "other samples": ("batch-mixed-up", np.roll(TEACHER, 1, axis=0)),
    "other samples by chance": ("batch-mixed-up", np.random.default_rng(0).permutation(TEACHER)),
    "one for all": ("map-stale", np.repeat(TEACHER[:1], 60, axis=0)),
    "a few for all": ("map-stale", np.tile(TEACHER[:12], (5, 1, 1))),
    "flat": ("map-flat", np.ones_like(TEACHER) * TEACHER.mean((1, 2), keepdims=True)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_of_the_maps_is_the_only_one_found(name: str) -> None:
    fault, engine = FAULTS[name]
    assert found(engine) == [fault]


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 7.0, 1e30])
@pytest.mark.parametrize("name", ["transposed", "an absolute value", "other samples", "moved with what was there"])
def test_how_strong_maps_are_does_not_matter(name: str, scale: float) -> None:
    fault, engine = FAULTS[name]
    assert found(engine * np.float32(scale)) == [fault]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert found(TEACHER) == []
    assert found(2 * TEACHER) == []


def test_noise_is_no_known_fault() -> None:
    assert found(np.random.default_rng(0).random(TEACHER.shape)) == []
    assert found(TEACHER + np.random.default_rng(0).random(TEACHER.shape)) == []


@pytest.mark.parametrize("shape", [(40, 6, 9), (40, 9, 6), (40, 1, 12), (40, 12, 1), (40, 2, 2), (40, 1, 1)])
def test_maps_of_any_shape(shape: tuple[int, int, int]) -> None:
    teacher = np.maximum(maps_like(*shape), 0.01)
    assert found(teacher, teacher) == []
    assert "map-not" not in " ".join(found(teacher[:, ::-1], teacher))


def test_a_flip_is_found_on_maps_that_are_not_square() -> None:
    teacher = np.maximum(maps_like(40, 6, 9), 0)
    assert found(teacher[:, :, ::-1], teacher) == ["map-flipped"]
    assert found(teacher[:, ::-1, ::-1], teacher) == ["map-rotated"]


@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (0, -1), (1, -1)])
def test_a_shift_says_how_far(rows: int, columns: int) -> None:
    engine = np.roll(TEACHER, (rows, columns), axis=(1, 2))
    (finding,) = find_map_faults(TEACHER, engine)
    assert finding.fault == "map-shifted"
    assert f"shifted by {rows:+d} rows and {columns:+d} columns" in finding.text
    assert finding.before == pytest.approx(mean_cosine(TEACHER, engine))
    assert finding.after == pytest.approx(1)


ANYTHING = hnp.arrays(np.float32, (6, 3, 4), elements=st.floats(width=32) | st.just(0.0))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(hnp.arrays(np.float32, (6, 3, 4), elements=st.floats(0, 8, width=32)), ANYTHING)
def test_no_maps_can_upset_it(teacher: np.ndarray, engine: np.ndarray) -> None:
    with np.errstate(all="raise", under="ignore"):
        for finding in findings_of_maps(engine, teacher):
            dump_canonical(finding.to_dict())


# The whole diagnosis


def answers_of(golden: GoldenSet) -> EngineAnswers:
    return EngineAnswers(golden.logits.copy(), golden.maps.copy(), golden.maps.copy())


def diagnosed(golden: GoldenSet, answers: EngineAnswers) -> tuple[Finding, ...]:
    return diagnose(golden, answers, score_answers(golden, answers), None)


@pytest.fixture
def golden() -> GoldenSet:
    return tiny_golden(80)


def test_a_match_needs_no_explanation(golden: GoldenSet) -> None:
    assert diagnosed(golden, answers_of(golden)) == ()


def test_a_single_broken_value_is_told_even_where_all_else_matches(golden: GoldenSet) -> None:
    answers = answers_of(golden)
    answers.maps[7, 0, 0] = np.inf
    (finding,) = diagnosed(golden, answers)
    assert finding.fault == "map-not-finite"
    assert finding.before == finding.after == 1 / 80
    answers = answers_of(golden)
    answers.logits[7, 0] = np.nan
    (finding,) = diagnosed(golden, answers)
    assert finding.fault == "logits-not-finite"


def test_flipped_predictions_are_not_moved_maps(golden: GoldenSet) -> None:
    answers = answers_of(golden)
    answers.logits[:20] = -answers.logits[:20]
    (finding,) = diagnosed(golden, answers)
    assert finding.fault == "predictions-flipped"
    assert "75.0%" in finding.text


def test_unrelated_answers_are_not_called_drift(golden: GoldenSet) -> None:
    rng = np.random.default_rng(0)
    answers = EngineAnswers(
        rng.normal(size=golden.logits.shape).astype(np.float32), *rng.random((2, *golden.maps.shape), dtype=np.float32)
    )
    (finding,) = diagnosed(golden, answers)
    assert finding.fault == "head-scrambled"
    assert "another network's" in finding.text


def test_drift_is_what_remains(golden: GoldenSet) -> None:
    noise = np.random.default_rng(0).random(golden.maps.shape, dtype=np.float32) * golden.maps.max()
    # Answers that moved with the maps: where they did not, the map branch alone would be at fault.
    shaken = np.random.default_rng(1).normal(0, 0.3 * golden.logits.std(), golden.logits.shape).astype(np.float32)
    answers = replace(answers_of(golden), maps=golden.maps + noise, logits=golden.logits + shaken)
    (finding,) = diagnosed(golden, answers)
    assert finding.fault == "maps-drifted"
    # A few maps that are empty come with drift, and do not explain it; where most are, that is what is wrong.
    for empty, expected in ((2, ["maps-drifted", "map-vanished"]), (60, ["map-vanished"])):
        maps = answers.maps.copy()
        maps[:empty] = 0
        assert [finding.fault for finding in diagnosed(golden, replace(answers, maps=maps))] == expected
    assert finding.before == pytest.approx(mean_cosine(golden.maps, answers.maps))


@pytest.mark.parametrize("order", [[1, 0, 2, 3], [3, 2, 1, 0], [1, 2, 3, 0]])
def test_reordered_classes_are_named(golden: GoldenSet, order: list[int]) -> None:
    (finding,) = diagnosed(golden, replace(answers_of(golden), logits=golden.logits[:, order]))
    assert finding.fault == "class-order"
    classes = golden.card.classes
    moved = next(place for place, source in enumerate(order) if place != source)
    assert f"{classes[moved]!r} is the teacher's for {classes[order[moved]]!r}" in finding.text


def test_too_few_samples_to_tell_the_order(golden: GoldenSet) -> None:
    few = tiny_golden(7)
    found_ = diagnosed(few, replace(answers_of(few), logits=few.logits[:, [1, 0, 2, 3]]))
    assert "class-order" not in {finding.fault for finding in found_}


COMMON = {
    "no mean or std": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "divisor": 255.0},
    "raw values": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "divisor": 1.0},
    "ImageNet": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "divisor": 255.0},
}


@pytest.mark.parametrize("name", COMMON)
@pytest.mark.parametrize("engine_is_wrong", [True, False])
def test_some_preparation_undoes_each_wrong_one(name: str, engine_is_wrong: bool) -> None:
    """Exactly, for any card: the engine then sees what the card's own preparation would have given."""
    right = InputSpec(4, 4, "RGB", 127.0, (0.9, 1.1, 0.7), (0.3, 0.5, 0.4))
    wrong = replace(right, **COMMON[name])
    before = prepared_as(right, wrong) if engine_is_wrong else prepared_as(wrong, right)
    pixels = np.random.default_rng(0).uniform(0, 255, size=(2, 3, 4, 4))

    def prepared(spec: InputSpec) -> np.ndarray:
        mean, std = (np.array(values)[None, :, None, None] for values in (spec.mean, spec.std))
        return (pixels / spec.divisor - mean) / std

    gaps = [
        np.abs(before(prepared(spec)) - prepared(right)).max()
        for fault, _, spec in _other_preparations(right)
        if fault == "input-mean-std"
    ]
    assert min(gaps) < 1e-9


def test_the_engine_is_asked_again_about_its_inputs(golden: GoldenSet) -> None:
    with REFERENCE.open(GRAPH, EngineOptions()) as runner:
        faulty = FaultyRunner(runner, before=lambda images: images[:, ::-1])
        answers = answer_golden(faulty, golden)
        table = score_answers(golden, answers)
        assert "input-channel-order" in {finding.fault for finding in diagnose(golden, answers, table, faulty)}
        assert "input-channel-order" not in {finding.fault for finding in diagnose(golden, answers, table, None)}


def test_answers_that_are_not_finite_when_asked_again(golden: GoldenSet) -> None:
    with REFERENCE.open(GRAPH, EngineOptions()) as runner:
        faulty = FaultyRunner(runner, after=on_logits(lambda logits: logits * np.nan))
        answers = answer_golden(faulty, golden)
        found_ = diagnose(golden, answers, score_answers(golden, answers), faulty)
    assert "logits-not-finite" in {finding.fault for finding in found_}


def test_a_finding_is_json() -> None:
    finding = Finding("map-shifted", "text", 0.5, 1.0)
    assert finding.to_dict() == {"fault": "map-shifted", "text": "text", "before": 0.5, "after": 1.0}


@pytest.mark.parametrize(
    ("before", "after", "closed"),
    [(0.5, 1.0, True), (0.5, 0.74, False), (0.5, 0.76, True), (0.99, 1.0, False), (1.0, 1.0, False), (-1, 0.1, True)],
)
def test_what_counts_as_closing_a_gap(before: float, after: float, closed: bool) -> None:
    assert closes(before, after) is closed


def test_the_best_of_the_same_fault_is_kept() -> None:
    findings = [Finding("a", "", 0.1, 0.8), Finding("b", "", 0.1, 0.9), Finding("a", "", 0.1, 0.95)]
    assert [(item.fault, item.after) for item in best_of_each(findings)] == [("a", 0.95), ("b", 0.9)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda maps: maps, 1.0),
        (np.zeros_like, -1.0),
        (lambda maps: maps * np.nan, -1.0),
        (lambda maps: -maps, -1.0),
    ],
)
def test_mean_cosine_of_degenerate_maps(change: Callable[[np.ndarray], np.ndarray], expected: float) -> None:
    assert mean_cosine(TEACHER, change(TEACHER)) == pytest.approx(expected)
    assert mean_cosine(np.zeros_like(TEACHER), np.zeros_like(TEACHER)) == 0.0
