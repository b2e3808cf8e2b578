"""One scale for all that a concatenation joins: asked for, and then everywhere, and never narrower."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from explained_graphs import GRAPHS, random_images
from hypothesis import given
from hypothesis import strategies as st

from edgekit.calibrate.boundaries import count_boundaries
from edgekit.calibrate.concat_ranges import shared_by_concatenations
from edgekit.calibrate.formats import Range, number_format
from edgekit.calibrate.graph import Edge, ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import Placement, place
from edgekit.calibrate.stage import QuantisedGraph, quantise_graph
from edgekit.compress.options import QatOptions
from edgekit.config.recipe import Recipe
from edgekit.errors import BadInputError
from edgekit.pipeline.build import _check_qat

ATTRIBUTION = ("attribution", "attribution-quick")
FORMAT = number_format("trt-s8s8")


def graph_of(name: str) -> ExplainedGraph:
    return parse_graph(GRAPHS[name]().SerializeToString(), where=name)


def quantised(name: str, concat: str, fmt: str = "trt-s8s8") -> QuantisedGraph:
    options = CalibrateOptions(method="minmax", concat=concat)
    return quantise_graph(graph_of(name), random_images(), number_format(fmt), options)


def test_nothing_is_rounded_twice_where_it_is_asked_for() -> None:
    own, shared = quantised("dense-concat", "own"), quantised("dense-concat", "shared")
    assert count_boundaries(own.model).requantised
    assert not count_boundaries(shared.model).requantised
    assert dict(own.table.provenance.parameters) | {"concat": "shared"} == dict(shared.table.provenance.parameters)
    for name, entry in own.table.activations.items():
        assert shared.table.activations[name].scale >= entry.scale
    assert shared.table != own.table


def test_graphs_without_concatenations_are_left_alone() -> None:
    assert quantised("residual", "shared").table.activations == quantised("residual", "own").table.activations


def joined(graph: ExplainedGraph, placement: Placement) -> list[list[str]]:
    found = []
    for index in graph.forward:
        node = graph.nodes[index]
        if node.op_type == "Concat":
            names = [
                name
                for slot, name in enumerate(node.input)
                if Edge(index, slot) in placement.dequantised_reads.get(name, ())
            ]
            names += [name for name in node.output if name in placement.range_of]
            found.append([placement.range_of[name] for name in names])
    return found


@given(data=st.data(), name=st.sampled_from(sorted(GRAPHS)))
def test_whatever_the_ranges_they_are_one_and_as_wide_as_before(data: st.DataObject, name: str) -> None:
    graph = graph_of(name)
    placement = place(graph, FORMAT)
    bounds = st.floats(-100, 0), st.floats(0.001, 100)
    ranges = {tensor: Range(data.draw(bounds[0]), data.draw(bounds[1])) for tensor in placement.observed}
    found = shared_by_concatenations(graph, placement, ranges)
    assert found.keys() == ranges.keys()
    for tensor, before in ranges.items():
        assert found[tensor].low <= before.low
        assert found[tensor].high >= before.high
    for group in joined(graph, placement):
        assert len({found[tensor] for tensor in group}) <= 1
    assert {item.low for item in found.values()} <= {item.low for item in ranges.values()}
    assert shared_by_concatenations(graph, placement, found) == found


@pytest.mark.parametrize(("concat", "method"), [("all", "minmax"), *(("shared", name) for name in ATTRIBUTION)])
def test_what_cannot_be_is_refused(concat: str, method: str) -> None:
    with pytest.raises(BadInputError, match=r"calibrate\.concat"):
        CalibrateOptions(method=method, concat=concat)


def test_a_build_that_learns_scales_refuses_shared_ones_before_any_work() -> None:
    recipe = Recipe(calibrate=CalibrateOptions(method="minmax", concat="shared"), qat=QatOptions(epochs=1))
    teacher = SimpleNamespace(capabilities=SimpleNamespace(check_qat=lambda *_, **__: None), format="checkpoint")
    request = SimpleNamespace(recipe=recipe, model="m.pt", data="images")
    with pytest.raises(BadInputError, match="learns each scale") as caught:
        _check_qat(request, teacher, SimpleNamespace(train=object()))  # type: ignore[arg-type]
    assert "calibrate.concat shared" in str(caught.value.found)
