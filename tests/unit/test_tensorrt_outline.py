"""Outlines of ONNX files, read without `onnx`, against `onnx` itself; and files that are none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from explained_graphs import GRAPHS
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tensorrt_stand_ins import GRAPH, quantised_graph

from edgekit.engines.tensorrt.onnx_outline import OnnxOutline, read_outline
from edgekit.errors import BadInputError
from edgekit.export.origin import MODULE_KEY, set_origin


def models() -> dict[str, onnx.ModelProto]:
    made = {name: make() for name, make in GRAPHS.items()}
    return {**made, "tiny": onnx.load(GRAPH), "quantised": quantised_graph()}


@pytest.mark.parametrize("name", sorted(models()))
def test_the_outline_is_what_onnx_reads(name: str) -> None:
    model = models()[name]
    outline = read_outline(model.SerializeToString(), name)
    assert outline.opset == next(each.version for each in model.opset_import if not each.domain)
    assert [(node.name, node.operator, node.inputs, node.outputs) for node in outline.nodes] == [
        (node.name, node.op_type, tuple(node.input), tuple(node.output)) for node in model.graph.node
    ]
    assert [node.index for node in outline.nodes] == list(range(len(model.graph.node)))
    assert outline.inputs == ("image", "class_index")
    assert outline.outputs == tuple(each.name for each in model.graph.output)
    assert outline.quantised is (name == "quantised")
    assert not outline.typed
    assert not outline.external


def test_modules_are_those_that_the_export_writes() -> None:
    model = quantised_graph()
    for node in model.graph.node:
        set_origin(node, "layer1.0.conv1", ("layer1",))
    outline = read_outline(model.SerializeToString(), "x")
    assert {node.module for node in outline.nodes} == {"layer1.0.conv1"}
    assert MODULE_KEY == "edgekit.module"
    (only,) = outline.quantised_nodes()
    assert only.describe() == "Conv 'conv' of module 'layer1.0.conv1'"


def test_half_precision_is_seen_in_initialisers_and_in_constants() -> None:
    value = np.ones(2, np.float16)
    inner = helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(value))
    stored = numpy_helper.from_array(value, "b")
    outputs = [helper.make_tensor_value_info("a", TensorProto.FLOAT16, [2])]
    graph = helper.make_graph([inner], "halves", [], outputs, [stored])
    outline = read_outline(helper.make_model(graph).SerializeToString(), "x")
    assert outline.half_initialisers == 2
    assert outline.typed


def test_weights_in_another_file_are_seen() -> None:
    model = onnx.load(GRAPH)
    weight = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(weight, "weight.bin", offset=0, length=len(weight.raw_data))
    weight.ClearField("raw_data")
    assert read_outline(model.SerializeToString(), "x").external


def test_nodes_without_names_are_told_by_their_place() -> None:
    assert read_outline(GRAPH.read_bytes(), "x").nodes[1].describe() == "Gemm, node 1"


def outline_or_error(data: bytes) -> OnnxOutline | BadInputError:
    try:
        return read_outline(data, "x")
    except BadInputError as error:
        return error


@given(st.binary(max_size=300))
def test_bytes_that_are_no_graph_raise_nothing_but_our_error(data: bytes) -> None:
    outline = outline_or_error(data)
    assert outline.found if isinstance(outline, BadInputError) else isinstance(outline.nodes, tuple)


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_graph_with_one_byte_changed_raises_nothing_but_our_error(place: int, value: int) -> None:
    data = bytearray(quantised_graph().SerializeToString())
    data[place % len(data)] = value
    outline = outline_or_error(bytes(data))
    assert outline.hint if isinstance(outline, BadInputError) else outline.nodes is not None


@given(st.integers(0, 10**6))
def test_a_graph_cut_short_is_refused(place: int) -> None:
    data = GRAPH.read_bytes()
    graph = data[: place % len(data)]
    outline = outline_or_error(graph)
    # Only what follows the graph may be missing: fields of the model that come after it.
    whole = len(onnx.load(GRAPH).graph.node)
    assert isinstance(outline, BadInputError) or len(outline.nodes) == whole
