"""Graphs with FP16 types against the same graphs with FP32 types, run by ONNX Runtime; and what the types are.

Nothing here is TensorRT. ONNX Runtime's CPU rounds tensors to FP16 where the graph says so, and computes many
operations between them in FP32.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from explained_graphs import GRAPHS, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.half_copy import largest_magnitudes
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph
from edgekit.calibrate.tensorrt_rules import check_tensorrt_rules
from edgekit.half.typed import type_half

IMAGES = random_images(8, seed=3).pixels
CLASSES = np.array([-1, 0, 1, 2, 3, 4, -1, 0], np.int32)


def answers(model: Any, wanted: list[str] | None = None) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The graph as it is written: a fused kernel would round a float bias into int32, where small scales overflow it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(wanted, {"image": IMAGES, "class_index": CLASSES})
    return found


@cache
def quantised(name: str, seed: int = 0) -> Any:
    graph = parse_graph(GRAPHS[name](seed).SerializeToString(), where=name)
    options = CalibrateOptions(method="minmax")
    return quantise_graph(graph, random_images(), number_format("trt-s8s8"), options).model


def drift(reference: list[Any], found: list[Any]) -> list[float]:
    """Largest difference of each output, of its largest value."""
    return [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(reference, found, strict=True)]


def types_of(model: Any) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {item.name: item.data_type for item in model.graph.initializer}


@pytest.mark.parametrize("name", GRAPHS)
def test_float_graphs_lose_what_eleven_bits_lose(name: str) -> None:
    model = GRAPHS[name]()
    found = drift(answers(model), answers(type_half(model).model))
    assert all(0 < each < 2e-3 for each in found), found


@pytest.mark.parametrize("name", GRAPHS)
def test_quantised_graphs_move_by_steps_of_the_grid_at_most(name: str) -> None:
    """A value next to the middle of two steps falls the other way, and nothing worse happens."""
    model = quantised(name)
    logits, attribution = drift(answers(model), answers(type_half(model).model))
    assert 0 < logits < 0.02
    assert attribution < 0.04


@pytest.mark.parametrize("name", GRAPHS)
def test_quantised_graphs_stay_as_near_to_the_float_graph(name: str) -> None:
    """The FP16 types may add a part of what INT8 costs anyway, and no more."""
    model, exact = quantised(name), answers(GRAPHS[name]())
    before, after = (np.abs(exact[0] - answers(each)[0]).mean() for each in (model, type_half(model).model))
    assert after < 1.3 * before + 1e-3


@pytest.mark.parametrize("name", GRAPHS)
def test_types_are_consistent_and_rules_kept(name: str) -> None:
    model = quantised(name)
    typed = type_half(model)
    assert check_tensorrt_rules(typed.model) == ()
    types = types_of(typed.model)
    for side in ("input", "output"):
        assert [(value.name, types[value.name]) for value in getattr(typed.model.graph, side)] == [
            (value.name, value.type.tensor_type.elem_type) for value in getattr(model.graph, side)
        ]
    convolutions = [node for node in typed.model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert {types[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}
    # No cast comes between a DequantizeLinear and what it fuses with.
    made = {name: node for node in typed.model.graph.node for name in node.output}
    for node in convolutions:
        sources = [made[name].op_type for name in node.input[:2] if name in made]
        assert "Cast" not in sources or "DequantizeLinear" not in sources


@pytest.mark.parametrize("name", GRAPHS)
def test_the_map_branch_and_the_logits_are_computed_in_fp32(name: str) -> None:
    typed = type_half(quantised(name)).model
    types = types_of(typed)
    makers = {name: node for node in typed.graph.node for name in node.output}
    forward, pending = set(), ["logits"]
    while pending:
        tensor = pending.pop()
        if tensor in makers and tensor not in forward:
            forward.add(tensor)
            pending += list(makers[tensor].input)
    own = [node for node in typed.graph.node if node.output[0] not in forward]
    assert own
    assert {types[node.output[0]] for node in own} & {TensorProto.FLOAT16} == set()
    assert types[makers["logits"].input[0]] == TensorProto.FLOAT


def pairs_by_integers(model: Any) -> dict[str, Any]:
    """Output of every QuantizeLinear of stored weights, by name, computed in float64."""
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in stored:
            values, scale = stored[node.input[0]].astype(np.float64), stored[node.input[1]].astype(np.float64)
            shape = [1] * values.ndim
            shape[node.attribute[0].i] = -1
            found[node.output[0]] = np.clip(np.rint(values / scale.reshape(shape)), -128, 127)
    return found


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(sorted(GRAPHS)), seed=st.integers(0, 2**16))
def test_stored_weights_become_the_same_integers(name: str, seed: int) -> None:
    model = quantised.__wrapped__(name, seed)
    before, after = pairs_by_integers(model), pairs_by_integers(type_half(model).model)
    assert before
    assert before.keys() == after.keys()
    for tensor, integers in before.items():
        np.testing.assert_array_equal(integers, after[tensor])


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from(sorted(GRAPHS)), seed=st.integers(0, 2**16), exponent=st.integers(-8, 4))
def test_weights_of_any_size_give_a_graph_that_agrees(name: str, seed: int, exponent: int) -> None:
    """Weights scaled by 2^-8 to 2^4: from scales that FP16 cannot hold, whose operations stay in FP32, upwards."""
    model = GRAPHS[name](seed)
    first = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    for item in model.graph.initializer:
        if item.name == first:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(2.0**exponent), first))
    graph = parse_graph(model.SerializeToString(), where=name)
    written = quantise_graph(graph, random_images(), number_format("trt-s8s8"), CalibrateOptions(method="minmax")).model
    typed = type_half(written)
    types_of(typed.model)
    exact, before, after = answers(model)[0], answers(written)[0], answers(typed.model)[0]
    assert np.isfinite(after).all()
    error = np.abs(exact - before).mean()
    assert np.abs(exact - after).mean() < 1.6 * error + 2e-3 * np.abs(exact).max()


def test_measured_magnitudes_are_those_that_numpy_finds() -> None:
    model = quantised("residual")
    names = [
        node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Relu") and node.output[0][0] != "a"
    ]
    found = largest_magnitudes(model, names, IMAGES)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in names:
        watched.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    for name, values in zip(names, answers(watched, names), strict=True):
        assert found[name] == pytest.approx(float(np.abs(values).max()), rel=1e-2)
