"""How far an activation matters to what reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from attribution_solutions import context_of
from explained_graphs import GraphBuilder, random_images
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgekit.calibrate.attribution.live_ranges import live_limits, within
from edgekit.calibrate.attribution.workbench import Workbench
from edgekit.calibrate.formats import Range
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.minmax import MinMaxCalibrator
from edgekit.calibrate.runtime import open_session, run_session

EVERYTHING = (-np.inf, np.inf)
READERS: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "HardSwish": ({}, (-3.0, np.inf)),
    "HardSigmoid": ({"alpha": 0.25, "beta": 0.4}, (-1.6, 2.4)),
    "Relu": ({}, (0.0, np.inf)),
    "Sigmoid": ({}, EVERYTHING),
}


def graph_read_by(*kinds: str, bare: bool = False) -> tuple[ExplainedGraph, str]:
    """A convolution read by these operations, and by an addition as it is where `bare`."""
    g = GraphBuilder()
    made = g.conv("image", 3, 8)
    read = [g.op(kind, made, **READERS[kind][0]) for kind in kinds] + ([made] if bare else [])
    total = read[0]
    for other in read[1:]:
        total = g.op("Add", total, other)
    g.pooled_head(total, 8, 5, 256)
    return parse_graph(g.model().SerializeToString(), where="test"), made


@pytest.mark.parametrize("kind", READERS)
def test_beyond_the_limits_a_reader_answers_as_at_them_and_within_it_does_not(kind: str) -> None:
    graph, made = graph_read_by(kind)
    low, high = live_limits(graph, made)
    assert (low, high) == pytest.approx(READERS[kind][1])
    x = np.linspace(-8, 8, 1601, dtype=np.float32)
    exact, clipped = answers(kind, x), answers(kind, np.clip(x, low, high))
    np.testing.assert_allclose(clipped, exact, atol=1e-6)
    for narrower in ((low + 0.1, high), (low, high - 0.1)):
        if narrower != (low, high):
            assert np.abs(answers(kind, np.clip(x, *narrower)) - exact).max() > 1e-3


def answers(kind: str, x: Any) -> Any:
    value = helper.make_tensor_value_info
    sides = [value(name, TensorProto.FLOAT, [len(x)]) for name in "xy"]
    node = helper.make_node(kind, ["x"], ["y"], **READERS[kind][0])
    made = helper.make_graph([node], "one", sides[:1], sides[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return run_session(open_session(model), ["y"], {"x": x.astype(np.float32)})["y"]


def test_of_several_readers_the_widest_decides() -> None:
    assert live_limits(*graph_read_by("HardSwish", "Relu")) == (-3.0, np.inf)
    assert live_limits(*graph_read_by("HardSigmoid", "Relu"))[0] == pytest.approx(-1.6)
    assert live_limits(*graph_read_by("HardSwish", "Sigmoid")) == EVERYTHING
    assert live_limits(*graph_read_by("HardSwish", bare=True)) == EVERYTHING


def test_an_answer_and_what_nobody_reads_are_left_alone() -> None:
    graph, _ = graph_read_by("Relu")
    for name in ("logits", "attribution", "nothing of the kind"):
        assert live_limits(graph, name) == EVERYTHING


@given(st.floats(-100, 0), st.floats(0, 100), st.floats(-50, 50), st.floats(-50, 50))
def test_a_range_within_limits_holds_zero_and_no_more_than_before(low: float, high: float, a: float, b: float) -> None:
    live = (min(a, b), max(a, b))
    found = within(Range(low, high), live)
    assert low <= found.low <= 0 <= found.high <= high
    for value in np.linspace(low, high, 7):
        if live[0] <= value <= live[1]:
            assert found.low <= value <= found.high


def test_methods_spend_no_integers_below_where_hard_swish_is_zero() -> None:
    context = context_of("hard-swish", random_images(24))
    view = Workbench(context, 12, 12).view()
    limited = [name for name in context.placement.observed if live_limits(context.graph, name)[0] == -3]
    assert len(limited) == 3
    assert min(context.extremes[name].low for name in limited) < -3, "nothing was to be clipped"
    for solution in (view.streamed(MinMaxCalibrator()), view.weighted(), view.weighted(1.0)):
        assert all(solution.ranges[name].low >= -3 for name in limited)
