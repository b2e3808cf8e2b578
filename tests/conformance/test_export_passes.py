"""Every registered clean-up pass: the same function, its promise kept, once is enough, and undone where it breaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from explained_graphs import GRAPHS
from exported import raw_export
from onnx import TensorProto, helper, numpy_helper

from edgekit.export.origin import module_of_node
from edgekit.export.passes.protocol import PassReport
from edgekit.export.passes.registry import ORDER, PASSES
from edgekit.export.passes.runner import clean_up

EXPORTED = [
    ("residual", "layer1"),
    ("mobile", "block1"),
    ("dense", "grow1"),
    ("norms", "features"),
    ("vgg", "features.1"),
]


def littered() -> onnx.ModelProto:
    """One graph with everything that the passes are there to remove."""
    rng = np.random.default_rng(0)
    floats = {
        "w": rng.normal(size=(4, 3, 3, 3)),
        "gamma": rng.uniform(0.5, 2, 4),
        "beta": rng.normal(size=4),
        "mean": rng.normal(size=4),
        "var": rng.uniform(0.5, 2, 4),
        "scale": rng.uniform(0.5, 2, 5),
        "bias": rng.normal(size=5),
        "two": np.array(2.0),
        "two again": np.array(2.0),
        "unread": rng.normal(size=7),
        "fc": rng.normal(size=(4, 6)),
    }
    ints = {"zero": [0], "four": [4], "rest": [-1], "one": [1], "hw": [2, 3]}
    constants = [numpy_helper.from_array(np.asarray(value, dtype=np.float32), name) for name, value in floats.items()]
    constants += [numpy_helper.from_array(np.asarray(value, dtype=np.int64), name) for name, value in ints.items()]
    node = helper.make_node
    nodes = [
        node("Identity", ["image"], ["same"]),
        node("Dropout", ["same"], ["kept"]),
        node("Conv", ["kept", "w"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["n"]),
        node("LayerNormalization", ["n", "scale", "bias"], ["ln", "ln_mean", "ln_dev"], axis=-1),
        node("Mul", ["n", "two"], ["twice"]),
        node("Mul", ["n", "two again"], ["twice again"]),
        node("Add", ["twice", "twice again"], ["four times"]),
        node("Shape", ["four times"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"]),
        node("Concat", ["batch", "four", "rest"], ["flat shape"], axis=0),
        node("Reshape", ["four times", "flat shape"], ["flat"]),
        node("ReduceMean", ["ln", "hw"], ["pooled"], keepdims=0),
        node("MatMul", ["pooled", "fc"], ["logits"]),
        node("Sub", ["n", "ln_mean"], ["centred"]),
        node("Mul", ["centred", "ln_dev"], ["normal"]),
        node("ReduceMean", ["four times", "hw"], ["weights"], keepdims=1),
        node("Concat", ["batch", "four", "six", "five"], ["map shape"], axis=0),
        node("Expand", ["weights", "map shape"], ["spread"]),
        node("Mul", ["spread", "normal"], ["product"]),
        node("ReduceSum", ["product", "one"], ["summed"], keepdims=0),
        node("Relu", ["summed"], ["rectified"]),
        node("Identity", ["rectified"], ["attribution"]),
        node("Exp", ["flat"], ["dead"]),
        node("Constant", [], ["known"], value=numpy_helper.from_array(np.ones(3, np.float32))),
        node("Neg", ["known"], ["dead too"]),
    ]
    constants += [numpy_helper.from_array(np.array([n], dtype=np.int64), name) for name, n in (("six", 6), ("five", 5))]
    graph = helper.make_graph(
        nodes,
        "littered",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 6, 5]),
            helper.make_tensor_value_info("class_index", TensorProto.INT32, ["batch"]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 6]),
            helper.make_tensor_value_info("attribution", TensorProto.FLOAT, ["batch", 6, 5]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


MODELS = {
    "littered": littered,
    **GRAPHS,
    **{f"{name}-{tap}": cache(lambda name=name, tap=tap: raw_export(name, tap).model) for name, tap in EXPORTED},
}


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    """By ONNX Runtime, node by node. ONNX's own reference cannot run grouped transposed convolutions."""
    sides = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    images = np.random.default_rng(3).normal(size=(3, *sides)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images, "class_index": np.array([-1, 0, 1], dtype=np.int32)})


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


@cache
def before(name: str) -> list[np.ndarray]:
    return answers(MODELS[name]())


def test_the_order_names_every_pass_once() -> None:
    assert sorted(ORDER) == sorted(PASSES)
    assert all(PASSES.load(name).name == name for name in PASSES)


@pytest.mark.parametrize("name", PASSES.names())
@pytest.mark.parametrize("graph", MODELS)
def test_the_function_is_kept_the_promise_holds_and_once_is_enough(name: str, graph: str) -> None:
    item = PASSES.load(name)
    model = copy_of(MODELS[graph]())
    assert item.obstacle(model) is None
    broken_before = item.violation(model)
    changes = item.apply(model)
    assert item.violation(model) is None
    assert bool(changes) or broken_before is None
    onnx.checker.check_model(model, full_check=True)
    for old, new in zip(before(graph), answers(model), strict=True):
        np.testing.assert_allclose(new, old, rtol=2e-4, atol=2e-5 * np.abs(old).max())
    again = copy_of(model)
    assert item.apply(again) == 0
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", PASSES.names())
def test_every_pass_has_something_to_do_in_the_littered_graph(name: str) -> None:
    item = PASSES.load(name)
    assert item.violation(littered()) is not None
    assert item.apply(littered()) > 0


def test_all_passes_leave_the_littered_graph_clean() -> None:
    cleaned = clean_up(littered(), lambda _model: None)
    assert [report.rolled_back for report in cleaned.reports] == [None] * len(ORDER)
    assert all(PASSES.load(name).violation(cleaned.model) is None for name in ORDER)
    kinds = Counter(node.op_type for node in cleaned.model.graph.node)
    assert not {"Identity", "Dropout", "Shape", "Gather", "Concat", "Constant", "BatchNormalization", "Exp"} & set(
        kinds
    )
    assert {node.op_type: len(node.output) for node in cleaned.model.graph.node}["LayerNormalization"] == 1
    for old, new in zip(before("littered"), answers(cleaned.model), strict=True):
        np.testing.assert_allclose(new, old, rtol=2e-4, atol=2e-5 * np.abs(old).max())


@pytest.mark.parametrize(("name", "tap"), EXPORTED)
def test_modules_keep_their_names(name: str, tap: str) -> None:
    raw = MODELS[f"{name}-{tap}"]()
    cleaned = clean_up(raw, lambda _model: None).model
    assert {module_of_node(node) for node in cleaned.graph.node} <= {module_of_node(node) for node in raw.graph.node}
    assert "map" in {module_of_node(node) for node in cleaned.graph.node}


def test_a_batch_norm_in_training_mode_is_an_obstacle() -> None:
    model = littered()
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["m", "v"])
    assert "training mode" in str(PASSES.load("fold-batch-norm").obstacle(model))


class Told:
    """Keeps what an observer is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage_started(self, stage: str) -> None: ...

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None: ...

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None: ...

    def noted(self, message: str) -> None:
        self.notes.append(message)


@dataclass(frozen=True)
class Broken:
    """Changes a weight, or says what is not so."""

    name: str = "broken"
    needs: str = "a good day"
    promise: str = "nothing is harmed"
    blocked: str | None = None
    broken_promise: str | None = None
    invalid: bool = False

    def obstacle(self, model: onnx.ModelProto) -> str | None:
        return self.blocked

    def apply(self, model: onnx.ModelProto) -> int:
        weight = next(item for item in model.graph.initializer if item.name == "w")
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.1, "w"))
        if self.invalid:
            model.graph.node[2].op_type = "NoSuchOperator"
        return 1

    def violation(self, model: onnx.ModelProto) -> str | None:
        return self.broken_promise


def differs(model: onnx.ModelProto) -> str | None:
    found = max(float(np.abs(old - new).max()) for old, new in zip(before("littered"), answers(model), strict=True))
    return None if found < 1e-4 else f"by {found:.1f}"


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (Broken(), "answers differently: by"),
        (Broken(blocked="it rains"), "needs a good day, but it rains"),
        (Broken(broken_promise="a weight is"), "promises that nothing is harmed, but a weight is"),
        (Broken(invalid=True), "not valid ONNX"),
    ],
)
def test_a_broken_pass_is_undone_and_reported(item: Broken, why: str) -> None:
    told = Told()
    original = littered()
    cleaned = clean_up(original, differs, told, [item, PASSES.load("drop-identities")])
    first, second = cleaned.reports
    assert first.name == "broken"
    assert first.changes == 0
    assert why in str(first.rolled_back)
    assert second == PassReport("drop-identities", 3)
    assert len(told.notes) == 1
    assert "'broken' was undone" in told.notes[0]
    assert why in told.notes[0]
    assert differs(cleaned.model) is None
    assert original.SerializeToString() == littered().SerializeToString()
