"""Clauses as they are drawn: any kind of them, on an axis that holds value, interval and bound, and says no more."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_example import Case, example_report
from test_report_page import Page, untied_numbers, written

from edgekit.policy.clauses import CLAUSES, AgreementClause, BudgetClause, MeanClause, QuantileClause, ShareClause
from edgekit.policy.document import load_preset, preset_names
from edgekit.policy.result import ClauseResult, GroupResult
from edgekit.report.clauses import describe_clause, interval_axis
from edgekit.report.numbers import FORMATS
from edgekit.report.whiskers import SLIM, WIDE, whisker_chart

SHARE = AgreementClause(0.9)


def result(clause: Any = SHARE, **changed: Any) -> ClauseResult:
    values: dict[str, Any] = {
        "clause": clause, "text": "a demand", "explanation": "what was found", "outcome": "pass", "observed": 0.95,
        "lower": 0.92, "upper": 0.97, "samples": 200, "successes": 190, "samples_needed": None, "worst": (),
    }  # fmt: skip
    return ClauseResult(**values | changed)


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize("samples", [1, 90])
def test_every_clause_of_the_presets_can_be_drawn(preset: str, samples: int) -> None:
    data = example_report(Case(samples=samples), load_preset(preset))
    kinds = set()
    for found in data.verdict.clauses:
        told = describe_clause(found, data.golden.card.classes)
        kinds.add(told["kind"])
        ticks = told["axis"]["ticks"]
        assert ticks == sorted(set(ticks))
        for key in ("observed", "lower", "upper", "bound"):
            assert told[key] is None or ticks[0] <= told[key] <= ticks[-1]
        assert told["unit"] in FORMATS
        assert told["better"] in ("higher", "lower")
    assert kinds <= set(CLAUSES)


@pytest.mark.parametrize(
    ("clause", "unit", "better", "ends"),
    [
        (AgreementClause(0.9), "share", "higher", (0.85, 1.0)),
        (ShareClause("argmax-distance", 0.1, 0.9), "share", "higher", (0.85, 1.0)),
        (MeanClause("cosine", 0.9), "score", "higher", (0.85, 1.0)),
        (MeanClause("argmax-distance", 0.1), "score", "lower", (0.0, 1.0)),
        (QuantileClause("cosine", 0.01, 0.9), "score", "higher", (0.85, 1.0)),
        (BudgetClause("artifact-bytes", 2_000_000.0), "bytes", "lower", (0.0, 3_000_000.0)),
        (BudgetClause("latency-p99-ms", 3.0), "ms", "lower", (0.0, 4.0)),
        (BudgetClause("power-w", 3.0), "plain", "lower", (0.0, 4.0)),
    ],
)
def test_unit_side_and_axis_follow_from_the_clause(
    clause: Any, unit: str, better: str, ends: tuple[float, float]
) -> None:
    told = describe_clause(result(clause), ())
    assert (told["unit"], told["better"]) == (unit, better)
    assert (told["axis"]["ticks"][0], told["axis"]["ticks"][-1]) == pytest.approx(ends)


def test_a_clause_that_was_not_measured_is_drawn_as_its_bound_alone() -> None:
    nothing = {"observed": None, "lower": None, "upper": None, "samples": 0, "successes": None}
    told = describe_clause(result(outcome="not-measured", measured=False, **nothing), ())
    chart = whisker_chart(told, told["axis"]["ticks"])
    assert (chart.dot, chart.low, chart.high) == (None, None, None)
    assert chart.bound is not None
    assert chart.left < chart.bound < chart.right


_VALUES = st.floats(-1e9, 1e9) | st.none()


@given(values=st.lists(_VALUES, max_size=6), best=_VALUES)
def test_an_axis_holds_whatever_is_on_it(values: list[float | None], best: float | None) -> None:
    ticks = interval_axis(values, unit="score", best=best)
    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 8
    slack = 1e-9 * max(abs(tick) for tick in ticks)
    for value in (*values, best):
        assert value is None or ticks[0] - slack <= value <= ticks[-1] + slack


@given(share=st.floats(0, 1), bound=st.floats(0, 1))
def test_no_axis_of_shares_leaves_them(share: float, bound: float) -> None:
    ticks = interval_axis([share, bound], unit="share", best=1.0)
    assert min(ticks) >= -0.03
    assert max(ticks) <= 1.03
    assert math.isfinite(sum(ticks))


@given(
    observed=st.floats(0, 1),
    half=st.floats(0, 0.5),
    bound=st.floats(0, 1),
    better=st.sampled_from(["higher", "lower"]),
    size=st.sampled_from([WIDE, SLIM]),
)
def test_marks_stand_in_the_order_of_their_values(
    observed: float, half: float, bound: float, better: str, size: Any
) -> None:
    entry = {"observed": observed, "lower": observed - half, "upper": observed + half, "bound": bound, "better": better}
    chart = whisker_chart(entry, [0.0, 0.5, 1.0], size)
    assert chart.low is not None
    assert chart.dot is not None
    assert chart.high is not None
    assert chart.bound is not None
    assert chart.good is not None
    assert chart.left <= chart.low <= chart.dot <= chart.high <= chart.right
    assert (chart.dot >= chart.bound) == (observed >= bound) or abs(observed - bound) < 1e-3
    start, width = chart.good
    assert start == pytest.approx(chart.bound if better == "higher" else chart.left)
    assert start + width == pytest.approx(chart.right if better == "higher" else chart.bound, abs=0.011)


GROUPS = (
    GroupResult("pass", 0.99, 0.9, 1.0, 40, name="0"),
    GroupResult("fail", 0.5, 0.3, 0.7, 20, name="2"),
    GroupResult("inconclusive", 0.9, 0.6, 0.99, 9, name="1"),
    GroupResult("fail", 0.4, 0.2, 0.6, 20, name="3"),
)


def test_groups_are_named_and_the_worst_stand_first(tmp_path: Any) -> None:
    data = example_report()
    first, *others = data.verdict.clauses
    values = {key: value for key, value in vars(first).items() if key not in ("outcome", "groups")}
    grouped = ClauseResult(**values, outcome="fail", groups=GROUPS)
    told = describe_clause(grouped, data.golden.card.classes)
    assert [group["name"] for group in told["groups"]] == ["bar", "cross", "square", "disc"]
    ticks = told["axis"]["ticks"]
    assert ticks[0] <= 0.2
    verdict = replace(data.verdict, outcome="fail", clauses=(grouped, *others))
    found, document, _ = written(replace(data, verdict=verdict, status="blocked"), tmp_path)
    assert untied_numbers(found, document) == []
    assert cells(found, "groups") == ["bar", "cross", "square", "disc"]


@pytest.mark.parametrize(("name", "named"), [("1", "b"), ("0", "a"), ("7", "7"), ("c", "c"), ("", "")])
def test_groups_are_told_by_the_name_of_their_class(name: str, named: str) -> None:
    (group,) = describe_clause(result(groups=(GroupResult("not-measured", name=name),)), ("a", "b"))["groups"]
    assert group["name"] == named
    assert (group["observed"], group["outcome"]) == (None, "not-measured")


def cells(found: Page, kind: str) -> list[str]:
    """Row headings of the table inside the element of this class."""
    return [
        text
        for text, around in found.texts
        if around[-1][0] == "th"
        and around[-1][1].get("scope") == "row"
        and kind in [attributes.get("class") for _, attributes in around]
    ]


def test_each_clause_is_on_the_page_with_value_bound_interval_and_drawing() -> None:
    from test_report_page import made

    found, document, _, _ = made("failing")
    drawn = [element for element in found.all("svg") if element.get("class") == "chart whisker"]
    assert len(drawn) == len(document["verdict"]["clauses"])
    paths = {attributes.get("data-path") for _, attributes in found.elements}
    for place, clause in enumerate(document["verdict"]["clauses"]):
        for key in ("observed", "bound", "lower", "upper"):
            assert clause[key] is None or f"/verdict/clauses/{place}/{key}" in paths
    links = [link["href"] for link in found.all("a")]
    for place, clause in enumerate(document["verdict"]["clauses"], start=1):
        assert (f"#demand-{place}" in links) == (clause["outcome"] != "pass")


def test_a_known_kind_states_a_side_that_its_outcome_agrees_with() -> None:
    rng = np.random.default_rng(0)
    for noise in rng.uniform(0, 0.5, 4):
        for found in example_report(Case(noise=float(noise)), load_preset("default")).verdict.clauses:
            told = describe_clause(found, ())
            if told["outcome"] in ("pass", "fail") and told["observed"] is not None:
                good = (
                    told["observed"] >= told["bound"]
                    if told["better"] == "higher"
                    else told["observed"] <= told["bound"]
                )
                assert good or told["outcome"] == "fail"
