"""Whatever is excluded, TensorRT's rules hold: any subset of operations, on hand-made and on exported graphs."""

from __future__ import annotations

import glob
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
from explained_graphs import GRAPHS
from exported import OPSET, exported, loaded
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CASES, made
from torch import nn

from edgekit.calibrate.formats import Range, number_format
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.placement import Placement, place
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.scale_table import Provenance, table_from_ranges
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.tensorrt_rules import check_tensorrt_rules
from edgekit.errors import BadInputError
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.teacher.architectures.cifar_resnet import cifar_resnet
from edgekit.teacher.architectures.mlperf_resnet8 import mlperf_resnet8
from edgekit.teacher.options import MapOptions

FORMAT = number_format("trt-s8s8")


def resnet(make: Callable[[], nn.Module], tap: str) -> Any:
    model = loaded(CASES["mobile"], tap, made(make))
    explained = explained_onnx(model, MapOptions(), use_closed_form=True, opset=OPSET)
    return cleaned_onnx(explained, lambda _model: None)[0].model


# Networks of the size that TensorRT's rules are for, with projections, copies and nothing on their shortcuts.
EXPORTED: dict[str, Callable[[], Any]] = {
    "cifar-resnet-A": partial(resnet, partial(cifar_resnet, depth=8, classes=5, shortcut="A"), "layer3"),
    "mlperf-resnet8": partial(resnet, partial(mlperf_resnet8, classes=5), "stage3"),
    "mobile": lambda: exported("mobile", "block1").model,
    "norms": lambda: exported("norms", "mix").model,
}


@cache
def graph_of(name: str) -> ExplainedGraph:
    model = (GRAPHS | EXPORTED)[name]()
    return parse_graph(model.SerializeToString(), where=name)


def written(graph: ExplainedGraph, exclude: tuple[str, ...]) -> tuple[Placement, Any]:
    """The Q/DQ graph with a range of its own for each tensor, so that a shared scale is one that has to be shared."""
    placement = place(graph, FORMAT, exclude)
    ranges = {name: Range(-1.0 - place_, 1.0 + place_) for place_, name in enumerate(placement.observed)}
    provenance = Provenance(graph=graph.digest, images="0" * 64, method="minmax", parameters={}, exclude=exclude)
    table = table_from_ranges(graph, placement, FORMAT, Solution(ranges), provenance)
    return placement, write_qdq(graph, table)


@pytest.mark.parametrize("name", [*GRAPHS, *EXPORTED])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_exclusion_gives_a_graph_that_keeps_the_rules(name: str, data: st.DataObject) -> None:
    graph = graph_of(name)
    names = sorted({graph.nodes[index].name for index in graph.forward})
    excluded = data.draw(st.sets(st.sampled_from(names)))
    patterns = tuple(glob.escape(item) for item in sorted(excluded))
    if {graph.nodes[use.node].name for use in place(graph, FORMAT).weights} <= excluded:
        with pytest.raises(BadInputError, match="Nothing in the graph"):
            written(graph, patterns)
        return
    placement, model = written(graph, patterns)
    assert check_tensorrt_rules(model, patterns) == ()
    assert excluded.isdisjoint(graph.nodes[index].name for index in placement.quantised)


@pytest.mark.parametrize("name", [*GRAPHS, *EXPORTED])
def test_a_single_exclusion_is_never_refused_for_a_rule(name: str) -> None:
    graph = graph_of(name)
    assert len(place(graph, FORMAT).weights) > 1
    for node in sorted({graph.nodes[index].name for index in graph.forward}):
        pattern = (glob.escape(node),)
        assert check_tensorrt_rules(written(graph, pattern)[1], pattern) == ()


def node_named(graph: ExplainedGraph, name: str) -> int:
    return next(index for index, node in enumerate(graph.nodes) if node.name == name)


def test_what_an_excluded_convolution_computes_is_added_in_float() -> None:
    """No rounding that was not there before: the addition is done by the convolution, as it was in integers."""
    graph = graph_of("residual")
    conv, addition = (node_named(graph, name) for name in ("node_Conv_5", "node_Add_6"))
    before, after = place(graph, FORMAT), place(graph, FORMAT, ("node_Conv_5",))
    assert addition in before.quantised
    assert "the convolution that does the addition" in after.left_float[addition]
    assert graph.nodes[conv].output[0] not in after.activations
    assert set(after.activations) < set(before.activations)


def test_beside_an_integer_convolution_an_excluded_one_is_the_skip() -> None:
    graph = graph_of("residual")
    addition = node_named(graph, "node_Add_12")
    longer, projection = graph.nodes[addition].input
    producer = graph.nodes[graph.producer[longer]]
    before, after = place(graph, FORMAT), place(graph, FORMAT, (producer.name,))
    assert {longer, projection} & set(before.activations) == {projection}
    assert {longer, projection} & set(after.activations) == {longer}
    assert addition in after.quantised


def test_an_excluded_addition_need_not_fuse_and_any_other_must() -> None:
    model = written(graph_of("residual"), ("node_Add_12",))[1]
    assert check_tensorrt_rules(model, ("node_Add_1*",)) == ()
    for others in ((), ("node_Add_6",)):
        assert any("skip input is not quantised" in found for found in check_tensorrt_rules(model, others))
