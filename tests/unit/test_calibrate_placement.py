"""Where pairs stand, by the rules that were written down, on graphs small enough to see."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from explained_graphs import GRAPHS, GraphBuilder

from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.placement import PLACERS, Placement, place
from edgekit.errors import BadInputError

X86, TRT = NUMBER_FORMATS["x86-u8s8"], NUMBER_FORMATS["trt-s8s8"]


def parsed(name: str) -> ExplainedGraph:
    return parse_graph(GRAPHS[name]().SerializeToString(), where=name)


def built(builder: GraphBuilder) -> ExplainedGraph:
    return parse_graph(builder.model().SerializeToString(), where="built")


def kinds(graph: ExplainedGraph, placement: Placement) -> Counter[str]:
    return Counter(graph.nodes[index].op_type for index in placement.quantised)


def reasons(graph: ExplainedGraph, placement: Placement) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for index, why in placement.left_float.items():
        found.setdefault(graph.nodes[index].op_type, set()).add(why)
    return found


@pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_placement_is_sound(name: str, fmt) -> None:
    graph = parsed(name)
    placement = place(graph, fmt)
    forward = set(graph.forward)
    assert placement.quantised <= forward
    assert not placement.quantised & placement.left_float.keys()
    for tensor in placement.activations:
        # Sources have a pair themselves and are their own source; the pair is read by somebody.
        source = placement.range_of[tensor]
        assert source in placement.activations
        assert placement.range_of[source] == source
        assert placement.dequantised_reads[tensor]
        assert tensor not in graph.outputs
        assert tensor == "image" or graph.producer[tensor] in forward
        # The map branch explains what the engine computes: never the tensor from before rounding.
        outside = {edge for edge in graph.readers[tensor] if edge.node not in forward}
        assert outside <= set(placement.dequantised_reads[tensor])
    for use in placement.weights:
        assert use.data in placement.activations
    assert set(placement.observed) == set(placement.range_of.values())


@pytest.mark.parametrize("name", GRAPHS)
def test_every_convolution_is_quantised_for_onnxruntime(name: str) -> None:
    graph = parsed(name)
    convolutions = {index for index in graph.forward if graph.nodes[index].op_type in ("Conv", "Gemm")}
    assert convolutions <= place(graph, X86).quantised


def test_a_pair_never_stands_between_a_convolution_and_its_activation() -> None:
    for name in ("residual", "depthwise-relu6", "dense-concat"):
        graph = parsed(name)
        for tensor in place(graph, X86).activations:
            followers = [graph.nodes[edge.node].op_type for edge in graph.readers[tensor]]
            assert not (
                tensor in graph.producer
                and graph.nodes[graph.producer[tensor]].op_type == "Conv"
                and followers in (["Relu"], ["Clip"])
            )


def test_the_last_addition_and_the_pooling_stay_in_float() -> None:
    graph = parsed("residual")
    placement = place(graph, X86)
    assert kinds(graph, placement) == {"Conv": 8, "Add": 2, "MaxPool": 1, "Gemm": 1}
    assert reasons(graph, placement)["Add"] == {"nothing that reads it computes in integers"}
    tap = graph.nodes[graph.producer["attribution"] - 2].input[1]
    assert tap not in placement.activations


def test_data_movers_share_the_scale_of_what_they_move() -> None:
    graph = parsed("shuffled")
    placement = place(graph, X86)
    moved = {name: source for name, source in placement.range_of.items() if name != source}
    movers = ("split", "reshape", "transpose")
    assert len(moved) == 5
    assert all(name.startswith(movers) for name in moved)
    for name, source in moved.items():
        before = graph.nodes[graph.producer[name]].input[0]
        assert placement.range_of[before] == source


def test_a_gate_of_the_same_tensor_stays_in_float_and_a_squeezed_one_does_not() -> None:
    graph = parsed("gated")
    placement = place(graph, X86)
    assert kinds(graph, placement)["Mul"] == 1
    assert reasons(graph, placement)["Mul"] == {"it is part of an activation function"}


def test_products_of_integers_are_integers_and_learned_slopes_and_stored_factors_stay_in_float() -> None:
    graph = parsed("slopes-and-products")
    placement = place(graph, X86)
    # The product of two convolutions, and the gated one, which reads it.
    assert kinds(graph, placement)["Mul"] == 2
    assert reasons(graph, placement)["Mul"] == {"one of its inputs is stored"}
    assert set(reasons(graph, placement)["PRelu"]) == {"ONNX Runtime has no integer kernel for it"}


def test_the_mask_of_a_gradient_does_not_cost_the_activation_its_range() -> None:
    graph = parsed("gradient-head")
    placement = place(graph, X86)
    clip = next(node for node in graph.nodes if node.op_type == "Clip")
    # Before and behind the activation the same integers: the mask compares what the engine computed.
    assert placement.range_of[clip.input[0]] == clip.output[0]
    assert clip.input[0] not in placement.observed


def test_a_tap_before_its_activation_keeps_its_negative_values() -> None:
    g = GraphBuilder()
    tap = g.conv("image", 3, 16)
    flat = g.op("Reshape", g.mean(g.relu(tap)), g.constant([-1, 16], np.int64))
    logits = g.linear(flat, 16, 5)
    weights = g.op("Unsqueeze", g.op("MatMul", g.one_hot(logits, 5), g.weight(5, 16)), g.constant([2, 3], np.int64))
    g.finish(logits, g.weighted_sum(weights, tap))
    graph = built(g)
    placement = place(graph, X86)
    assert placement.range_of[tap] == tap
    assert tap in placement.observed


@pytest.mark.parametrize(("low", "high", "folds"), [(0.0, 6.0, True), (-1.0, 1.0, False), (1.0, 6.0, False)])
def test_a_clip_folds_only_if_it_starts_at_zero(low: float, high: float, folds: bool) -> None:
    g = GraphBuilder()
    before = g.conv("image", 3, 16)
    x = g.op("Clip", before, g.constant(low), g.constant(high))
    g.pooled_head(g.relu(g.conv(x, 16, 16)), 16, 5, 256)
    assert (before not in place(built(g), X86).activations) is folds


def test_padding_with_something_else_than_zero_is_no_copy() -> None:
    for value, copies in ((0.0, True), (1.0, False)):
        g = GraphBuilder()
        x = g.relu(g.conv("image", 3, 16))
        x = g.op("Pad", x, g.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), g.constant(value))
        padded = x
        g.pooled_head(g.relu(g.conv(x, 16, 16)), 16, 5, 324)
        placement = place(built(g), X86)
        assert (placement.range_of[padded] != padded) is copies


def test_exclusion_keeps_named_nodes_in_float() -> None:
    graph = parsed("residual")
    first, gemm = "node_Conv_0", next(node.name for node in graph.nodes if node.op_type == "Gemm")
    placement = place(graph, X86, (first, "node_Gemm_*"))
    names = {graph.nodes[index].name for index in placement.quantised}
    assert not names & {first, gemm}
    assert "image" not in placement.activations
    assert reasons(graph, placement)["Gemm"] == {"excluded by 'node_Gemm_*'"}


def test_an_excluded_activation_is_not_folded() -> None:
    graph = parsed("residual")
    relu = next(node for node in graph.nodes if node.op_type == "Relu")
    placement = place(graph, X86, (relu.name,))
    assert relu.input[0] in placement.activations


def test_an_exclusion_that_matches_nothing_is_refused() -> None:
    with pytest.raises(BadInputError) as raised:
        place(parsed("residual"), X86, ("node_Covn_*",))
    assert "node_Covn_*" in str(raised.value.found)
    assert "node_Conv_0" in str(raised.value.expected)


def test_nothing_to_quantise_is_refused_with_the_reasons() -> None:
    with pytest.raises(BadInputError, match="Nothing in the graph") as raised:
        place(parsed("residual"), X86, ("*",))
    assert "excluded by '*'" in str(raised.value.found)


def test_weights_that_are_computed_stay_in_float() -> None:
    g = GraphBuilder()
    weight = g.op("Mul", g.weight(16, 3, 3, 3), g.constant(2.0))
    x = g.relu(g.op("Conv", "image", weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
    g.pooled_head(g.relu(g.conv(x, 16, 16)), 16, 5, 256)
    graph = built(g)
    assert reasons(graph, place(graph, X86))["Conv"] == {"its weights are not stored"}


def test_a_bias_added_by_another_operation_keeps_the_matrix_in_float() -> None:
    # ONNX Runtime turns MatMul and Add into a Gemm with a float bias, for which it has no integer kernel.
    g = GraphBuilder()
    flat = g.op("Reshape", g.mean(g.relu(g.conv("image", 3, 16))), g.constant([-1, 16], np.int64))
    logits = g.op("Add", g.op("MatMul", flat, g.weight(16, 5)), g.constant(np.zeros(5)))
    weights = g.op("Unsqueeze", g.op("MatMul", g.one_hot(logits, 5), g.weight(5, 16)), g.constant([2, 3], np.int64))
    g.finish(logits, g.weighted_sum(weights, "relu_1"))
    graph = built(g)
    placement = place(graph, X86)
    assert kinds(graph, placement) == {"Conv": 1}
    assert reasons(graph, placement)["MatMul"] == {"a stored bias is added to its result by another operation"}


# TensorRT


def test_tensorrt_quantises_inputs_of_convolutions_and_the_skip_side() -> None:
    graph = parsed("residual")
    placement = place(graph, TRT)
    weighted_inputs = {use.data for use in placement.weights}
    extra = set(placement.activations) - weighted_inputs
    # The block with a projection has a convolution on both sides: the shorter one gets a pair of its own.
    projection = next(
        node for node in graph.nodes if node.op_type == "Conv" and graph.constant_shape(node.input[1])[2:] == (1, 1)
    )
    assert extra == {projection.output[0]}
    assert kinds(graph, placement) == {"Conv": 8, "Add": 2}


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "group", "pays"),
    [
        (16, 16, 3, 1, True),
        (16, 17, 1, 1, True),
        (8, 16, 3, 1, True),
        (8, 8, 3, 1, False),
        (12, 20, 3, 1, False),
        (16, 16, 3, 16, True),
        (12, 12, 3, 12, False),
        (16, 16, 1, 16, False),
    ],
)
def test_tensorrt_leaves_small_convolutions_alone(
    inputs: int, outputs: int, kernel: int, group: int, pays: bool
) -> None:
    g = GraphBuilder()
    x = g.relu(g.conv("image", 3, inputs))
    probe = len(g.nodes)
    x = g.relu(g.conv(x, inputs, outputs, kernel=kernel, group=group))
    x = g.relu(g.conv(x, outputs, 32))
    g.pooled_head(g.relu(g.conv(x, 32, 32)), 32, 5, 256)
    assert (probe in place(built(g), TRT).quantised) is pays


def test_the_first_convolution_counts_as_large_enough() -> None:
    for outputs, pays in ((8, True), (10, False)):
        g = GraphBuilder()
        x = g.relu(g.conv("image", 3, outputs))
        x = g.relu(g.conv(x, outputs, 32))
        g.pooled_head(g.relu(g.conv(x, 32, 32)), 32, 5, 256)
        assert (0 in place(built(g), TRT).quantised) is pays


def test_each_number_format_names_known_rules() -> None:
    assert {fmt.placement for fmt in NUMBER_FORMATS.values()} == set(PLACERS.names())
