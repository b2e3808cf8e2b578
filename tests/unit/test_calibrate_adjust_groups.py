"""Which channels may be scaled, and what is scaled along with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from explained_graphs import GRAPHS, GraphBuilder
from onnx import ModelProto, numpy_helper

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import Adjustments, ChannelFactors
from edgekit.calibrate.attribution.channel_unions import FIXED, ChannelUnions
from edgekit.calibrate.attribution.equality import equal_answers, proven_groups
from edgekit.calibrate.attribution.map_reads import tensors_read_for_their_size
from edgekit.calibrate.attribution.scale_groups import ScaleGroup, factors_of, find_groups
from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import float_answers
from edgekit.calibrate.relatives import WeightRelative, WeightRelatives
from edgekit.errors import IntegrityError

FORMAT = NUMBER_FORMATS["x86-u8s8"]


def parsed(model: ModelProto) -> ExplainedGraph:
    return parse_graph(model.SerializeToString(), where="test")


def images_for(graph: ExplainedGraph) -> Any:
    return np.random.default_rng(5).normal(0, 1, (4, *graph.input_shape)).astype(np.float32)


def groups_of(graph: ExplainedGraph) -> tuple[ScaleGroup, ...]:
    return find_groups(graph, place(graph, FORMAT))


def scaled_tensors(graph: ExplainedGraph) -> set[str]:
    return {member.tensor for group in groups_of(graph) for member in group.members}


def between(write: Callable[[GraphBuilder, str], str], channels: int = 8) -> tuple[ExplainedGraph, str]:
    """A network with an operation between two convolutions, and the result of the first convolution's Relu."""
    g = GraphBuilder(seed=3)
    first = g.relu(g.conv("image", 3, 8))
    g.pooled_head(g.relu(g.conv(write(g, first), channels, 8)), 8, 5, 256)
    return parsed(g.model()), first


PASSING: dict[str, tuple[Callable[[GraphBuilder, str], str], int]] = {
    "max-pool": (lambda g, x: g.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 8),
    "average-pool": (lambda g, x: g.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), 8),
    "leaky": (lambda g, x: g.op("LeakyRelu", x, alpha=0.1), 8),
    "clip-at-zero": (lambda g, x: g.op("Clip", x, g.constant(0.0)), 8),
    "pad": (lambda g, x: g.op("Pad", x, g.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), 8),
    "padded-channels": (lambda g, x: g.op("Pad", x, g.constant([0, 1, 0, 0, 0, 2, 0, 0], np.int64)), 11),
    "slice": (lambda g, x: g.op("Slice", x, *(g.constant([v], np.int64) for v in (6, 1, 1, -2))), 3),
    "concat": (lambda g, x: g.op("Concat", x, x, axis=1), 16),
    "doubled": (lambda g, x: g.op("Add", x, g.op("Neg", g.op("Identity", x))), 8),
    "times-stored": (lambda g, x: g.op("Mul", x, g.constant(np.arange(1, 9).reshape(1, 8, 1, 1))), 8),
    "over-stored": (lambda g, x: g.op("Div", x, g.constant(6.0)), 8),
}
STOPPING: dict[str, tuple[Callable[[GraphBuilder, str], str], int]] = {
    "relu6": (lambda g, x: g.relu6(x), 8),
    "sigmoid": (lambda g, x: g.op("Sigmoid", x), 8),
    "swish": (lambda g, x: g.op("Mul", x, g.op("Sigmoid", x)), 8),
    "square": (lambda g, x: g.op("Mul", x, x), 8),
    "plus-stored": (lambda g, x: g.op("Add", x, g.constant(1.0)), 8),
    "padded-with-ones": (
        lambda g, x: g.op("Pad", x, g.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), g.constant(1.0)),
        8,
    ),
    "over-itself": (lambda g, x: g.op("Div", x, g.op("Add", x, g.constant(1.0))), 8),
}


@pytest.mark.parametrize("name", PASSING)
def test_factors_pass_through_what_scales_with_its_input(name: str) -> None:
    graph, first = between(*PASSING[name])
    assert first in scaled_tensors(graph)
    images = images_for(graph)
    _, dropped = proven_groups(graph, groups_of(graph), images)
    assert dropped == ()


@pytest.mark.parametrize("name", STOPPING)
def test_factors_stop_at_what_does_not(name: str) -> None:
    graph, first = between(*STOPPING[name])
    assert first not in scaled_tensors(graph)


def test_a_tensor_times_a_gate_keeps_its_factors_and_the_gate_has_none() -> None:
    graph = parsed(GRAPHS["gated"]())
    groups = groups_of(graph)
    (product,) = (
        node
        for node in graph.nodes
        if node.op_type == "Mul"
        and [graph.nodes[graph.producer[name]].op_type for name in graph.data_inputs(graph.producer[node.output[0]])]
        == ["Relu", "Sigmoid"]
    )
    tensor, gate = product.input
    tied = next(group for group in groups if tensor in {member.tensor for member in group.members})
    # The mean that the gate is computed from goes with the tensor too.
    assert {product.output[0], tensor} < {member.tensor for member in tied.members}
    assert len(tied.members) == 3
    assert len({member.variables for member in tied.members}) == 1
    assert gate not in scaled_tensors(graph)


def test_additions_tie_their_inputs_and_depthwise_convolutions_do_not() -> None:
    residual = groups_of(parsed(GRAPHS["residual"]()))
    assert max(len(group.members) for group in residual) >= 3
    g = GraphBuilder(seed=3)
    x = g.relu(g.conv("image", 3, 8))
    y = g.relu(g.conv(x, 8, 16, group=8))
    g.pooled_head(g.relu(g.conv(y, 16, 8)), 8, 5, 256)
    graph = parsed(g.model())
    found = {group.members[0].tensor: group for group in groups_of(graph)}
    weight = graph.nodes[graph.readers[x][0].node].input[1]
    before = next(link for link in found[x].links if link.constant == weight)
    behind = next(link for link in found[y].links if link.constant == weight)
    # Two outputs read each channel; a row has a step of its own, so neither costs anything.
    assert (before.axis, before.power, before.costs) == (0, 1, False)
    assert (behind.axis, behind.power, behind.costs) == (0, -1, False)
    assert before.variables == tuple(np.repeat(before.variables[::2], 2))
    assert found[x].size == 8
    assert found[y].size == 16


def test_channels_that_share_a_column_of_a_grouped_convolution_share_a_factor() -> None:
    graph, first = between(lambda g, x: g.relu(g.conv(x, 8, 8, group=2)))
    group = next(group for group in groups_of(graph) if group.members[0].tensor == first)
    assert group.size == 4
    assert group.members[0].variables == (0, 1, 2, 3) * 2
    assert proven_groups(graph, [group], images_for(graph))[1] == ()


def test_weights_that_are_used_twice_tie_what_they_make_and_read() -> None:
    g = GraphBuilder(seed=3)
    first = g.relu(g.conv("image", 3, 8))
    weight, bias = g.weight(8, 8, 3, 3), g.constant(np.zeros(8))
    second = g.relu(g.conv_with(first, weight, bias))
    third = g.relu(g.conv_with(second, weight, bias))
    g.pooled_head(g.relu(g.conv(third, 8, 8)), 8, 5, 256)
    graph = parsed(g.model())
    tied = next(group for group in groups_of(graph) if group.members[0].tensor == first)
    assert [member.tensor for member in tied.members] == [first, second, third]
    assert len({member.variables for member in tied.members}) == 1
    assert proven_groups(graph, [tied], images_for(graph))[1] == ()


def test_weights_that_are_used_in_two_ways_stay() -> None:
    g = GraphBuilder(seed=3)
    weight, bias = g.weight(8, 2, 3, 3), g.constant(np.zeros(8))
    first = g.relu(g.conv("image", 3, 8))
    other = g.relu(g.conv("image", 3, 2))
    in_groups = g.conv_with(first, weight, bias, group=4)
    plain = g.conv_with(other, weight, bias)
    g.pooled_head(g.relu(g.conv(g.relu(g.op("Add", in_groups, plain)), 8, 8)), 8, 5, 256)
    graph = parsed(g.model())
    assert not {first, other} & scaled_tensors(graph)


def test_a_branch_that_adds_or_compares_with_numbers_keeps_its_inputs_from_being_scaled() -> None:
    for operation, number, kept in (("Add", 1.0, True), ("Mul", 2.0, False), ("Sqrt", None, True)):
        g = GraphBuilder(seed=3)
        tap = g.relu(g.conv("image", 3, 8))
        logits = g.linear(g.mean(tap, keepdims=0), 8, 5)
        read = g.op(operation, tap, *([] if number is None else [g.constant(number)]))
        g.finish(logits, g.op("ReduceSum", read, g.constant([1], np.int64), keepdims=0))
        graph = parsed(g.model())
        assert (tap in tensors_read_for_their_size(graph)) is kept


def test_a_map_that_shows_sizes_is_noticed_and_its_group_dropped() -> None:
    graph = parsed(GRAPHS["flattened"]())
    groups = groups_of(graph)
    kept, notes = proven_groups(graph, groups, images_for(graph))
    assert len(kept) == len(groups) - 1
    (note,) = notes
    (dropped,) = (group for group in groups if group not in kept)
    assert dropped.members[0].tensor in note
    scales = np.linspace(0.5, 2, dropped.size)
    adjusted = apply_adjustments(graph, Adjustments(factors=factors_of(dropped, scales)))
    images = images_for(graph)
    assert not equal_answers(float_answers(graph, images), adjusted, images, 1e-2)


def test_no_groups_need_no_proof() -> None:
    graph = parsed(GRAPHS["residual"]())
    assert proven_groups(graph, (), images_for(graph)) == ((), ())


def test_factors_of_one_change_nothing() -> None:
    for group in groups_of(parsed(GRAPHS["residual"]())):
        assert factors_of(group, np.ones(group.size)) == ()


def test_unknowns_are_united_and_fixed() -> None:
    unions = ChannelUnions()
    a, b = unions.fresh(3, 3), unions.fresh(3, 3)
    assert a.shape == (3, 1, 1)
    unions.unite(a, b)
    assert (unions.roots(a) == unions.roots(b)).all()
    unions.fix(b[1:2])
    assert unions.roots(a).ravel()[1] == FIXED
    assert not unions.all_fixed(a)
    merged = unions.merged(a, (0,))
    assert merged.shape == (1, 1, 1)
    assert unions.all_fixed(b)


def branch_with(copy: Callable[[Any], Any], transposed: bool = False) -> tuple[ExplainedGraph, str, str]:
    """A network with a tap before its last convolution, and the branch's own copy of that convolution's kernel."""
    g = GraphBuilder(seed=3)
    tap = g.relu(g.conv("image", 3, 8))
    weight = g.weight(6, 8, 3, 3)
    logits = g.linear(g.mean(g.relu(g.conv_with(tap, weight, g.constant(np.zeros(6)))), keepdims=0), 6, 5)
    stored = g.constant(copy(g.initialisers[weight]))
    read = g.op("Transpose", stored, perm=[3, 2, 1, 0]) if transposed else stored
    kept = g.op("Conv", tap, read, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    g.finish(logits, g.op("ReduceSum", kept, g.constant([1], np.int64), keepdims=0))
    return parsed(g.model()), weight, stored


@pytest.mark.parametrize(
    ("copy", "transposed", "exact"),
    [
        (lambda w: w, False, True),
        (lambda w: w.T, True, True),
        (lambda w: w / 64, False, False),
        (lambda w: w * np.array([2, -3, 0.1, 5, 1e-3, 7]).reshape(6, 1, 1, 1), False, False),
    ],
)
def test_a_kernel_in_other_clothes_is_scaled_along(copy: Callable[[Any], Any], transposed: bool, exact: bool) -> None:
    graph, weight, stored = branch_with(copy, transposed)
    (relative,) = WeightRelatives(graph).of(weight)
    assert relative == WeightRelative(stored, transposed)
    assert WeightRelatives(graph).copies(weight) == ((relative,) if exact else ())
    factors = np.linspace(0.5, 2, 8)
    adjusted = apply_adjustments(graph, Adjustments(factors=(ChannelFactors(weight, 1, tuple(factors)),)))
    axis = 2 if transposed else 1
    shape = [-1 if other == axis else 1 for other in range(4)]
    assert np.allclose(adjusted.constant(stored), graph.constant(stored) * factors.reshape(shape), rtol=1e-6)


@pytest.mark.parametrize(
    "copy",
    [
        lambda w: w + 1e-2,
        lambda w: w * np.linspace(1, 2, 8).reshape(1, 8, 1, 1),
        lambda w: w[::-1].copy(),
        lambda w: 0 * w,
    ],
)
def test_another_kernel_is_no_relative(copy: Callable[[Any], Any]) -> None:
    graph, weight, stored = branch_with(copy)
    assert WeightRelatives(graph).of(weight) == ()
    adjusted = apply_adjustments(graph, Adjustments(factors=(ChannelFactors(weight, 1, (2.0,) * 8),)))
    assert np.array_equal(adjusted.constant(stored), graph.constant(stored))


def test_a_matrix_may_have_rows_of_zeros_more() -> None:
    model = GRAPHS["residual"]()
    graph = parsed(model)
    gemm = next(node for node in graph.nodes if node.op_type == "Gemm")
    (found,) = WeightRelatives(graph).copies(gemm.input[1])
    copy = found.name
    assert found.transposed
    for tensor in model.graph.initializer:
        if tensor.name == copy:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate([values, 0 * values[:1]]), copy))
    # The product has no use for one more row; what matters is what is scaled.
    graph = ExplainedGraph(model, "")
    assert WeightRelatives(graph).of(gemm.input[1]) == (WeightRelative(copy, True),)
    assert WeightRelatives(graph).copies(gemm.input[1]) == ()


def test_equal_weights_of_two_layers_are_not_taken_for_copies_of_each_other() -> None:
    g = GraphBuilder(seed=3)
    x = g.relu(g.conv("image", 3, 8))
    weight = g.weight(8, 8, 3, 3)
    twin = g.constant(g.initialisers[weight].copy())
    zero = g.constant(np.zeros(8))
    x = g.relu(g.conv_with(g.relu(g.conv_with(x, weight, zero)), twin, zero))
    g.pooled_head(g.relu(g.conv(x, 8, 8)), 8, 5, 256)
    graph = parsed(g.model())
    adjusted = apply_adjustments(graph, Adjustments(factors=(ChannelFactors(weight, 0, (2.0,) * 8),)))
    assert np.array_equal(adjusted.constant(twin), graph.constant(twin))
    assert np.array_equal(adjusted.constant(weight), 2 * graph.constant(weight))


@pytest.mark.parametrize(
    "change",
    [
        ChannelFactors("nowhere", 0, (1.0,)),
        ChannelFactors("constant_0", 0, (2.0,) * 3),
        ChannelFactors("constant_0", 9, (2.0,) * 16),
    ],
)
def test_factors_that_fit_nothing_are_refused(change: ChannelFactors) -> None:
    graph = parsed(GRAPHS["residual"]())
    with pytest.raises(IntegrityError, match="does not fit the graph"):
        apply_adjustments(graph, Adjustments(factors=(change,)))
