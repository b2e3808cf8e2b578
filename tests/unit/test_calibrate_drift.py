"""Drift: zero for equal answers, worst for vanished maps, and blind to units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from edgekit.calibrate.drift import Drift, drift_of, relative_drift, sample_drift
from edgekit.calibrate.probe import Answers

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(8, 4)).astype(np.float32)
MAPS = np.abs(RNG.normal(size=(8, 5, 5))).astype(np.float32)


def test_equal_answers_did_not_move() -> None:
    found = drift_of(Answers(LOGITS, (MAPS,)), Answers(LOGITS, (MAPS,)))
    assert found == pytest.approx(Drift(0, 0, 0, 0, 0), abs=1e-12)


def test_logits_move_by_the_divergence_of_their_distributions() -> None:
    moved = LOGITS + RNG.normal(size=LOGITS.shape).astype(np.float32)
    found = sample_drift(Answers(LOGITS, (MAPS,)), Answers(moved, (MAPS,)))
    expected = rel_entr(softmax(LOGITS.astype(float), axis=1), softmax(moved.astype(float), axis=1)).sum(axis=1)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-9)
    assert list(found["flips"]) == list((LOGITS.argmax(1) != moved.argmax(1)).astype(float))


def test_a_vanished_map_is_the_worst_that_can_happen_and_two_zero_maps_are_nothing() -> None:
    gone, nothing = MAPS.copy(), MAPS.copy()
    gone[0], nothing[1] = 0, 0
    found = sample_drift(Answers(LOGITS, (nothing,)), Answers(LOGITS, (gone * (nothing != 0),)))
    assert (found["cosine"][0], found["spearman"][0], found["iou"][0]) == (2, 2, 1)
    assert (found["cosine"][1], found["spearman"][1], found["iou"][1]) == (0, 0, 0)


def test_of_several_maps_the_worst_counts() -> None:
    turned = MAPS[:, ::-1].copy()
    alone = sample_drift(Answers(LOGITS, (MAPS,)), Answers(LOGITS, (turned,)))
    beside = sample_drift(Answers(LOGITS, (MAPS, MAPS)), Answers(LOGITS, (MAPS, turned)))
    for name, values in alone.items():
        np.testing.assert_array_equal(values, beside[name])


@given(st.lists(st.floats(0.1, 1), min_size=5, max_size=5), st.floats(0.1, 10))
def test_relative_drift_is_a_ratio(values: list[float], factor: float) -> None:
    base = Drift(*values)
    scaled = Drift(*(value * factor for value in values[:4]), flips=0.0)
    assert relative_drift(base, base) == pytest.approx(1)
    assert relative_drift(scaled, base) == pytest.approx(factor, rel=5e-2)
    assert relative_drift(scaled, base) * relative_drift(base, scaled) == pytest.approx(1)


def test_no_drift_at_all_is_not_a_division_by_zero() -> None:
    nothing = Drift(0, 0, 0, 0, 0)
    assert relative_drift(nothing, nothing) == 1
    assert relative_drift(Drift(0.1, 0.1, 0.1, 0.1, 0), nothing) > 1000
