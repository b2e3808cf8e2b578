"""FP16 types: what stays in FP32 and why, what is refused, operator sets, and scales that FP16 cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from explained_graphs import GRAPHS, GraphBuilder, random_images
from onnx import TensorProto, helper, numpy_helper

from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph
from edgekit.engines.half_graph import SOURCE_KEY
from edgekit.errors import BadInputError
from edgekit.export.opset import downgraded
from edgekit.export.origin import set_origin
from edgekit.half.opset import HALF_OPSET, raised
from edgekit.half.typed import type_half


def headed(g: GraphBuilder, tap: str, channels: int = 16, cells: int = 256) -> Any:
    g.pooled_head(tap, channels, 5, cells)
    return g.model()


def quantised(model: Any) -> Any:
    graph = parse_graph(model.SerializeToString(), where="built")
    options = CalibrateOptions(method="minmax")
    return quantise_graph(graph, random_images(), number_format("trt-s8s8"), options).model


def run(model: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The graph as it is written: a fused kernel would round a float bias into int32, where small scales overflow it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    images = random_images(4).pixels
    found: list[Any] = session.run(None, {"image": images, "class_index": np.full(4, -1, np.int32)})
    return found


def replace_stored(model: Any, name: str, values: Any) -> None:
    item = next(item for item in model.graph.initializer if item.name == name)
    item.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), name))


def weights_of(model: Any, position: int = 0) -> str:
    found: str = [node for node in model.graph.node if node.op_type == "Conv"][position].input[1]
    return found


def types_of(model: Any) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}


# What stays in FP32


def unary(op_type: str, **attributes: Any) -> Any:
    g = GraphBuilder()
    return headed(g, g.conv(g.op(op_type, g.conv("image", 3, 16), **attributes), 16, 16))


@pytest.mark.parametrize("op_type", ["Exp", "Sqrt", "Softmax", "Reciprocal", "Log"])
def test_what_overflows_or_loses_stays_in_fp32(op_type: str) -> None:
    typed = type_half(unary(op_type))
    assert typed.single[f"{op_type} is kept in FP32"] == 1
    types = types_of(typed.model)
    node = next(node for node in typed.model.graph.node if node.op_type == op_type)
    assert types[node.output[0]] == TensorProto.FLOAT
    assert typed.casts >= 3


def test_squares_stay_in_fp32_and_products_do_not() -> None:
    g = GraphBuilder()
    x = g.conv("image", 3, 16)
    y = g.op("Mul", g.op("Mul", x, x), g.op("Sigmoid", x))
    typed = type_half(headed(g, g.conv(y, 16, 16)))
    assert typed.half["Mul"] == 1
    assert typed.single["squares leave FP16's range early"] == 1


def test_a_norm_written_out_stays_in_fp32_as_a_whole() -> None:
    g = GraphBuilder()
    x = g.conv("image", 3, 16)
    centred = g.op("Sub", x, g.mean(x))
    spread = g.op("Sqrt", g.op("Add", g.mean(g.op("Mul", centred, centred)), g.constant(1e-5)))
    typed = type_half(headed(g, g.conv(g.op("Div", centred, spread), 16, 16)))
    # The addition between the mean of squares and their root is among operations in FP32 and joins them.
    assert typed.single["what it reads is in FP32"] == 1
    assert typed.half == {"Conv": 2, "Sub": 1}


def test_a_stored_number_that_would_vanish_keeps_its_operation_in_fp32() -> None:
    g = GraphBuilder()
    x = g.op("Add", g.conv("image", 3, 16), g.constant(1e-9))
    typed = type_half(headed(g, g.conv(x, 16, 16)))
    assert typed.single["FP16 would make a stored number zero"] == 1


def test_bounds_beyond_the_range_are_no_reason() -> None:
    g = GraphBuilder()
    x = g.op("Clip", g.conv("image", 3, 16), g.constant(0.0), g.constant(3.4e38))
    model = headed(g, g.conv(x, 16, 16))
    typed = type_half(model)
    assert typed.half["Clip"] == 1
    np.testing.assert_allclose(run(model)[0], run(typed.model)[0], rtol=0.01, atol=0.01)


def test_movers_take_the_type_they_are_given() -> None:
    g = GraphBuilder()
    x = g.op("Transpose", g.op("Transpose", "image", perm=[0, 2, 3, 1]), perm=[0, 3, 1, 2])
    x = g.op("Transpose", g.conv(x, 3, 16), perm=[0, 1, 3, 2])
    typed = type_half(headed(g, x))
    assert typed.single["it passes the image on"] == 2
    assert typed.half == {"Conv": 1, "Transpose": 1}


def test_a_graph_whose_one_operation_makes_the_logits_has_nothing_to_type() -> None:
    g = GraphBuilder()
    tap = g.op("Identity", "image")
    model = headed(g, tap, channels=3)
    with pytest.raises(BadInputError, match="Nothing"):
        type_half(model)


# Scales


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**-30])
def test_an_operation_whose_scales_fp16_cannot_hold_stays_in_fp32(factor: float) -> None:
    model = GRAPHS["residual"]()
    name = weights_of(model, 1)
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    replace_stored(model, name, stored[name] * np.float32(factor))
    written = quantised(model)
    typed = type_half(written)
    assert any("cannot hold the scale" in why for why in typed.single)
    types = types_of(typed.model)
    kinds = [types[node.output[0]] for node in typed.model.graph.node if node.op_type == "Conv"]
    assert kinds.count(TensorProto.FLOAT) == 1
    assert kinds.count(TensorProto.FLOAT16) == 7
    # Its weights keep their scales exactly.
    before, after = (
        {item.name: numpy_helper.to_array(item) for item in each.graph.initializer} for each in (written, typed.model)
    )
    np.testing.assert_array_equal(before[f"{name}/scale"], after[f"{name}/scale"])
    np.testing.assert_allclose(run(written)[0], run(typed.model)[0], atol=0.03 * np.abs(run(written)[0]).max())


def test_a_pair_read_in_both_types_is_dequantised_for_each_and_rounded_once() -> None:
    typed = type_half(quantised(GRAPHS["gradient-head"]())).model
    stored = {item.name: numpy_helper.to_array(item) for item in typed.graph.initializer}
    by_integers: dict[str, list[Any]] = {}
    for node in typed.graph.node:
        if node.op_type == "DequantizeLinear":
            by_integers.setdefault(node.input[0], []).append(stored[node.input[1]])
    several = [scales for scales in by_integers.values() if len(scales) == 2]
    assert several
    for one, other in several:
        assert {one.dtype, other.dtype} == {np.dtype(np.float16), np.dtype(np.float32)}
        np.testing.assert_array_equal(one.astype(np.float32), other.astype(np.float32))


def test_both_ends_of_a_pair_hold_one_scale_also_where_the_image_is_fp32() -> None:
    typed = type_half(quantised(GRAPHS["residual"]())).model
    stored = {item.name: numpy_helper.to_array(item) for item in typed.graph.initializer}
    first = next(node for node in typed.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image")
    reader = next(node for node in typed.graph.node if node.input and node.input[0] == first.output[0])
    scales = [stored[node.input[1]] for node in (first, reader)]
    assert [scale.dtype for scale in scales] == [np.float32, np.float16]
    assert float(scales[0]) == float(scales[1])


# Refusals


def with_modules(model: Any) -> Any:
    for node in model.graph.node:
        set_origin(node, f"module.of.{node.op_type}", ())
    return model


@pytest.mark.parametrize("value", [7e4, -1e9])
def test_stored_values_beyond_the_range_are_refused_by_node_and_module(value: float) -> None:
    g = GraphBuilder()
    x = g.op("Add", g.conv("image", 3, 16), g.constant(np.full((1, 16, 1, 1), value)))
    model = with_modules(headed(g, g.relu(g.conv(x, 16, 16))))
    with pytest.raises(BadInputError, match="beyond") as raised:
        type_half(model)
    assert raised.value.where == "Add 'node_Add_1' of module 'module.of.Add'"
    assert "65504" in str(raised.value.expected)
    assert f"{abs(value):g}" in str(raised.value.found)
    assert "fp32" in str(raised.value.hint)


def test_infinity_that_is_stored_is_meant() -> None:
    g = GraphBuilder()
    bound = g.constant(np.full((1, 16, 1, 1), np.inf))
    model = headed(g, g.conv(g.op("Min", g.conv("image", 3, 16), bound), 16, 16))
    assert np.isfinite(run(type_half(model).model)[0]).all()


@pytest.mark.parametrize("largest", [65505.0, np.inf, np.nan])
def test_measured_values_beyond_the_range_are_refused(largest: float) -> None:
    model = GRAPHS["residual"]()
    asked: list[str] = []

    def measure(names: Any) -> Mapping[str, float]:
        asked.extend(names)
        return {names[3]: largest}

    with pytest.raises(BadInputError, match="beyond") as raised:
        type_half(model, measure=measure)
    assert asked[3] in str(raised.value.found)
    known = {name for node in model.graph.node for name in node.output}
    assert set(asked) <= known
    assert type_half(model, measure=lambda names: dict.fromkeys(names, 65504.0)).half["Conv"] == 8


def test_a_scale_that_spans_more_than_fp16_is_refused() -> None:
    written = quantised(GRAPHS["residual"]())
    pairs = (node for node in written.graph.node if node.op_type == "DequantizeLinear")
    pair = next(node for node in pairs if "relu" in node.output[0])
    replace_stored(written, pair.input[1], 600.0)
    with pytest.raises(BadInputError, match="beyond") as raised:
        type_half(written)
    assert "76800" in str(raised.value.found)


def test_a_graph_that_has_fp16_types_is_refused() -> None:
    with pytest.raises(BadInputError, match="already"):
        type_half(type_half(GRAPHS["residual"]()).model)


def test_an_output_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInputError, match="no such output") as raised:
        type_half(GRAPHS["residual"](), logits="scores")
    assert raised.value.found == "logits, attribution"


def test_types_that_contradict_are_refused() -> None:
    model = GRAPHS["residual"]()
    model.graph.node[0].input[0] = "class_index"
    with pytest.raises(BadInputError, match="types of the graph"):
        type_half(model)


def test_the_source_is_not_changed_and_is_named() -> None:
    model = quantised(GRAPHS["residual"]())
    before = model.SerializeToString(deterministic=True)
    typed = type_half(model, source="0" * 64).model
    assert model.SerializeToString(deterministic=True) == before
    assert {item.key: item.value for item in typed.metadata_props} == {SOURCE_KEY: "0" * 64}
    again = type_half(model, source="0" * 64).model
    assert typed.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def test_casts_belong_to_the_module_they_stand_behind() -> None:
    typed = type_half(with_modules(unary("Exp"))).model
    casts = [
        node for node in typed.graph.node if node.op_type == "Cast" and node.output[0].endswith(("/half", "/single"))
    ]
    assert {item.value for node in casts for item in node.metadata_props} >= {"module.of.Conv", "module.of.Exp"}


# Operator sets


@pytest.mark.parametrize("opset", [17, 18, 19, 20, 21])
@pytest.mark.parametrize("name", ["residual", "shuffled", "padded-shortcut"])
def test_a_graph_is_raised_to_the_set_with_fp16_scales_and_answers_the_same(name: str, opset: int) -> None:
    model = GRAPHS[name]()
    if opset == 17:
        model = downgraded(model)
    else:
        model.opset_import[0].version = opset
    found = raised(model)
    assert found.opset_import[0].version == max(opset, HALF_OPSET)
    onnx.checker.check_model(found, full_check=True)
    for one, other in zip(run(model), run(found), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_split_without_sizes_is_told_how_many() -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 2]) for name in ("x", "a", "b")]
    node = helper.make_node("Split", ["x"], ["a", "b"], axis=0)
    model = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:]))
    for each in value[1:]:
        each.type.tensor_type.shape.dim[0].dim_value = 2
    del model.graph.output[:]
    model.graph.output.extend(value[1:])
    model.opset_import[0].version = 17
    found = raised(model)
    onnx.checker.check_model(found, full_check=True)
    assert {item.name: item.i for item in found.graph.node[0].attribute} == {"axis": 0, "num_outputs": 2}


@pytest.mark.parametrize(
    ("op_type", "opset", "words"), [("GroupNormalization", 18, ""), ("Mish", 17, "Mish"), ("Relu", 12, "12")]
)
def test_operators_that_changed_and_old_sets_are_refused(op_type: str, opset: int, words: str) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in ("x", "y")]
    node = helper.make_node(op_type, ["x"], ["y"], name="one")
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    model.opset_import[0].version = opset
    if not words:
        assert raised(model).opset_import[0].version == HALF_OPSET
        return
    with pytest.raises(BadInputError, match="operator set") as caught:
        raised(model)
    assert words in str(caught.value.found)
