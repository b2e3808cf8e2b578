"""The chart of drift over depth: every mark inside its box, in order, and zero where it belongs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.report.blame_chart import DepthChart, depth_chart
from edgekit.report.blame_page import drift_in_words


def document(drifts: list[tuple[float, float]], together: float, depth: int = 9) -> dict[str, Any]:
    def interval(mean: float) -> dict[str, dict[str, float]]:
        return {"cosine": {"mean": mean, "low": mean / 2, "high": mean * 2}}

    tensors = [
        {
            "kind": ("activation", "weight")[number % 2],
            "depth": number % (depth + 1),
            "only": interval(only),
            "all_but": interval(all_but),
        }
        for number, (only, all_but) in enumerate(drifts)
    ]
    return {"depth": depth, "tensors": tensors, "together": interval(together)}


def heights(chart: DepthChart) -> list[float]:
    marks = [value for mark in chart.marks for value in (mark.y, mark.low, mark.high, mark.left_out)]
    return [*marks, chart.together, *(tick.at for tick in chart.drift_ticks)]


DRIFT = st.one_of(st.just(0.0), st.floats(1e-14, 5.0))


@given(st.lists(st.tuples(DRIFT, DRIFT), min_size=1, max_size=20), DRIFT, st.integers(0, 400))
@settings(max_examples=80, deadline=None)
def test_nothing_stands_outside_and_more_drift_stands_higher(
    drifts: list[tuple[float, float]], together: float, depth: int
) -> None:
    chart = depth_chart(document(drifts, together, depth), "cosine")
    assert all(chart.top <= height <= chart.zero for height in heights(chart))
    assert all(chart.left <= mark.x <= chart.right for mark in chart.marks)
    assert all(chart.left <= tick.at <= chart.right for tick in chart.depth_ticks)
    assert len(chart.depth_ticks) <= 13
    for one, mark in zip(drifts, chart.marks, strict=True):
        assert mark.high <= mark.y <= mark.low
        assert (mark.y == chart.zero) == (one[0] == 0)
    for first, one in zip(drifts, chart.marks, strict=True):
        for second, other in zip(drifts, chart.marks, strict=True):
            assert first[0] < second[0] or one.y <= other.y


def test_ticks_are_powers_of_ten_at_their_places() -> None:
    chart = depth_chart(document([(1e-3, 1e-2), (1e-5, 1e-2)], 1e-2), "cosine")
    ticks = {tick.text: tick.at for tick in chart.drift_ticks}
    assert list(ticks) == ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"] or list(ticks) == ["1e-5", "1e-4", "1e-3", "1e-2"]
    assert chart.marks[0].y == ticks["1e-3"]
    assert chart.marks[1].y == ticks["1e-5"]
    assert chart.together == ticks["1e-2"]


def test_where_nothing_drifts_all_stands_at_zero() -> None:
    chart = depth_chart(document([(0.0, 0.0)], 0.0), "cosine")
    assert chart.marks[0].y == chart.marks[0].left_out == chart.together == chart.zero


def test_weights_stand_beside_the_activation_of_their_depth() -> None:
    drawn = document([(1e-3, 1e-3), (1e-3, 1e-3)], 1e-3)
    drawn["tensors"][1]["depth"] = 0
    activation, weight = depth_chart(drawn, "cosine").marks
    assert weight.x < activation.x


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "n/a"), (0.0, "0"), (1.23e-4, "1.2e-4"), (0.5, "5.0e-1"), (12.0, "1.2e1"), (3e-12, "3.0e-12")],
)
def test_drifts_are_two_digits_and_a_power(value: float | None, words: str) -> None:
    assert drift_in_words(value) == words
