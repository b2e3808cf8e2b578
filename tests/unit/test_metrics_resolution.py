"""The step of a metric that counts cells is what the metric says when one cell is exchanged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.metrics.agreement import METRICS, score_agreement
from edgekit.metrics.resolution import one_cell


def gap(metric: str, a: np.ndarray, b: np.ndarray) -> float:
    return float(abs(METRICS[metric].best - score_agreement(a[None], b[None], [metric]).metrics[metric][0]))


@given(height=st.integers(1, 14), width=st.integers(1, 14), seed=st.integers(0, 20))
def test_one_exchanged_cell(height: int, width: int, seed: int) -> None:
    cells = height * width
    if cells < 2:
        return
    random = np.random.default_rng(seed)
    # Distinct values, so that there are no ties.
    values = random.permutation(cells).astype(np.float64) + 1
    chosen = max(1, round(0.2 * cells))
    order = np.argsort(-values)
    other = values.copy()
    other[order[[chosen - 1, chosen]]] = values[order[[chosen, chosen - 1]]]
    shape = (height, width)
    assert gap("iou-top20", values.reshape(shape), other.reshape(shape)) == pytest.approx(
        one_cell("iou-top20", height, width)
    )


@given(height=st.integers(1, 14), width=st.integers(1, 14), seed=st.integers(0, 20))
def test_a_peak_beside_itself_is_the_least_that_a_peak_moves(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    if height * width < 2:
        return
    values = random.uniform(0, 1, size=(2, height, width))
    places = random.choice(height * width, size=2, replace=False)
    for each, place in zip(values, places, strict=True):
        each.flat[place] = 2
    found, step = gap("argmax-distance", *values), one_cell("argmax-distance", height, width)
    assert found >= step - 1e-12
    rows, columns = np.unravel_index(places, (height, width))
    if abs(rows[0] - rows[1]) + abs(columns[0] - columns[1]) == 1:
        assert found == pytest.approx(step)


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"iou-top20", "argmax-distance"}))
def test_other_metrics_follow_the_values(metric: str) -> None:
    assert one_cell(metric, 8, 8) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_maps_of_one_cell_have_no_other(metric: str) -> None:
    assert one_cell(metric, 1, 1) == 0
