"""The assignment against scipy's, and against trying every order."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import linear_sum_assignment

from edgekit.verify.diagnosis.assignment import assign
from edgekit.verify.diagnosis.batch_faults import find_mixed_logits, find_mixed_maps

SMALL = st.integers(1, 5).flatmap(
    lambda size: hnp.arrays(np.float64, (size, size), elements=st.floats(-4, 4, width=16))
)


def total(cost: np.ndarray, columns: np.ndarray) -> float:
    return float(cost[np.arange(len(cost)), columns].sum())


@settings(deadline=None, derandomize=True, max_examples=80)
@given(SMALL)
def test_no_order_is_cheaper(cost: np.ndarray) -> None:
    columns = assign(cost)
    assert sorted(columns.tolist()) == list(range(len(cost)))
    cheapest = min(total(cost, np.array(order)) for order in permutations(range(len(cost))))
    assert total(cost, columns) == pytest.approx(cheapest, abs=1e-9)


@pytest.mark.parametrize("size", [1, 16, 100, 256])
def test_it_costs_what_scipy_finds(size: int) -> None:
    cost = np.random.default_rng(size).normal(size=(size, size))
    rows, columns = linear_sum_assignment(cost)
    assert total(cost, assign(cost)) == pytest.approx(cost[rows, columns].sum())


def test_nothing_is_assigned_to_nobody() -> None:
    assert assign(np.empty((0, 0))).shape == (0,)


def logits(count: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, classes)).astype(np.float32)


def test_logits_alone_in_another_order_are_found() -> None:
    teacher = logits(64, 6)
    engine = teacher + 0.02 * logits(64, 6, seed=1)
    (finding,) = find_mixed_logits(teacher, np.roll(engine, 5, axis=0))
    assert finding.fault == "batch-mixed-up"
    assert "the answer of sample 0 was given to sample 5" in finding.text
    assert finding.after > 0.95
    assert find_mixed_logits(teacher, engine) == []


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_unrelated_answers_are_in_no_other_order(classes: int) -> None:
    """With few classes any cluster of answers finds partners in another network's."""
    assert find_mixed_logits(logits(96, classes), logits(96, classes, seed=1)) == []


def test_answers_that_are_not_finite_are_left_alone() -> None:
    assert find_mixed_logits(logits(8, 3), logits(8, 3) * np.float32("nan")) == []


def test_each_map_is_given_away_once() -> None:
    """Two samples whose maps are nearly one another's: the nearest alone would give one map to both."""
    maps = np.random.default_rng(0).random((12, 4, 4)).astype(np.float32) ** 4
    maps[1] = maps[0] + 0.02
    (finding,) = find_mixed_maps(maps, maps[::-1].copy())
    assert "the map of sample 0 was given to sample 11" in finding.text
