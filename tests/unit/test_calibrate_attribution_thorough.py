"""The thorough attribution-aware method: steps descend, facts are true, and what is forbidden is not done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attribution_solutions import NORMALISED, context_of, judged_again, photographs
from explained_graphs import GRAPHS, ArrayImages
from onnx import helper

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.attribution import thorough
from edgekit.calibrate.attribution.workbench import Workbench
from edgekit.calibrate.calibrator import CALIBRATORS, CalibrationContext
from edgekit.calibrate.drift import Drift, relative_drift
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import PIXELS, parse_graph
from edgekit.calibrate.minmax import MinMaxCalibrator
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import answers_of
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.stage import QuantisedGraph, quantise_graph
from edgekit.core.canonical import parse_strict
from edgekit.core.progress import NULL_OBSERVER, NullObserver, Observer
from edgekit.errors import BadInputError

COUNT = 20
# Few bits for weights: every step has something to gain. Pixels still fit.
FEW_BITS = "x86-u8s4"
PAIRS = [(name, FEW_BITS) for name in GRAPHS] + [("flattened", "x86-u8s8"), ("gated", "trt-s8s8")]


def quantised(
    name: str,
    fmt: str = FEW_BITS,
    observer: Observer = NULL_OBSERVER,
    workplace: Path | None = None,
    **options: Any,
) -> QuantisedGraph:
    context = context_of(name, photographs(COUNT), fmt=fmt)
    return quantise_graph(
        context.graph,
        context.images,
        context.number_format,
        CalibrateOptions(method="attribution", bins=256, **options),
        observer,
        input_spec=NORMALISED,
        workplace=workplace,
    )


def result_of(name: str, fmt: str = FEW_BITS) -> QuantisedGraph:
    """Shared: nothing in it may be changed."""
    return _result_of(name, fmt)


@cache
def _result_of(name: str, fmt: str) -> QuantisedGraph:
    return quantised(name, fmt)


def solved(context: CalibrationContext, **options: Any) -> Solution:
    wanted = replace(context.options, **options)
    return CALIBRATORS.load("attribution")(wanted).solve(replace(context, options=wanted))


def check_facts(context: CalibrationContext, solution: Solution) -> None:
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
    again = judged_again(context, solution, facts)
    assert again.to_dict() == pytest.approx(kept[-1]["drift"], rel=1e-6, abs=1e-12)
    minmax = judged_again(context, MinMaxCalibrator().solve(context), facts)
    assert minmax.to_dict() == pytest.approx(kept[0]["drift"], rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("name", "fmt"), PAIRS)
def test_kept_steps_descend_to_what_is_answered(name: str, fmt: str) -> None:
    check_facts(context_of(name, photographs(COUNT), fmt=fmt), result_of(name, fmt).solution)


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


@dataclass
class Spied:
    """Calls of the steps, by what was asked of them."""

    settled: list[tuple[bool, bool]] = field(default_factory=list)
    sweeps: list[int] = field(default_factory=list)
    views: list[bool] = field(default_factory=list)


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    found = Spied()
    learn, descend, view = thorough.learn_weights, thorough.descend, Workbench.view

    def learning(*arguments: Any, rounding: bool, bias_correction: bool, **more: Any) -> Any:
        found.settled.append((rounding, bias_correction))
        return learn(*arguments, rounding=rounding, bias_correction=bias_correction, **more)

    def descending(context: Any, solution: Any, *arguments: Any, sweeps: int, **more: Any) -> Any:
        answer = descend(context, solution, *arguments, sweeps=sweeps, **more)
        found.sweeps.append(0 if answer is solution else sweeps)
        return answer

    def viewing(self: Workbench, *arguments: Any, **more: Any) -> Any:
        answer = view(self, *arguments, **more)
        found.views.append(bool(answer.adjustments))
        return answer

    monkeypatch.setattr(thorough, "learn_weights", learning)
    monkeypatch.setattr(thorough, "descend", descending)
    monkeypatch.setattr(Workbench, "view", viewing)
    return found


def test_everything_is_tried_that_a_recipe_allows(spied: Spied) -> None:
    quantised("flattened")
    assert any(rounding for rounding, _ in spied.settled)
    assert any(correction for _, correction in spied.settled)
    assert max(spied.sweeps) == 1
    assert any(spied.views)


def test_rounding_to_nearest_learns_no_rounding(spied: Spied) -> None:
    result = quantised("flattened", rounding="nearest")
    assert not any(rounding for rounding, _ in spied.settled)
    assert not result.table.adjustments.rounding


def test_without_bias_correction_biases_stay(spied: Spied) -> None:
    result = quantised("flattened", bias_correction=False)
    assert not any(correction for _, correction in spied.settled)
    assert not result.table.adjustments.bias_shifts


def test_without_either_no_layer_is_settled(spied: Spied) -> None:
    result = quantised("flattened", rounding="nearest", bias_correction=False)
    assert not spied.settled
    assert not result.table.adjustments.rounding
    assert not result.table.adjustments.bias_shifts
    assert not result.solution.weight_scales


@pytest.mark.parametrize("sweeps", [0, 2])
def test_ranges_are_searched_as_often_as_is_asked(sweeps: int, spied: Spied) -> None:
    quantised("flattened", sweeps=sweeps)
    assert set(spied.sweeps) <= {sweeps}
    assert (max(spied.sweeps, default=0) > 0) == (sweeps > 0)


@pytest.mark.parametrize("name", ["residual", "depthwise-relu6"])
def test_without_adjusting_neither_grid_nor_channels_are_touched(name: str, spied: Spied) -> None:
    result = quantised(name, adjust=False, bias_correction=False, sweeps=0)
    assert not any(spied.views)
    assert result.table.adjustments.input_grid is None
    assert not result.table.adjustments.factors
    assert PIXELS not in result.table.activations
    assert result.graph.digest == parse_graph(GRAPHS[name]().SerializeToString(), where="x").digest


def test_with_every_step_off_ranges_are_all_that_is_chosen() -> None:
    solution = quantised("gated", rounding="nearest", bias_correction=False, sweeps=0, adjust=False).solution
    assert not solution.adjustments
    assert not solution.weight_scales
    check_facts(context_of("gated", photographs(COUNT), fmt=FEW_BITS), solution)


@pytest.mark.parametrize("name", ["float-tap", "shuffled"])
def test_equal_inputs_give_equal_bytes(name: str) -> None:
    one, other = result_of(name), quantised(name)
    assert one.table.to_bytes() == other.table.to_bytes()
    assert serialise(one.model) == serialise(other.model)
    assert one.solution.facts == other.solution.facts


class _KilledError(Exception):
    pass


@dataclass
class Watching(NullObserver):
    """Writes down what it is told, and stands for a kill where it is told to."""

    killing: int | None = None
    told: list[tuple[str, int, int | None]] = field(default_factory=list)

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        if len(self.told) == self.killing:
            raise _KilledError
        self.told.append((task, done, total))


def test_the_observer_is_told_of_every_kind_of_work_until_it_is_done() -> None:
    watching = Watching()
    quantised("shuffled", observer=watching)
    last = {task: (done, total) for task, done, total in watching.told}
    assert len(last) >= 4
    assert all(done == total for done, total in last.values())
    assert all(0 <= done <= (total or 0) for _, done, total in watching.told)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_a_killed_run_goes_on_and_ends_the_same(share: float, tmp_path: Path) -> None:
    expected = result_of("shuffled")
    whole = Watching()
    quantised("shuffled", observer=whole)
    with pytest.raises(_KilledError):
        quantised("shuffled", observer=Watching(killing=int(share * len(whole.told))), workplace=tmp_path)
    again = Watching()
    result = quantised("shuffled", observer=again, workplace=tmp_path)
    assert result.table.to_bytes() == expected.table.to_bytes()
    assert result.solution.facts == expected.solution.facts
    if share == 0.99:
        assert len(again.told) < len(whole.told), "what was searched before the kill is not searched again"


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
    solution = solved(context)
    with pytest.raises(AssertionError):
        check_facts(context, solution)


@pytest.mark.parametrize("count", [1, 2, 15])
def test_few_images_teach_and_judge_and_the_facts_say_so(count: int) -> None:
    context = context_of("flattened", photographs(count))
    solution = solved(context)
    check_facts(context, solution)
    assert solution.facts["judged_on_images_apart"] is False


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_constant_images_have_a_defined_result(value: float) -> None:
    images = ArrayImages(np.full((3, 3, 16, 16), value, dtype=np.float32))
    solution = solved(context_of("flattened", images))
    assert all(np.isfinite(limits.amax) for limits in solution.ranges.values())
    assert np.isfinite(float(solution.facts["relative_drift"]))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite_are_refused(value: float) -> None:
    images = photographs(4)
    images.pixels[0, 0, 0, 0] = value
    with pytest.raises(BadInputError, match="not finite"):
        solved(context_of("flattened", images))


def test_an_operation_without_a_gradient_is_named() -> None:
    context = context_of("residual", photographs(4))
    model = context.graph.model
    node = next(item for item in model.graph.node if item.op_type == "Relu")
    node.CopyFrom(helper.make_node("Celu", list(node.input), list(node.output), name=node.name))
    graph = parse_graph(model.SerializeToString(), where="test")
    with pytest.raises(BadInputError, match="cannot be differentiated"):
        solved(replace(context, graph=graph, placement=place(graph, number_format("x86-u8s8"))))


@pytest.mark.parametrize(
    "changes",
    [{"adjust": False}, {"rounding": "nearest"}, {"bias_correction": False}, {"sweeps": 3}, {"batch_size": 5}],
    ids=lambda item: next(iter(item)),
)
def test_parameters_tell_what_a_recipe_says(changes: dict[str, Any]) -> None:
    plain, other = (CALIBRATORS.load("attribution")(CalibrateOptions(**item)) for item in ({}, changes))
    assert plain.name == "attribution"
    differing = {key: value for key, value in other.parameters.items() if plain.parameters[key] != value}
    assert differing == changes
