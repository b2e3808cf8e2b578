"""The thorough attribution-aware method: its steps descend, and its facts and its table are true."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from attribution_solutions import context_of, judged_again, photographs, plain_minmax, quantised, watched
from explained_graphs import GRAPHS

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.attribution import thorough
from edgekit.calibrate.attribution.image_split import HeldImages
from edgekit.calibrate.attribution.workbench import Workbench
from edgekit.calibrate.calibrator import CALIBRATORS, CalibrationContext
from edgekit.calibrate.drift import Drift, relative_drift
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.probe import answers_of
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.stage import QuantisedGraph
from edgekit.core.canonical import parse_strict

COUNT = 16
# Few bits for weights: every step has something to gain. Pixels still fit.
FEW_BITS = "x86-u8s4"
PAIRS = [(name, FEW_BITS) for name in GRAPHS] + [("flattened", "x86-u8s8"), ("shuffled", "trt-s8s8")]


def result_of(name: str, fmt: str = FEW_BITS) -> QuantisedGraph:
    """Shared: nothing in it may be changed."""
    return _result_of(name, fmt)[0]


@cache
def _result_of(name: str, fmt: str) -> tuple[QuantisedGraph, HeldImages]:
    return watched(lambda: quantised(context_of(name, photographs(COUNT), fmt=fmt), "attribution"))


def solved(context: CalibrationContext, **options: Any) -> Solution:
    wanted = replace(context.options, **options)
    return CALIBRATORS.load("attribution")(wanted).solve(replace(context, options=wanted))


def check_facts(context: CalibrationContext, solution: Solution, judged: HeldImages) -> None:
    """The steps are in order, and every number that can be found again is found again."""
    facts: Any = solution.facts
    kept = [step for step in facts["steps"] if step["kept"]]
    assert kept[0] == facts["steps"][0]
    assert kept[0]["relative_drift"] == 1
    assert kept[-1]["step"] == facts["chosen"]
    assert facts["relative_drift"] == kept[-1]["relative_drift"]
    first = Drift(**kept[0]["drift"])
    for before, after in pairwise(kept):
        assert after["relative_drift"] < before["relative_drift"]
    for step in facts["steps"]:
        assert step["relative_drift"] == pytest.approx(relative_drift(Drift(**step["drift"]), first))
        if not step["kept"]:
            # What was not kept is not better than what was in the end.
            assert step["relative_drift"] >= facts["relative_drift"]
    again = judged_again(context, solution, facts, judged)
    assert again.to_dict() == pytest.approx(kept[-1]["drift"], rel=1e-6, abs=1e-12)
    minmax = judged_again(context, plain_minmax(context), facts, judged)
    assert minmax.to_dict() == pytest.approx(kept[0]["drift"], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("name", "fmt"), PAIRS)
def test_kept_steps_descend_to_what_is_answered(name: str, fmt: str) -> None:
    result, judged = _result_of(name, fmt)
    check_facts(context_of(name, photographs(COUNT), fmt=fmt), result.solution, judged)


def test_few_bits_gain_by_much() -> None:
    facts: list[Any] = [result_of(name).solution.facts for name in GRAPHS]
    assert np.exp(np.mean([np.log(item["relative_drift"]) for item in facts])) < 0.6


@pytest.mark.parametrize(("name", "fmt"), PAIRS)
def test_its_table_written_and_read_makes_the_same_graph(name: str, fmt: str) -> None:
    result = result_of(name, fmt)
    table = ScaleTable.from_dict(parse_strict(result.table.to_bytes(), where="table"), where="table")
    assert table == result.table
    again = write_qdq(parse_graph(GRAPHS[name]().SerializeToString(), where="test"), table)
    assert serialise(again) == serialise(result.model)


def test_tables_of_all_kinds_of_adjustment_were_among_them() -> None:
    """Otherwise the test above would say less than it seems to."""
    made = [result_of(name, fmt).table.adjustments for name, fmt in PAIRS]
    assert any(item.rounding for item in made)
    assert any(item.bias_shifts for item in made)
    assert any(item.input_grid is not None for item in made)


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_changed_in_the_graph_changes_no_answer_but_by_biases(name: str) -> None:
    context = context_of(name, photographs(COUNT))
    adjustments = replace(result_of(name).table.adjustments, bias_shifts={})
    before, after = (
        answers_of(graph.model, context.images.pixels, None)  # type: ignore[attr-defined]
        for graph in (context.graph, apply_adjustments(context.graph, adjustments))
    )
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-3, atol=1e-3)
    for ours, theirs in zip(before.maps, after.maps, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-2, atol=1e-3 * float(np.abs(ours).max()))


@pytest.mark.parametrize("name", ["float-tap", "shuffled"])
def test_equal_inputs_give_equal_bytes(name: str) -> None:
    one, other = result_of(name), quantised(context_of(name, photographs(COUNT), fmt=FEW_BITS), "attribution")
    assert one.table.to_bytes() == other.table.to_bytes()
    assert serialise(one.model) == serialise(other.model)
    assert one.solution.facts == other.solution.facts


def test_with_every_step_off_ranges_are_all_that_is_chosen() -> None:
    context = context_of("gated", photographs(COUNT), fmt=FEW_BITS)
    forbidden = {"rounding": "nearest", "bias_correction": False, "sweeps": 0, "adjust": False}
    solution, judged = watched(lambda: solved(context, **forbidden))
    assert not solution.adjustments
    assert not solution.weight_scales
    check_facts(context, solution, judged)


class JudgingByHeart(Workbench):
    """A known fault: what was learnt from judges."""

    @cached_property
    def judging(self) -> Any:
        return self.training


class KeepingWhatCame:
    """A known fault: once something was better, whatever is tried next is kept. Against the first, all is told well."""

    def __init__(self) -> None:
        self.first: Drift | None = None

    def __call__(self, candidate: Drift, baseline: Drift) -> float:
        self.first = self.first or baseline
        share = relative_drift(candidate, baseline)
        return share if baseline is self.first else min(share, 0.999)


@pytest.mark.parametrize(("attribute", "fault"), [("Workbench", JudgingByHeart), ("relative_drift", KeepingWhatCame())])
def test_known_faults_are_found_out(attribute: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of("shuffled", photographs(COUNT), fmt=FEW_BITS)
    monkeypatch.setattr(thorough, attribute, fault)
    solution, judged = watched(lambda: solved(context))
    with pytest.raises(AssertionError):
        check_facts(context, solution, judged)


@pytest.mark.parametrize("count", [1, 2, 15])
def test_few_images_teach_and_judge_and_the_facts_say_so(count: int) -> None:
    context = context_of("flattened", photographs(count))
    solution, judged = watched(lambda: solved(context))
    check_facts(context, solution, judged)
    assert solution.facts["judged_on_images_apart"] is False
