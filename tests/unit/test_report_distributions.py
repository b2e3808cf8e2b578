"""Histograms, their axes and their geometry, against numpy and their own promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report_example import Case, example_report

from edgekit.metrics.agreement import METRICS
from edgekit.policy.clauses import QuantileClause, ShareClause
from edgekit.policy.policy import Policy
from edgekit.report.charts import histogram_chart
from edgekit.report.distributions import describe_distributions, histogram, nice_ticks


@given(low=st.floats(-1, 1), extent=st.floats(1e-5, 2), steps=st.integers(1, 8))
def test_ticks_enclose_in_equal_round_steps(low: float, extent: float, steps: int) -> None:
    ticks = nice_ticks(low, low + extent, steps)
    step = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-9 * step + 1e-12
    assert ticks[-1] >= low + extent - 1e-9 * step - 1e-12
    assert np.allclose(np.diff(ticks), step, rtol=1e-5, atol=1e-12)
    mantissa = step / 10.0 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - wanted) for wanted in (1, 2, 2.5, 5, 10)) < 1e-3
    # No emptier than it must be: less than one step of nothing on either side.
    assert ticks[0] > low - step * 1.001
    assert ticks[-1] < low + extent + step * 1.001


@pytest.mark.parametrize("name", sorted(METRICS))
@settings(max_examples=40)
@given(data=st.data())
def test_a_histogram_counts_every_value_once_and_like_numpy(name: str, data: st.DataObject) -> None:
    metric = METRICS[name]
    low, high = sorted((metric.worst, metric.best))
    # Numbers a metric could have: not a hair's breadth of rounding beside an edge.
    numbers = st.floats(low, high).map(lambda value: round(value, 6))
    values = np.array(data.draw(st.lists(numbers, min_size=1, max_size=60)))
    marks = tuple(data.draw(st.lists(numbers, max_size=2)))
    drawn = histogram(values, metric, marks)
    assert sum(drawn.counts) == len(values)
    assert drawn.counts == tuple(np.histogram(values, bins=np.array(drawn.edges))[0].tolist())
    assert drawn.count_ticks[-1] >= max(drawn.counts)
    assert all(tick == int(tick) for tick in drawn.count_ticks)
    # The best there can be and everything the policy asks for stand on the axis, within the metric's range.
    for point in (metric.best, *marks, *values):
        assert drawn.ticks[0] - 1e-9 <= point <= drawn.ticks[-1] + 1e-9
    assert low - 1e-9 <= drawn.ticks[0]
    assert drawn.ticks[-1] <= high + 1e-9


def test_lost_maps_are_counted_and_do_not_stretch_the_axis() -> None:
    data = example_report(Case(noise=0.02))
    cosine = describe_distributions(data.table, data.verdict.policy)["cosine"]
    lost = sum(data.table.state.count(state) for state in ("one_zero", "non_finite"))
    assert cosine["lost"] == lost == 2
    assert cosine["undefined"] == data.table.state.count("both_zero") == 1
    assert sum(cosine["histogram"]["counts"]) == len(data.table) - 3
    assert cosine["histogram"]["ticks"][0] > 0
    # The summary hides nothing: there the lost maps stand at their worst.
    assert cosine["summary"]["minimum"] == -1
    assert cosine["summary"]["count"] == len(data.table) - 1


def test_the_policys_demands_stand_where_they_belong() -> None:
    policy = Policy(
        "p",
        0.95,
        (
            ShareClause("cosine", 0.9, 0.9),
            ShareClause("cosine", 0.97, 0.5),
            ShareClause("cosine", 0.2, 0.5, "own-class"),
            ShareClause("argmax-distance", 0.25, 0.5),
            QuantileClause("pearson", 0.05, 0.7),
        ),
        10,
    )
    described = describe_distributions(example_report(Case(degenerate=False)).table, policy)
    assert [demand["value"] for demand in described["cosine"]["demands"]] == [0.9, 0.97]
    assert described["pearson"]["demands"] == [{"kind": "quantile", "value": 0.7, "q": 0.05}]
    assert described["ssim"]["demands"] == []
    cosine = histogram_chart(described["cosine"])
    # The strictest share clause shades everything worse than its bound: up to it where higher is better.
    assert cosine.missed == (cosine.left, pytest.approx(cosine.demands[1].at - cosine.left))
    distance = histogram_chart(described["argmax-distance"])
    assert distance.missed == (distance.demands[0].at, pytest.approx(distance.right - distance.demands[0].at))


@pytest.mark.parametrize("degenerate", [True, False])
def test_charts_stay_inside_their_box_and_keep_proportions(degenerate: bool) -> None:
    data = example_report(Case(degenerate=degenerate))
    for described in describe_distributions(data.table, data.verdict.policy).values():
        chart, counts = histogram_chart(described), described["histogram"]["counts"]
        assert [bar.index for bar in chart.bars] == [index for index, count in enumerate(counts) if count]
        for bar in chart.bars:
            assert chart.left <= bar.x
            assert bar.x + bar.width <= chart.right + 1
            assert bar.y >= chart.top - 0.02
            assert bar.y + bar.height == pytest.approx(chart.bottom)
        full = max(described["histogram"]["count_ticks"][-1], described["lost"])
        for bar in chart.bars:
            tall = counts[bar.index] / full * (chart.bottom - chart.top)
            assert bar.height == pytest.approx(max(tall, 1.5), abs=0.02)
        assert (chart.lost is None) == (not degenerate)
        if chart.lost is not None:
            beside = chart.lost.x + chart.lost.width < chart.left or chart.lost.x > chart.right
            assert beside
