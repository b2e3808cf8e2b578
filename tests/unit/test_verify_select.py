"""Which candidate ships: the preferred one that holds, and the reasons in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgekit.core.canonical import dump_canonical
from edgekit.errors import BadInputError, DefectError
from edgekit.verify.options import SelectOptions
from edgekit.verify.select import Candidate, select

OPTIONS = SelectOptions(max_accuracy_drop=0.01, max_latency_ratio=1.0)
INT8 = Candidate("int8", "ort-cpu", "int8", "pass", 0.97, 0.90, 4.0, 0.5, 250)
FP32 = Candidate("fp32", "ort-cpu", "fp32", "pass", 0.99, 0.905, 8.0, 1.0, 1000)


def chosen(int8: Candidate | None = INT8, fp32: Candidate = FP32, options: SelectOptions = OPTIONS) -> tuple[str, str]:
    selection = select({item.name: item for item in (fp32, int8) if item is not None}, options)
    return selection.chosen, selection.status


def test_int8_is_preferred() -> None:
    selection = select({"fp32": FP32, "int8": INT8}, OPTIONS)
    assert (selection.chosen, selection.status) == ("int8", "released")
    assert [item.candidate.name for item in selection.judged] == ["int8", "fp32"]
    assert selection.reason == (
        "holds: its verdict is pass; 0.50 times the latency of FP32 here; 0.25 times its size; "
        "+0.5 points of accuracy lost"
    )
    assert selection.ships("int8")
    assert not selection.ships("fp32")


@pytest.mark.parametrize(
    ("int8", "words"),
    [
        (replace(INT8, outcome="fail"), "its verdict is fail"),
        (replace(INT8, outcome="inconclusive"), "its verdict is inconclusive"),
        (replace(INT8, latency_ratio=1.3), "1.30 times the latency of FP32"),
        (replace(INT8, accuracy=0.88), "2.5 points of accuracy"),
        (replace(INT8, accuracy=None), "2.0 points of agreement"),
    ],
)
def test_fp32_ships_where_int8_does_not_hold(int8: Candidate, words: str) -> None:
    selection = select({"fp32": FP32, "int8": int8}, OPTIONS)
    assert (selection.chosen, selection.status) == ("fp32", "released")
    reason = selection.judged[0].reason
    assert reason.startswith("not shipped: ")
    assert words in reason


def test_every_reason_is_told_at_once() -> None:
    bad = replace(INT8, outcome="fail", latency_ratio=2.0, accuracy=0.5)
    reason = select({"fp32": FP32, "int8": bad}, OPTIONS).judged[0].reason
    assert reason.count(";") == 2


@pytest.mark.parametrize(
    ("int8", "holds"),
    [
        (replace(INT8, latency_ratio=1.0), True),
        (replace(INT8, latency_ratio=1.001), False),
        (replace(INT8, latency_ratio=None), True),
        (replace(INT8, accuracy=0.8951), True),
        (replace(INT8, accuracy=0.8949), False),
        (replace(INT8, accuracy=0.95), True),
    ],
)
def test_the_bounds_are_those_of_the_recipe(int8: Candidate, holds: bool) -> None:
    assert chosen(int8)[0] == ("int8" if holds else "fp32")


def test_fp32_alone() -> None:
    assert chosen(None) == ("fp32", "released")
    assert chosen(None, replace(FP32, outcome="fail")) == ("fp32", "blocked")


@pytest.mark.parametrize(
    ("int8", "fp32", "expected"),
    [
        ("fail", "fail", ("int8", "blocked")),
        ("fail", "inconclusive", ("fp32", "inconclusive")),
        ("inconclusive", "fail", ("int8", "inconclusive")),
        ("inconclusive", "inconclusive", ("int8", "inconclusive")),
    ],
)
def test_when_nothing_holds_the_better_verdict_is_kept_and_nothing_ships(
    int8: str, fp32: str, expected: tuple[str, str]
) -> None:
    candidates = {"int8": replace(INT8, outcome=int8), "fp32": replace(FP32, outcome=fp32)}
    selection = select(candidates, OPTIONS)
    assert (selection.chosen, selection.status) == expected
    assert not any(selection.ships(name) for name in candidates)


def test_int8_that_passes_but_is_slow_beside_an_fp32_that_fails_does_not_ship() -> None:
    selection = select({"int8": replace(INT8, latency_ratio=2.0), "fp32": replace(FP32, outcome="fail")}, OPTIONS)
    assert selection.status != "released"


def test_fp32_is_what_is_compared_with() -> None:
    with pytest.raises(DefectError):
        select({"int8": INT8}, OPTIONS)


def test_it_can_be_stored() -> None:
    stored = select({"fp32": FP32, "int8": INT8}, OPTIONS).to_dict()
    dump_canonical(stored)
    assert [(item["name"], item["shipped"]) for item in stored["candidates"]] == [("int8", True), ("fp32", False)]


@pytest.mark.parametrize(
    "values", [{"max_accuracy_drop": -0.1}, {"max_accuracy_drop": 1.1}, {"max_latency_ratio": 0}, {"latency_runs": 4}]
)
def test_bounds_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="select"):
        SelectOptions(**values)  # type: ignore[arg-type]
