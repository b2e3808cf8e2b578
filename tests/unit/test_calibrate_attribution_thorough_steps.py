"""What a recipe allows the thorough method to do, what it tells on the way, that it can be killed, and bad input."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attribution_solutions import context_of, photographs
from attribution_solutions import quantised as quantised_context
from explained_graphs import GRAPHS, ArrayImages
from onnx import helper

from edgekit.calibrate.attribution import thorough
from edgekit.calibrate.attribution.workbench import Workbench
from edgekit.calibrate.calibrator import CALIBRATORS, CalibrationContext
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import PIXELS, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.stage import QuantisedGraph
from edgekit.core.progress import NULL_OBSERVER, NullObserver, Observer
from edgekit.errors import BadInputError

FEW_BITS = "x86-u8s4"


def quantised(
    name: str, observer: Observer = NULL_OBSERVER, workplace: Path | None = None, **options: Any
) -> QuantisedGraph:
    context = context_of(name, photographs(16), fmt=FEW_BITS, workplace=workplace)
    return quantised_context(context, "attribution", observer, **options)


def solved(context: CalibrationContext) -> Solution:
    return CALIBRATORS.load("attribution")(context.options).solve(context)


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


@cache
def uninterrupted() -> tuple[QuantisedGraph, int]:
    """A whole run, and how often it told of itself."""
    watching = Watching()
    return quantised("shuffled", watching), len(watching.told)


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_killed_run_goes_on_and_ends_the_same(share: float, tmp_path: Path) -> None:
    expected, told = uninterrupted()
    with pytest.raises(_KilledError):
        quantised("shuffled", Watching(killing=int(share * told)), tmp_path)
    again = Watching()
    result = quantised("shuffled", again, tmp_path)
    assert result.table.to_bytes() == expected.table.to_bytes()
    assert result.solution.facts == expected.solution.facts
    # What was searched before a kill at the end is not searched again.
    assert (len(again.told) < told) == (share > 0.9)


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
