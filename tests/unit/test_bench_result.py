"""Numbers made of latencies: against the statistics module, and refused when they contradict their times."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bench.options import LatencyOptions
from edgekit.bench.result import LatencyReport, LatencyResult, percentile
from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.errors import BadInputError, IntegrityError

times = st.floats(1e-3, 1e5)


def result(*rounds: tuple[float, ...], batch: int = 1) -> LatencyResult:
    return LatencyResult({"engine": "ort-cpu"}, batch, rounds, quiet=True)


def report() -> LatencyReport:
    return LatencyReport(
        results={"int8": result((1.0, 2.0, 3.0), (2.0, 2.0, 5.0)), "fp32": result((4.0, 6.0, 5.0), (9.0, 8.0, 7.0))},
        options=LatencyOptions(rounds=2, iterations=3),
        environment={"machine": "x86_64"},
    )


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(times, min_size=2, max_size=60))
def test_percentiles_are_those_of_the_statistics_module(samples: list[float]) -> None:
    # Its "inclusive" method is the same definition, written by other people in plain Python.
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    for percent in (1, 25, 50, 90, 99):
        assert percentile(samples, percent) == pytest.approx(cuts[percent - 1], rel=1e-12)
    assert percentile(samples, 50) == pytest.approx(statistics.median(samples), rel=1e-12)
    assert (percentile(samples, 0), percentile(samples, 100)) == (min(samples), max(samples))


def test_percentiles_worked_out_by_hand() -> None:
    # Position 0.9 * 4 = 3.6 among 5 samples counted from 0: 40 + 0.6 * (50 - 40).
    assert percentile([50.0, 10.0, 30.0, 20.0, 40.0], 90) == pytest.approx(46.0)
    assert percentile([7.0], 99) == 7.0


def test_throughput_counts_images_not_runs() -> None:
    # 8 images in 20 ms on average are 400 a second.
    assert result((10.0, 30.0), batch=8).throughput == pytest.approx(400.0)


def test_the_ratio_is_taken_round_by_round() -> None:
    ratio = report().ratio("fp32", "int8")
    assert ratio.rounds == (5.0 / 2.0, 8.0 / 2.0)
    assert ratio.median == 3.25
    assert ratio.quartiles == (2.875, 3.625)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(drift=st.lists(st.floats(0.1, 10), min_size=1, max_size=20), one=times, factor=st.floats(0.1, 10))
def test_a_machine_that_slows_and_recovers_leaves_the_ratio_alone(
    drift: list[float], one: float, factor: float
) -> None:
    slow = result(*[(one * factor * pace,) * 3 for pace in drift])
    fast = result(*[(one * pace,) * 3 for pace in drift])
    ratio = LatencyReport({"slow": slow, "fast": fast}, LatencyOptions(), {}).ratio("slow", "fast")
    assert ratio.median == pytest.approx(factor)
    assert ratio.quartiles == pytest.approx((factor, factor))


def test_a_report_reads_back_through_canonical_json() -> None:
    written = report()
    raw = parse_strict(dump_canonical(written.to_dict()), where="test")
    assert LatencyReport.from_dict(raw, where="test") == written
    assert raw["engines"]["int8"]["p50_ms"] == 2.0
    assert raw["ratios"]["fp32/int8"]["median"] == 3.25


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(format="edgekit.latency/2"),
        lambda raw: raw.update(extra=1),
        lambda raw: raw.pop("environment"),
        lambda raw: raw.pop("ratios"),
        lambda raw: raw["ratios"]["fp32/int8"].update(median=9.0),
        lambda raw: raw["ratios"].clear(),
        lambda raw: raw["options"].update(typo=1),
        lambda raw: raw["options"].update(batch=0),
        lambda raw: raw["options"].update(batch="1"),
        lambda raw: raw["engines"]["int8"].update(p50_ms=1.9),
        lambda raw: raw["engines"]["int8"].update(throughput=1e6),
        lambda raw: raw["engines"]["int8"].update(mean_ms="2.5"),
        lambda raw: raw["engines"]["int8"].update(batch=2),
        lambda raw: raw["engines"]["int8"].update(batch=0),
        lambda raw: raw["engines"]["int8"].update(batch=1.0),
        lambda raw: raw["engines"]["int8"].update(quiet=1),
        lambda raw: raw["engines"]["int8"].update(p42_ms=1.0),
        lambda raw: raw["engines"]["int8"].pop("p99_ms"),
        lambda raw: raw["engines"]["int8"]["rounds_ms"][0].append(1.0),
        lambda raw: raw["engines"]["int8"]["rounds_ms"][0].__setitem__(0, 1.5),
        lambda raw: raw["engines"]["int8"]["rounds_ms"][0].__setitem__(0, -1.0),
        lambda raw: raw["engines"]["int8"]["rounds_ms"][0].__setitem__(0, "fast"),
        lambda raw: raw["engines"]["int8"]["rounds_ms"].pop(),
        lambda raw: raw["engines"]["int8"].update(rounds_ms=[]),
        lambda raw: raw["engines"]["int8"].update(rounds_ms=[[], []]),
        lambda raw: raw["engines"].update(int8=None),
        lambda raw: raw.update(engines=[]),
    ],
)
def test_a_report_that_was_edited_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    raw = copy.deepcopy(report().to_dict())
    change(raw)
    with pytest.raises(IntegrityError):
        LatencyReport.from_dict(raw, where="test")


@pytest.mark.parametrize("document", [None, [], "text", 1, {}])
def test_a_document_that_is_no_report_is_refused(document: object) -> None:
    with pytest.raises(IntegrityError):
        LatencyReport.from_dict(document, where="test")


@pytest.mark.parametrize("name", ["batch", "warmup", "rounds", "iterations", "lead_in", "threads", "timeout_s"])
@pytest.mark.parametrize("value", [-1, math.nan])
def test_an_option_out_of_range_is_named(name: str, value: float) -> None:
    with pytest.raises(BadInputError, match=name):
        LatencyOptions(**{name: value})  # type: ignore[arg-type]
