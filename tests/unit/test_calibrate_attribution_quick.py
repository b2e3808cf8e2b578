"""The quick attribution-aware method: it tells the truth, is never worse than min-max, and repeats itself."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from attribution_solutions import NORMALISED, RAW, context_of, judged_again, photographs, plain_minmax, watched
from explained_graphs import GRAPHS, ArrayImages, random_images
from onnx import helper, numpy_helper

from edgekit.calibrate.attribution import quick
from edgekit.calibrate.attribution.workbench import Workbench
from edgekit.calibrate.calibrator import CALIBRATORS, CalibrationContext
from edgekit.calibrate.drift import Drift, relative_drift
from edgekit.calibrate.formats import NUMBER_FORMATS, NumberFormat, activation_params, number_format
from edgekit.calibrate.graph import IMAGE, PIXELS, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.stage import QuantisedGraph, quantise_graph
from edgekit.errors import BadInputError


def solved(context: CalibrationContext, **options: Any) -> Solution:
    wanted = replace(context.options, method="attribution-quick", **options)
    return CALIBRATORS.load("attribution-quick")(wanted).solve(replace(context, options=wanted))


def quantised(name: str, images: ArrayImages, fmt: NumberFormat, **options: Any) -> QuantisedGraph:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where="test")
    wanted = CalibrateOptions(method="attribution-quick", **options)
    return quantise_graph(graph, images, fmt, wanted, input_spec=NORMALISED)


def check_facts(context: CalibrationContext) -> Solution:
    """Solve, and find every number again that the facts tell."""
    solution, judged = watched(lambda: solved(context))
    facts: Any = solution.facts
    drifts = {name: Drift(**values) for name, values in facts["drift"].items()}
    again = judged_again(context, solution, facts, judged)
    assert again.to_dict() == pytest.approx(drifts[facts["chosen"]].to_dict(), rel=1e-6, abs=1e-12)
    minmax = judged_again(context, plain_minmax(context), facts, judged)
    assert minmax.to_dict() == pytest.approx(drifts["minmax"].to_dict(), rel=1e-6, abs=1e-12)
    assert facts["relative_drift"] == pytest.approx(relative_drift(again, minmax))
    assert facts["relative_drift"] <= 1
    assert facts["input_grid"] == (solution.adjustments.input_grid is not None)
    if facts["chosen"] == "minmax":
        assert facts["relative_drift"] == 1
    return solution


@pytest.mark.parametrize("fmt", ["x86-u8s8", "trt-s8s8", "x86-u6s6"])
@pytest.mark.parametrize("name", GRAPHS)
def test_what_it_tells_is_so_and_no_worse_than_min_max(name: str, fmt: str) -> None:
    check_facts(context_of(name, photographs(24), fmt=fmt))


def test_it_is_better_than_min_max_where_min_max_is_poor() -> None:
    """Few levels, and outliers that min-max has to reach."""
    shares = []
    for name in ("residual", "gated", "shuffled", "gradient-head"):
        images = photographs(24)
        images.pixels[5:8, 0, 0, 0] = 60
        facts: Any = solved(context_of(name, images, fmt="x86-u4s4", input=None)).facts
        shares.append(facts["relative_drift"])
    assert np.exp(np.log(shares).mean()) < 0.5


class JudgingByHeart(Workbench):
    """A known fault: what was learnt from judges."""

    @cached_property
    def judging(self) -> Any:
        return self.training


def test_a_judge_that_asks_the_images_that_taught_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "Workbench", JudgingByHeart)
    context = context_of("residual", photographs(24))
    with pytest.raises(AssertionError):
        check_facts(context)


def test_a_judge_that_flatters_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known fault: what was learnt is told to drift a tenth of what it does, and so wins."""

    def flattering(self: Any, candidates: Any, margin: float = 0.0) -> Any:
        first, *others = drifts = {name: self.drift(solution) for name, solution in candidates.items()}
        for name in others:
            drifts[name] = Drift(**{key: value / 10 for key, value in drifts[name].to_dict().items()})
        return min(drifts, key=lambda name: relative_drift(drifts[name], drifts[first])), drifts

    context = context_of("gated", photographs(24))
    check_facts(context)
    monkeypatch.setattr(quick.Judge, "best", flattering)
    with pytest.raises(AssertionError):
        check_facts(context)


@pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
def test_without_adjusting_the_graph_stays_as_it_is(fmt: NumberFormat) -> None:
    result = quantised("padded-shortcut", photographs(20), fmt, adjust=False, bias_correction=False)
    assert not result.solution.adjustments
    assert not result.table.adjustments
    assert PIXELS not in result.table.activations
    assert result.graph.digest == parse_graph(GRAPHS["padded-shortcut"]().SerializeToString(), where="x").digest


def test_images_on_their_own_grid_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the judge says of a random network: what is asked is what was tried."""
    offered: dict[str, Solution] = {}

    def last(self: Any, candidates: Any, margin: float = 0.0) -> Any:
        offered.update(candidates)
        return list(candidates)[-1], {name: self.drift(solution) for name, solution in candidates.items()}

    monkeypatch.setattr(quick.Judge, "best", last)
    solved(context_of("residual", photographs(20)))
    gridded = [item for item in offered.values() if item.adjustments.input_grid is not None]
    assert gridded
    for item in gridded:
        assert (item.ranges[PIXELS].low, item.ranges[PIXELS].high) == (0, 255)
        assert IMAGE not in item.ranges
    assert offered["minmax"].adjustments.input_grid is None
    offered.clear()
    solved(context_of("residual", photographs(20)), adjust=False)
    assert not any(item.adjustments.input_grid or item.adjustments.factors for item in offered.values())


def test_raw_pixels_keep_their_own_range() -> None:
    images = photographs(20, RAW)
    images.pixels *= np.float32(0.5)
    solution = solved(context_of("residual", images, input=RAW))
    assert (solution.ranges[IMAGE].low, solution.ranges[IMAGE].high) == (0, 255)


@pytest.mark.parametrize("name", ["residual", "dense-concat"])
def test_equal_inputs_give_equal_bytes(name: str) -> None:
    fmt = number_format("x86-u8s8")
    one, other = (quantised(name, photographs(24), fmt) for _ in range(2))
    assert one.table.to_bytes() == other.table.to_bytes()
    assert serialise(one.model) == serialise(other.model)
    assert one.solution.facts == other.solution.facts


@pytest.mark.parametrize("count", [1, 2, 15])
def test_few_images_judge_what_was_learnt_from_them_and_the_facts_say_so(count: int) -> None:
    context = context_of("flattened", photographs(count))
    solution = check_facts(context)
    assert solution.facts["judged_on_images_apart"] is False
    assert solution.facts["training_images"] == solution.facts["judging_images"] == count


def test_memory_of_images_is_bounded() -> None:
    facts: Any = solved(context_of("flattened", photographs(400))).facts
    assert facts["training_images"] + facts["judging_images"] <= 300
    assert facts["judged_on_images_apart"] is True


def changed(context: CalibrationContext, values: dict[str, Any]) -> CalibrationContext:
    model = context.graph.model
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values[tensor.name], np.float32), tensor.name))
    graph = parse_graph(model.SerializeToString(), where="test")
    return replace(context, graph=graph, placement=place(graph, context.number_format))


def test_where_no_map_moves_logits_decide() -> None:
    context = context_of("residual", photographs(20))
    head = next(node for node in context.graph.nodes if node.op_type == "MatMul").input[1]
    context = changed(context, {head: np.zeros(context.graph.constant_shape(head))})
    solution = check_facts(context)
    drifts: Any = solution.facts["drift"]
    assert drifts["minmax"]["cosine"] == 0
    assert drifts[solution.facts["chosen"]]["logits"] <= drifts["minmax"]["logits"]


def test_dead_channels_have_a_defined_result() -> None:
    context = context_of("depthwise-relu6", photographs(20))
    first = context.graph.nodes[0]
    weight, bias = (context.graph.constant(name).copy() for name in first.input[1:3])
    weight[:4], bias[:4] = 0, 0
    context = changed(context, {first.input[1]: weight, first.input[2]: bias})
    for limits in solved(context).ranges.values():
        assert 0 < activation_params(limits, context.number_format).scale < np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_activation_that_is_not_finite_is_named(value: float) -> None:
    images = photographs(20)
    images.pixels[5, 0, 0, 0] = value
    with pytest.raises(BadInputError, match="not finite") as caught:
        solved(context_of("residual", images))
    assert caught.value.where == "tensor 'image'"


def test_an_operation_without_a_gradient_is_named() -> None:
    context = context_of("residual", photographs(20))
    node = next(item for item in context.graph.model.graph.node if item.op_type == "Relu")
    node.CopyFrom(helper.make_node("Celu", list(node.input), list(node.output), name=node.name))
    with pytest.raises(BadInputError, match="cannot be differentiated") as caught:
        solved(changed(context, {}))
    assert "mse" in (caught.value.hint or "")


def test_another_number_of_images_than_announced_is_refused() -> None:
    class Short(ArrayImages):
        @property
        def digests(self) -> tuple[str, ...]:
            return (*super().digests, "missing")

    with pytest.raises(BadInputError, match="another number"):
        solved(context_of("residual", Short(photographs(20).pixels)))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(BadInputError):
        solved(context_of("residual", random_images(20, side=8)))


def test_recipes_reach_the_method() -> None:
    made = [CALIBRATORS.load("attribution-quick")(CalibrateOptions(adjust=adjust)) for adjust in (True, False)]
    assert [item.parameters["adjust"] for item in made] == [True, False]
    assert made[0].name == "attribution-quick"
