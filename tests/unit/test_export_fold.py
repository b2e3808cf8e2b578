"""Folding batch normalisation: the same function, and only where it is allowed."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.export.fold import fold_batch_norm

CHANNELS = 4
IMAGE = (2, 3, 6, 5)


class Graph:
    """A graph under construction, with seeded weights."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int, low: float = -1.0, high: float = 1.0) -> str:
        array = self.rng.uniform(low, high, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, source: str, output: str, *, weight: str | None = None, bias: bool = False, inputs: int = 3) -> str:
        names = [source, weight or self.weight(f"{output}.w", CHANNELS, inputs, 3, 3)]
        if bias:
            names.append(self.weight(f"{output}.b", CHANNELS))
        self.nodes.append(helper.make_node("Conv", names, [output], pads=[1, 1, 1, 1]))
        return output

    def norm(self, source: str, output: str, *, channels: int = CHANNELS, **attributes: float) -> str:
        names = [
            source,
            self.weight(f"{output}.gamma", channels),
            self.weight(f"{output}.beta", channels),
            self.weight(f"{output}.mean", channels),
            self.weight(f"{output}.var", channels, low=0.01, high=2.0),
        ]
        self.nodes.append(helper.make_node("BatchNormalization", names, [output], **attributes))
        return output

    def add(self, kind: str, sources: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, sources, [output], **attributes))
        return output

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *IMAGE[1:]])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None, None, None]) for name in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(1).normal(size=IMAGE).astype(np.float32)})


def check_folded(model: onnx.ModelProto, folds: int, left: int = 0) -> onnx.ModelProto:
    """Fold, and compare what the two graphs say."""
    folded = copy.deepcopy(model)
    assert fold_batch_norm(folded) == folds
    onnx.checker.check_model(folded, full_check=True)
    for before, after in zip(run(model), run(folded), strict=True):
        np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)
    assert Counter(node.op_type for node in folded.graph.node)["BatchNormalization"] == left
    names = [tensor.name for tensor in folded.graph.initializer]
    assert len(names) == len(set(names))
    assert set(names) == {name for node in folded.graph.node for name in node.input} & set(names)
    assert [value.name for value in folded.graph.output] == [value.name for value in model.graph.output]
    return folded


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("epsilon", [None, 1e-5, 1e-3, 0.5])
def test_a_convolution_and_its_normalisation(bias: bool, epsilon: float | None) -> None:
    graph = Graph()
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    graph.norm(graph.conv("x", "c", bias=bias), "y", **attributes)
    folded = check_folded(graph.model("y"), folds=1)
    assert [node.op_type for node in folded.graph.node] == ["Conv"]


def test_on_paper() -> None:
    """gamma 2, beta 1, mean 3, variance 0.25 and epsilon 0: y = 2 (w x + b - 3) / 0.5 + 1 = 4 w x + 4 b - 11."""
    graph = Graph()
    graph.add("Conv", ["x", "w", "b"], "c")
    graph.add("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], "y", epsilon=0.0)
    for name, value in {"gamma": 2.0, "beta": 1.0, "mean": 3.0, "var": 0.25, "b": 0.5}.items():
        graph.weights.append(numpy_helper.from_array(np.array([value], dtype=np.float32), name))
    graph.weights.append(numpy_helper.from_array(np.array([1, -2, 0.5], dtype=np.float32).reshape(1, 3, 1, 1), "w"))
    model = graph.model("y")
    assert fold_batch_norm(model) == 1
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    (conv,) = model.graph.node
    assert weights[conv.input[1]].ravel().tolist() == [4.0, -8.0, 2.0]
    assert weights[conv.input[2]].tolist() == [-9.0]


def test_a_chain_of_them() -> None:
    graph = Graph()
    first = graph.add("Relu", [graph.norm(graph.conv("x", "c1"), "n1")], "r1")
    graph.norm(graph.conv(first, "c2", bias=True, inputs=CHANNELS), "y")
    check_folded(graph.model("y"), folds=2)


def test_two_normalisations_behind_one_convolution() -> None:
    graph = Graph()
    graph.norm(graph.norm(graph.conv("x", "c"), "n"), "y")
    check_folded(graph.model("y"), folds=2)


def test_a_weight_that_two_convolutions_share_with_different_normalisations() -> None:
    graph = Graph()
    shared = graph.weight("shared", CHANNELS, 3, 3, 3)
    one = graph.norm(graph.conv("x", "c1", weight=shared), "n1")
    graph.add("Neg", ["x"], "minus")
    other = graph.norm(graph.conv("minus", "c2", weight=shared), "n2")
    graph.add("Sub", [one, other], "y")
    folded = check_folded(graph.model("y", "n1", "n2"), folds=2)
    assert "shared" not in {tensor.name for tensor in folded.graph.initializer}


def test_a_weight_that_something_else_reads_stays() -> None:
    """The gradient of a map reads the unfolded weight: the reason why this pass exists."""
    graph = Graph()
    shared = graph.weight("shared", CHANNELS, 3, 3, 3)
    out = graph.norm(graph.conv("x", "c", weight=shared), "n")
    graph.add("ConvTranspose", [out, shared], "y", pads=[1, 1, 1, 1])
    folded = check_folded(graph.model("y"), folds=1)
    assert "shared" in {tensor.name for tensor in folded.graph.initializer}


def test_a_convolution_that_is_read_twice_stays() -> None:
    graph = Graph()
    conv = graph.conv("x", "c")
    graph.add("Add", [graph.norm(conv, "n"), conv], "y")
    check_folded(graph.model("y"), folds=0, left=1)


def test_a_convolution_that_is_an_output_stays() -> None:
    graph = Graph()
    graph.norm(graph.conv("x", "c"), "y")
    check_folded(graph.model("c", "y"), folds=0, left=1)


def test_a_normalisation_without_a_convolution_stays() -> None:
    graph = Graph()
    graph.add("Relu", [graph.norm(graph.add("Relu", ["x"], "r"), "n", channels=3)], "y")
    check_folded(graph.model("y"), folds=0, left=1)
    graph = Graph()
    graph.norm("x", "y", channels=3)
    check_folded(graph.model("y"), folds=0, left=1)


def test_something_in_between_keeps_them_apart() -> None:
    graph = Graph()
    graph.norm(graph.add("Relu", [graph.conv("x", "c")], "r"), "y")
    check_folded(graph.model("y"), folds=0, left=1)


def test_a_transposed_convolution_stays() -> None:
    graph = Graph()
    graph.add("ConvTranspose", ["x", graph.weight("w", 3, CHANNELS, 2, 2)], "c", strides=[2, 2])
    graph.norm("c", "y")
    check_folded(graph.model("y"), folds=0, left=1)


def test_parameters_that_are_computed_stay() -> None:
    graph = Graph()
    graph.norm(graph.conv("x", "c"), "y")
    gamma = graph.nodes[-1].input[1]
    graph.nodes[-1].input[1] = "computed"
    graph.nodes.insert(0, helper.make_node("Neg", [gamma], ["computed"]))
    check_folded(graph.model("y"), folds=0, left=1)


def test_strides_groups_and_dilations_do_not_matter() -> None:
    graph = Graph()
    names = ["x", graph.weight("w", 6, 1, 3, 3)]
    graph.add("Conv", names, "c", group=3, strides=[2, 1], dilations=[1, 2])
    graph.norm("c", "y", channels=6)
    check_folded(graph.model("y"), folds=1)


def test_a_graph_without_any_is_left_as_it_is() -> None:
    graph = Graph()
    graph.add("Relu", [graph.conv("x", "c", bias=True)], "y")
    model = graph.model("y")
    before = model.SerializeToString(deterministic=True)
    assert fold_batch_norm(model) == 0
    assert model.SerializeToString(deterministic=True) == before
