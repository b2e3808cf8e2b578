"""Which candidates are on the frontier, which are timed, and which is chosen."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edgekit.bench.options import LatencyOptions
from edgekit.bench.result import LatencyReport, LatencyResult
from edgekit.core.digests import digest_bytes
from edgekit.precision.candidate import Candidate
from edgekit.precision.choice import choose, slower_in_words
from edgekit.precision.latency import CandidateLatency, not_measured
from edgekit.precision.pareto import fewest_lifted, frontier, named, worth_timing


def candidate(lifted: int = 0, outcome: str = "pass", drift: float | None = 1e-3, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "lifted": tuple(f"conv{number}" for number in range(lifted)),
        "is_fp32": False,
        "outcome": outcome,
        "reasons": () if outcome == "pass" else ("fail: mean cosine >= 0.90: 0.80",),
        "drift": {"cosine": drift},
        "agreement": 1.0,
        "accuracy": None,
        "bytes": 1000,
        "int8": (),
        "recalibrated": False,
        "model": digest_bytes(f"{lifted} {outcome} {drift}".encode()),
    }
    return Candidate(**(values | changes))


def fp32(outcome: str = "pass", **changes: Any) -> Candidate:
    return candidate(5, outcome, 0.0, **{"is_fp32": True, "bytes": 4000, **changes})


def measured(**rounds: list[float]) -> CandidateLatency:
    """One run a round."""
    results = {name: LatencyResult({}, 1, tuple((ms,) for ms in times), True) for name, times in rounds.items()}
    report = LatencyReport(results, LatencyOptions(), {})
    return CandidateLatency("measured", "", {name: item.percentile_ms(50) for name, item in results.items()}, report)


def test_names_go_from_int8_to_fp32() -> None:
    found = named([fp32(), candidate(), candidate(3), candidate(1)])
    assert list(found) == ["int8", "mixed-1", "mixed-2", "fp32"]
    assert [len(item.lifted) for item in found.values()] == [0, 1, 3, 5]


def test_the_same_graph_has_one_name() -> None:
    found = named([fp32(), candidate(3, model="same"), candidate(2, model="same"), candidate(1)])
    assert [len(item.lifted) for item in found.values()] == [1, 2, 5]


def test_the_fewest_lifted_operations_win_without_latency() -> None:
    found = named([fp32(), candidate(0, "fail"), candidate(3), candidate(2), candidate(1, "inconclusive")])
    choice = choose(found, not_measured("nobody asked"))
    assert (choice.outcome, choice.name) == ("pass", fewest_lifted(found)[0])
    assert len(found[str(choice.name)].lifted) == 2
    assert "latency is not measured" in choice.reason


def test_a_slower_int8_is_said_and_passed_over() -> None:
    found = named([fp32(), candidate()])
    latency = measured(int8=[3.0, 3.1, 2.9, 3.0], fp32=[2.0, 2.0, 2.1, 2.0])
    choice = choose(found, latency)
    assert choice.name == "fp32"
    assert "int8 lifts less and takes 1.50 times as long as fp32" in choice.reason
    (words,) = slower_in_words(found, latency, choice.name)
    assert words.startswith("int8 is SLOWER than FP32")
    assert "1.50 times" in words


def test_noise_does_not_decide() -> None:
    found = named([fp32(), candidate()])
    latency = measured(int8=[2.0, 3.0, 2.0, 3.0], fp32=[3.0, 2.0, 3.0, 2.0])
    assert choose(found, latency).name == "int8"
    assert slower_in_words(found, latency, "int8") == ()


def test_a_faster_candidate_that_lifts_more_is_chosen() -> None:
    found = named([fp32(), candidate(0, "fail"), candidate(1), candidate(2)])
    times = {"int8": [1.0] * 4, "mixed-1": [2.0] * 4, "mixed-2": [1.5] * 4, "fp32": [4.0] * 4}
    choice = choose(found, measured(**times))
    assert choice.name == "mixed-2"
    assert "mixed-1 lifts less and takes 1.33 times as long as mixed-2" in choice.reason
    # A candidate that does not hold is never chosen, however fast.
    assert choose(named([fp32("fail"), candidate(0, "fail")]), measured(int8=[1.0] * 4, fp32=[2.0] * 4)).name is None


def test_of_a_cost_table_any_difference_counts() -> None:
    found = named([fp32(), candidate()])
    latency = CandidateLatency("cost table", "", {"int8": 1.01, "fp32": 1.0})
    assert choose(found, latency).name == "fp32"
    assert "by the cost table" in slower_in_words(found, latency, None)[0]


def test_where_nothing_holds_the_outcome_is_that_of_fp32() -> None:
    for outcome in ("fail", "inconclusive"):
        choice = choose(named([fp32(outcome), candidate(0, "fail")]), not_measured(""))
        assert (choice.name, choice.outcome) == (None, outcome)
        assert "not even the FP32 graph" in choice.reason
        assert "mean cosine" in choice.reason


def test_int8_that_holds_is_taken_even_where_fp32_does_not() -> None:
    assert choose(named([fp32("fail"), candidate()]), not_measured("")).name == "int8"


goals = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3))


@given(st.lists(goals, min_size=1, max_size=8), st.booleans())
def test_the_frontier_is_what_no_other_beats(rows: list[tuple[int, int, int, int]], with_latency: bool) -> None:
    found = {
        f"c{place}": candidate(place, drift=row[0] / 10, agreement=row[1] / 3, bytes=row[2])
        for place, row in enumerate(rows)
    }
    times = {f"c{place}": float(row[3]) for place, row in enumerate(rows)}
    values = [(row[0], -row[1], row[2]) + ((row[3],) if with_latency else ()) for row in rows]
    expected = [
        f"c{place}"
        for place, ours in enumerate(values)
        if not any(theirs != ours and all(t <= o for t, o in zip(theirs, ours, strict=True)) for theirs in values)
        and ours not in values[:place]
    ]
    assert list(frontier(found, times if with_latency else None)) == expected


def test_maps_that_are_not_finite_are_on_no_frontier_with_others() -> None:
    found = {"a": candidate(drift=None), "b": candidate(1)}
    assert frontier(found) == ("b",)


def test_accuracy_counts_before_agreement() -> None:
    assert candidate(accuracy=0.5, agreement=1.0).quality == 0.5
    assert candidate(accuracy=None, agreement=0.7).quality == 0.7


def test_fp32_and_int8_are_always_timed() -> None:
    found = named([fp32(), candidate(0, "fail", bytes=9000), *(candidate(n, drift=1e-3 / n) for n in range(1, 5))])
    chosen = worth_timing(found, 3)
    assert chosen == ("int8", "mixed-1", "fp32")
    # Between the fewest lifted operations and FP32 only what no other beats: the others are as large and drift more.
    assert worth_timing(found, 99) == ("int8", "mixed-1", "mixed-4", "fp32")
