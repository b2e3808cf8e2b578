"""Which candidate ships: the preferred one that holds, and the reasons in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench.options import LatencyOptions
from edgekit.bench.result import LatencyReport, LatencyResult
from edgekit.core.canonical import dump_canonical
from edgekit.errors import BadInputError, DefectError
from edgekit.verify.options import SelectOptions
from edgekit.verify.select import AbsentEngine, Candidate, select

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


def timed(**milliseconds: list[float]) -> LatencyReport:
    """A report with these medians, a round each."""
    results = {
        name.replace("_", "-"): LatencyResult({"engine": name}, 1, tuple((value,) for value in rounds), quiet=True)
        for name, rounds in milliseconds.items()
    }
    return LatencyReport(results, LatencyOptions(rounds=4, iterations=1), {})


def on_two_engines(**outcomes: str) -> dict[str, Candidate]:
    found = {}
    for engine in ("ort-cpu", "openvino"):
        for item in (INT8, FP32):
            name = item.name if engine == "ort-cpu" else f"{item.name}-{engine}"
            outcome = outcomes.get(name.replace("-", "_"), "pass")
            found[name] = replace(item, name=name, engine=engine, outcome=outcome)
    return found


@pytest.mark.parametrize(
    ("ort", "other", "expected"),
    [
        ([4, 4, 4, 4], [2, 2, 2, 2], "int8-openvino"),
        ([4, 4, 4, 4], [6, 6, 6, 6], "int8"),
        # Faster in three rounds of four, and slower in the fourth.
        ([4, 4, 4, 4], [3, 3, 3, 4.1], "int8-openvino"),
        # Faster in the median alone: the machine's noise keeps the preferred engine.
        ([4, 4, 4, 4], [3, 3.9, 5, 5], "int8"),
        ([4, 4, 4, 4], [4, 4, 4, 4], "int8"),
    ],
)
def test_of_two_engines_the_faster_ships(ort: list[float], other: list[float], expected: str) -> None:
    report = timed(int8=ort, fp32=[8] * 4, int8_openvino=other, fp32_openvino=[9] * 4)
    selection = select(on_two_engines(), OPTIONS, timed=report)
    assert (selection.chosen, selection.status) == (expected, "released")
    assert [item.candidate.name for item in selection.judged] == ["int8", "fp32", "int8-openvino", "fp32-openvino"]
    reasons = {item.candidate.name: item.reason for item in selection.judged}
    assert "times as long as int8-openvino here" in reasons["int8"]
    assert "times as long as int8 here" in reasons["int8-openvino"]
    assert "openvino" not in reasons["fp32"]


def test_an_engine_whose_int8_fails_competes_with_its_fp32() -> None:
    report = timed(int8=[4] * 4, fp32=[8] * 4, int8_openvino=[1] * 4, fp32_openvino=[3] * 4)
    selection = select(on_two_engines(int8_openvino="fail"), OPTIONS, timed=report)
    assert selection.chosen == "fp32-openvino"
    selection = select(on_two_engines(int8_openvino="fail", fp32_openvino="fail"), OPTIONS, timed=report)
    assert selection.chosen == "int8"
    assert "times as long" not in selection.reason


def test_int8_is_measured_against_fp32_on_its_own_engine() -> None:
    report = timed(int8=[4] * 4, fp32=[8] * 4, int8_openvino=[3] * 4, fp32_openvino=[2] * 4)
    candidates = on_two_engines()
    candidates["int8-openvino"] = replace(candidates["int8-openvino"], latency_ratio=1.5)
    selection = select(candidates, OPTIONS, timed=report)
    assert selection.chosen == "fp32-openvino"
    assert "1.50 times the latency of FP32" in selection.judged[2].reason


def test_without_times_the_preferred_engine_ships() -> None:
    selection = select(on_two_engines(), OPTIONS)
    assert selection.chosen == "int8"
    assert "not timed beside int8-openvino" in selection.reason


def test_when_no_engine_holds_the_best_verdict_of_all_is_kept() -> None:
    outcomes = dict.fromkeys(("int8", "fp32", "fp32_openvino"), "fail") | {"int8_openvino": "inconclusive"}
    selection = select(on_two_engines(**outcomes), OPTIONS)
    assert (selection.chosen, selection.status) == ("int8-openvino", "inconclusive")


def test_every_engine_needs_its_fp32() -> None:
    candidates = on_two_engines()
    del candidates["fp32-openvino"]
    with pytest.raises(DefectError):
        select(candidates, OPTIONS)


@given(
    times=st.lists(st.lists(st.floats(0.1, 10), min_size=4, max_size=4), min_size=4, max_size=4),
    failing=st.sets(st.sampled_from(["int8", "fp32", "int8_openvino", "fp32_openvino"])),
)
def test_what_ships_holds_and_no_engine_was_surely_faster(times: list[list[float]], failing: set[str]) -> None:
    report = timed(int8=times[0], fp32=times[1], int8_openvino=times[2], fp32_openvino=times[3])
    candidates = on_two_engines(**dict.fromkeys(failing, "fail"))
    selection = select(candidates, OPTIONS, timed=report)
    assert (selection.status == "released") == (len(failing) < 4)
    if selection.status == "released":
        assert candidates[selection.chosen].outcome == "pass"
        holding = [item.candidate for item in selection.judged if item.holds]
        other = next((item for item in holding if item.engine != candidates[selection.chosen].engine), None)
        if other is not None:
            assert report.ratio(other.name, selection.chosen).quartiles[1] >= 1


def test_it_can_be_stored() -> None:
    absent = AbsentEngine("openvino", "openvino is not installed", "install it")
    stored = select({"fp32": FP32, "int8": INT8}, OPTIONS, absent=[absent]).to_dict()
    dump_canonical(stored)
    assert stored["engines_absent"] == [
        {"engine": "openvino", "reason": "openvino is not installed", "hint": "install it"}
    ]
    assert [(item["name"], item["shipped"]) for item in stored["candidates"]] == [("int8", True), ("fp32", False)]


@pytest.mark.parametrize(
    "values", [{"max_accuracy_drop": -0.1}, {"max_accuracy_drop": 1.1}, {"max_latency_ratio": 0}, {"latency_runs": 4}]
)
def test_bounds_out_of_range(values: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="select"):
        SelectOptions(**values)  # type: ignore[arg-type]


FP16 = Candidate("fp16", "tensorrt", "fp16", "pass", 0.99, 0.905, 3.0, 0.6, 500)
ON_TENSORRT = {"int8": replace(INT8, engine="tensorrt"), "fp16": FP16, "fp32": replace(FP32, engine="tensorrt")}


def timed_all(**milliseconds: float) -> LatencyReport:
    options = LatencyOptions(warmup=1, rounds=8, iterations=1)
    results = {name: LatencyResult({}, 1, ((value,),) * 8, quiet=True) for name, value in milliseconds.items()}
    return LatencyReport(results, options, {})


class TestHalf:
    def test_int8_comes_before_it_unless_it_was_faster(self) -> None:
        slower = select(ON_TENSORRT, OPTIONS, timed=timed_all(int8=4.0, fp16=5.0, fp32=8.0))
        assert slower.chosen == "int8"
        assert "1.25 times as long as int8 here" in {item.candidate.name: item.reason for item in slower.judged}["fp16"]
        faster = select(ON_TENSORRT, OPTIONS, timed=timed_all(int8=4.0, fp16=3.0, fp32=8.0))
        assert faster.chosen == "fp16"
        by_name = {item.candidate.name: item for item in faster.judged}
        assert by_name["int8"].holds
        assert "1.33 times as long as fp16 here" in by_name["int8"].reason
        assert select(ON_TENSORRT, OPTIONS).chosen == "int8"

    @pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
    def test_it_ships_where_int8_does_not_hold_and_fp32_where_neither_does(self, outcome: str) -> None:
        timed = timed_all(int8=4.0, fp16=5.0, fp32=1.0)
        broken = {**ON_TENSORRT, "int8": replace(ON_TENSORRT["int8"], outcome=outcome)}
        assert select(broken, OPTIONS, timed=timed).chosen == "fp16"
        neither = {**broken, "fp16": replace(FP16, outcome=outcome)}
        assert select(neither, OPTIONS, timed=timed).chosen == "fp32"

    @pytest.mark.parametrize(
        ("half", "words"),
        [
            (replace(FP16, latency_ratio=1.2), "1.20 times the latency of FP32"),
            (replace(FP16, accuracy=0.8), "points of accuracy"),
        ],
    )
    def test_it_is_held_to_the_recipe_as_int8_is(self, half: Candidate, words: str) -> None:
        found = select({**ON_TENSORRT, "fp16": half}, OPTIONS, timed=timed_all(int8=4.0, fp16=1.0, fp32=8.0))
        assert found.chosen == "int8"
        assert words in {item.candidate.name: item.reason for item in found.judged}["fp16"]
