"""Gradients of whole explained graphs, map branch included, against torch's autograd on the same nodes in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from explained_graphs import GRAPHS
from exported import export_afresh, exported, loaded
from networks import CASES, LAYOUT_CASES
from torch.nn import functional

from edgekit.calibrate.gradients.graph import cotangent_name, gradient_graph, gradient_name, gradient_parts
from edgekit.calibrate.graph import CLASS_INDEX, IMAGE, ExplainedGraph, parse_graph
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.qat.nodes import NodeView
from edgekit.qat.operations import OPERATIONS
from edgekit.teacher.options import MapOptions

Array = npt.NDArray[Any]
BATCH = 3


# What only map branches hold, beside the operators of forward paths.


def _arg_max(node: NodeView, inputs: list[torch.Tensor]) -> torch.Tensor:
    return inputs[0].argmax(dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))


def _conv_transpose(node: NodeView, inputs: list[torch.Tensor]) -> torch.Tensor:
    weight = inputs[1]
    count = weight.dim() - 2
    pads = list(node.get("pads", [0] * 2 * count))
    assert pads[:count] == pads[count:], "as torch exports them"
    bias = inputs[2] if len(inputs) > 2 else None
    strides, dilations = list(node.get("strides", [1] * count)), list(node.get("dilations", [1] * count))
    left_over, group = list(node.get("output_padding", [0] * count)), node.get("group", 1)
    return functional.conv_transpose2d(inputs[0], weight, bias, strides, pads[:count], left_over, group, dilations)


def _cast(node: NodeView, inputs: list[torch.Tensor]) -> torch.Tensor:
    kinds = {1: torch.float64, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64}
    return inputs[0].to(kinds[node.get("to", 1)])


def _reduce_min(node: NodeView, inputs: list[torch.Tensor]) -> torch.Tensor:
    return inputs[0].amin([int(axis) for axis in inputs[1]], bool(node.get("keepdims", 1)))


MAP_OPERATIONS: dict[str, Any] = {
    "And": lambda _, x: x[0] & x[1],
    "ArgMax": _arg_max,
    "Cast": _cast,
    "ConvTranspose": _conv_transpose,
    "Equal": lambda _, x: x[0] == x[1],
    "Greater": lambda _, x: x[0] > x[1],
    "GreaterOrEqual": lambda _, x: x[0] >= x[1],
    "Less": lambda _, x: x[0] < x[1],
    "LessOrEqual": lambda _, x: x[0] <= x[1],
    "Or": lambda _, x: x[0] | x[1],
    "ReduceMin": _reduce_min,
    "Where": lambda _, x: torch.where(x[0], x[1], x[2]),
}


def _plain(item: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(item)
    return value.decode() if isinstance(value, bytes) else value


def computed_by_torch(graph: ExplainedGraph, feeds: dict[str, Array]) -> dict[str, torch.Tensor]:
    """Every computed tensor, in float64, gradients kept."""
    values: dict[str, torch.Tensor] = {}
    for name, array in feeds.items():
        values[name] = torch.from_numpy(array.astype(np.float64) if array.dtype == np.float32 else array)
    values[IMAGE].requires_grad_()
    for name in graph.constant_names:
        array = np.array(graph.constant(name))
        values[name] = torch.from_numpy(array.astype(np.float64) if array.dtype == np.float32 else array)
    for node in graph.nodes:
        if node.op_type == "Constant":
            continue
        view = NodeView(node.op_type, node.name, {item.name: _plain(item) for item in node.attribute}, len(node.output))
        operation = MAP_OPERATIONS.get(node.op_type) or OPERATIONS[node.op_type]
        result = operation(view, [values[name] if name else None for name in node.input])
        for name, tensor in zip(node.output, result if isinstance(result, tuple) else (result,), strict=False):
            values[name] = tensor
            if tensor.is_floating_point():
                # What a comparison made depends on nothing, and the outputs may still depend on it.
                tensor.retain_grad() if tensor.requires_grad else tensor.requires_grad_()
    return values


def float_tensors(graph: ExplainedGraph) -> list[str]:
    return [IMAGE, *(name for name in graph.producer if name in graph.shapes and not graph.is_constant(name))]


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    read = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {k: v for k, v in feeds.items() if k in read}), strict=True))


def check(graph: ExplainedGraph, images: Array) -> None:
    """Every float tensor's gradient by a random weighing of all outputs, by both forms of the gradient graph."""
    rng = np.random.default_rng(0)
    index = next(value for value in graph.model.graph.input if value.name == CLASS_INDEX)
    columns = [dim.dim_value for dim in index.type.tensor_type.shape.dim][1:]
    feeds: dict[str, Array] = {IMAGE: images, CLASS_INDEX: rng.integers(0, 2, (len(images), *columns)).astype(np.int32)}
    truth = computed_by_torch(graph, feeds)
    outputs = [value.name for value in graph.model.graph.output]
    for name in outputs:
        feeds[cotangent_name(name)] = rng.normal(size=tuple(truth[name].shape)).astype(np.float32)
    terms = [(truth[name] * torch.from_numpy(feeds[cotangent_name(name)])).sum() for name in outputs]
    torch.stack(terms).sum().backward()

    tensors = float_tensors(graph)
    model = gradient_graph(graph, tensors)
    onnx.checker.check_model(model, full_check=True)
    found = run(model, feeds)
    parts = gradient_parts(graph, tensors)
    held = feeds | run(parts.forward, feeds)
    assert set(parts.kept) <= set(held)
    apart = run(parts.backward, held)
    moved = 0
    for name in tensors:
        expected = truth[name].grad
        wanted = np.zeros(tuple(truth[name].shape)) if expected is None else expected.numpy()
        moved += bool(np.any(wanted))
        given = found[gradient_name(name)]
        assert given.dtype == np.float32
        assert given.shape == wanted.shape
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max() + 1e-7, err_msg=name)
        np.testing.assert_allclose(
            apart[gradient_name(name)], given, rtol=1e-4, atol=1e-5 * np.abs(wanted).max() + 1e-8
        )
        if name != IMAGE:
            np.testing.assert_allclose(found[name], truth[name].detach().numpy(), rtol=1e-3, atol=1e-4)
            np.testing.assert_array_equal(held[name].shape, found[name].shape)
    assert moved > len(tensors) // 3


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_made_by_hand(name: str) -> None:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    check(graph, np.random.default_rng(1).normal(size=(BATCH, 3, 16, 16)).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "tap"),
    [
        ("residual", "layer1"),
        ("vgg", "features.1"),
        ("mobile", "block1"),
        ("norms", "features"),
    ],
)
def test_exported_networks(name: str, tap: str) -> None:
    graph = parse_graph(exported(name, tap).model.SerializeToString(), where=name)
    check(graph, CASES[name].images(BATCH).numpy())


def test_an_older_operator_set() -> None:
    graph = parse_graph(export_afresh("dense", "grow1", opset=17).model.SerializeToString(), where="dense")
    check(graph, CASES["dense"].images(BATCH).numpy())


def test_several_classes_and_another_method() -> None:
    options = MapOptions(method="layer-cam", classes=2)
    graph = parse_graph(export_afresh("inverted", "project", maps=options).model.SerializeToString(), where="inverted")
    check(graph, CASES["inverted"].images(BATCH).numpy())


@pytest.mark.slow
def test_a_network_of_tokens() -> None:
    case = LAYOUT_CASES["class-token"]
    raw = explained_onnx(loaded(case, case.found), MapOptions(), use_closed_form=True, opset=18)  # type: ignore[arg-type]
    model = cleaned_onnx(raw, lambda _: None)[0].model
    check(parse_graph(model.SerializeToString(), where="tokens"), case.images(BATCH).numpy())
