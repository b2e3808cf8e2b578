"""From answers to scores: what is compared with what, and what happens to values that are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_golden import tiny_golden

from edgekit.bundle.golden import GoldenSet
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.localisation import LOCALISATION
from edgekit.verify.answers import EngineAnswers
from edgekit.verify.score import score_answers


@pytest.fixture
def golden() -> GoldenSet:
    return tiny_golden(12, masks=True)


@pytest.fixture
def answers(golden: GoldenSet) -> EngineAnswers:
    return EngineAnswers(golden.logits.copy(), golden.maps.copy(), golden.maps.copy())


def test_the_same_answers_are_a_perfect_match(golden: GoldenSet, answers: EngineAnswers) -> None:
    table = score_answers(golden, answers)
    assert set(table.metrics) == set(table.own_class_metrics) == set(METRICS)
    for name, metric in METRICS.items():
        np.testing.assert_allclose(table.metrics[name], metric.best, atol=1e-12)
        np.testing.assert_allclose(table.own_class_metrics[name], metric.best, atol=1e-12)
    assert table.agrees.all()
    assert table.state == ("scored",) * 12
    assert table.sample == golden.digests
    assert np.array_equal(table.label, golden.labels)


def test_the_two_views_are_of_different_maps(golden: GoldenSet, answers: EngineAnswers) -> None:
    table = score_answers(golden, replace(answers, own_maps=golden.maps[:, ::-1].copy()))
    assert np.all(table.metrics["cosine"] == 1)
    assert np.all(table.own_class_metrics["cosine"] < 1)
    table = score_answers(golden, replace(answers, maps=golden.maps[:, ::-1].copy()))
    assert np.all(table.metrics["cosine"] < 1)
    assert np.all(table.own_class_metrics["cosine"] == 1)


def test_cosine_follows_its_formula(golden: GoldenSet, answers: EngineAnswers) -> None:
    moved = golden.maps + np.random.default_rng(0).random(golden.maps.shape, dtype=np.float32)
    table = score_answers(golden, replace(answers, maps=moved))
    for index in range(12):
        a, b = golden.maps[index].ravel().astype(float), moved[index].ravel().astype(float)
        expected = sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5)
        assert table.metrics["cosine"][index] == pytest.approx(expected)


def test_predictions_are_the_engines_own(golden: GoldenSet, answers: EngineAnswers) -> None:
    logits = golden.logits[:, [1, 0, 2, 3]].copy()
    logits[3] = np.nan
    logits[4, 2] = np.inf
    table = score_answers(golden, replace(answers, logits=logits))
    expected = logits.argmax(axis=1)
    expected[[3, 4]] = -1
    assert np.array_equal(table.engine_class, expected)
    assert not table.agrees[3]
    assert not table.agrees[4]
    assert table.engine_class.dtype == np.int64


def test_maps_that_are_none_get_the_worst_values_and_a_state(golden: GoldenSet, answers: EngineAnswers) -> None:
    teacher = golden.maps.copy()
    teacher[[0, 1]] = 0
    engine = teacher.copy()
    engine[1, 2, 2] = 1
    engine[2] = 0
    engine[3, 0, 0] = np.nan
    table = score_answers(replace(golden, maps=teacher), replace(answers, maps=engine))
    assert table.state[:5] == ("both_zero", "one_zero", "one_zero", "non_finite", "scored")
    assert np.array_equal(table.compared, [False] + [True] * 11)
    for name, metric in METRICS.items():
        assert np.isnan(table.metrics[name][0])
        assert np.all(table.metrics[name][1:4] == metric.worst)


def test_without_masks_nothing_is_localised(golden: GoldenSet, answers: EngineAnswers) -> None:
    assert score_answers(replace(golden, masks=None), answers).localisation == {}


def test_localisation_of_both_networks_and_of_a_blind_map(golden: GoldenSet, answers: EngineAnswers) -> None:
    left, right = np.zeros((2, 12, 4, 4), dtype=np.float32)
    left[:, 1:3, 0], right[:, 1:3, 3] = 1, 1
    table = score_answers(replace(golden, maps=left), replace(answers, maps=right))
    assert set(table.localisation) == {
        f"{who}/{name}" for who in ("teacher", "engine", "centre-prior") for name in LOCALISATION
    }
    # The object is the left half: the teacher points at it, the engine past it, and the blind map knows nothing.
    assert np.all(table.localisation["teacher/pointing"] == 1)
    assert np.all(table.localisation["engine/pointing"] == 0)
    np.testing.assert_allclose(table.localisation["teacher/energy-inside"], 1, atol=1e-6)
    np.testing.assert_allclose(table.localisation["engine/energy-inside"], 0, atol=1e-6)
    np.testing.assert_allclose(table.localisation["centre-prior/energy-inside"], 0.5, atol=1e-6)


def test_a_sample_without_a_mask_has_no_localisation(golden: GoldenSet, answers: EngineAnswers) -> None:
    masks = golden.masks.copy()
    masks[5] = False
    table = score_answers(replace(golden, masks=masks), answers)
    for values in table.localisation.values():
        assert np.isnan(values[5])
        assert np.isfinite(np.delete(values, 5)).all()
