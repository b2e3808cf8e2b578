"""Every trainable operator against ONNX Runtime, and differentiable twice where it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import BadInputError
from edgekit.qat.nodes import NodeView
from edgekit.qat.operations import OPERATIONS

RNG = np.random.default_rng(7)


def real(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.normal(0, 1, shape).astype(np.float32)


def positive(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.uniform(0.2, 2, shape).astype(np.float32)


def whole(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


MAP, KERNEL, BIAS = real(2, 4, 9, 7), real(6, 4, 3, 3), real(6)
NODES: list[tuple[str, list[Any], dict[str, Any]]] = [
    *[(kind, [real(2, 5)], {}) for kind in ("Abs", "Erf", "Exp", "HardSigmoid", "HardSwish", "Identity", "Neg")],
    *[(kind, [real(2, 5)], {}) for kind in ("Relu", "Sigmoid", "Softplus", "Softmax", "Tanh", "LeakyRelu", "Elu")],
    *[(kind, [positive(2, 5)], {}) for kind in ("Log", "Reciprocal", "Sqrt")],
    *[(kind, [real(2, 1, 5), real(3, 1)], {}) for kind in ("Add", "Sub", "Mul", "Max", "Min")],
    ("MatMul", [real(2, 3, 4), real(4, 5)], {}),
    ("Div", [real(2, 5), positive(5)], {}),
    ("Div", [whole(7, -7), whole(2, 2)], {}),
    ("Pow", [positive(2, 5), np.float32(3)], {}),
    ("PRelu", [real(2, 4, 3, 3), real(4, 1, 1)], {}),
    ("HardSigmoid", [real(2, 5)], {"alpha": 1 / 6, "beta": 0.5}),
    ("Gelu", [real(2, 5)], {}),
    ("Gelu", [real(2, 5)], {"approximate": "tanh"}),
    ("Clip", [real(2, 5), np.float32(-0.3), np.float32(0.7)], {}),
    ("Clip", [real(2, 5), None, np.float32(0.7)], {}),
    ("Cast", [whole(1, 2)], {"to": TensorProto.FLOAT}),
    ("Conv", [MAP, KERNEL, BIAS], {"pads": [1, 1, 1, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", [MAP, KERNEL], {"pads": [0, 1, 2, 0]}),
    ("Conv", [MAP, KERNEL], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [MAP, KERNEL], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", [MAP, KERNEL], {"auto_pad": "VALID"}),
    ("Conv", [MAP, real(8, 1, 3, 3), real(8)], {"group": 4}),
    ("Conv", [real(2, 4, 9), real(6, 4, 3)], {"pads": [1, 1]}),
    ("Gemm", [real(2, 4), real(4, 3), real(3)], {}),
    ("Gemm", [real(4, 2), real(3, 4), real(3)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [real(2, 4), real(4, 3)], {"alpha": 0.5}),
    ("MaxPool", [MAP], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [MAP], {"kernel_shape": [3, 2], "pads": [0, 1, 2, 0]}),
    ("MaxPool", [MAP], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [MAP], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", [MAP], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("AveragePool", [MAP], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "count_include_pad": 1}),
    ("AveragePool", [MAP], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0]}),
    ("AveragePool", [MAP], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("GlobalAveragePool", [MAP], {}),
    ("GlobalMaxPool", [MAP], {}),
    ("BatchNormalization", [MAP, real(4), real(4), real(4), positive(4)], {"epsilon": 1e-3}),
    ("InstanceNormalization", [MAP, real(4), real(4)], {}),
    ("LayerNormalization", [real(2, 3, 5), real(5), real(5)], {}),
    ("LayerNormalization", [real(2, 3, 5), real(3, 5)], {"axis": 1}),
    ("ReduceMean", [MAP, whole(2, 3)], {"keepdims": 0}),
    ("ReduceMean", [MAP], {}),
    ("ReduceMean", [MAP], {"noop_with_empty_axes": 1}),
    ("ReduceSum", [MAP, whole(-1)], {}),
    ("ReduceMax", [MAP, whole(1)], {}),
    ("ReduceL2", [MAP, whole(1)], {}),
    ("Concat", [real(2, 3), real(2, 1)], {"axis": -1}),
    ("Flatten", [MAP], {"axis": 2}),
    ("Reshape", [MAP, whole(0, -1)], {}),
    ("Transpose", [MAP], {"perm": [0, 2, 3, 1]}),
    ("Transpose", [MAP], {}),
    ("Squeeze", [real(2, 1, 3, 1), whole(1, -1)], {}),
    ("Squeeze", [real(2, 1, 3)], {}),
    ("Unsqueeze", [real(2, 3), whole(0, -1)], {}),
    ("Slice", [MAP, whole(1, 0), whole(9, 5), whole(2, -1), whole(2, 3)], {}),
    ("Slice", [MAP, whole(-1), whole(-100), whole(2), whole(-2)], {}),
    ("Slice", [MAP, whole(5), whole(1), whole(2), whole(-1)], {}),
    ("Slice", [MAP, whole(1), whole(2)], {}),
    ("Split", [real(2, 7), whole(3, 4)], {"axis": 1}),
    ("Split", [real(2, 7)], {"axis": 1, "num_outputs": 2}),
    ("Pad", [MAP, whole(0, 0, 1, 2, 0, 0, 0, 1)], {}),
    ("Pad", [MAP, whole(1, 2), np.float32(0.5), whole(-1)], {}),
    ("Gather", [real(2, 5, 3), np.array(-1)], {"axis": 1}),
    ("Gather", [real(2, 5, 3), np.array([[0, -1], [2, 2]])], {"axis": 1}),
    ("Shape", [MAP], {"start": 1}),
    ("Expand", [real(3, 1), whole(2, 1, 4)], {}),
    ("Expand", [real(2, 3, 1), whole(3, 4)], {}),
]


def view(kind: str, attributes: dict[str, Any], results: int = 1) -> NodeView:
    return NodeView(kind, f"a {kind}", attributes, results)


def answer(kind: str, inputs: list[Any], attributes: dict[str, Any], results: int) -> list[npt.NDArray[Any]]:
    names = ["" if value is None else f"in_{slot}" for slot, value in enumerate(inputs)]
    outputs = [f"out_{place}" for place in range(results)]
    node = helper.make_node(kind, names, outputs, **attributes)
    stored = [
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in zip(names, inputs, strict=True)
        if value is not None
    ]
    graph = helper.make_graph([node], "one", [], [onnx.ValueInfoProto(name=name) for name in outputs], stored)
    opset = 20 if kind == "Gelu" else 18
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = onnx.shape_inference.infer_shapes(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(  # type: ignore[no-any-return]
        None, {}
    )


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"), NODES, ids=[f"{kind}-{place}" for place, (kind, _, _) in enumerate(NODES)]
)
def test_it_computes_what_the_runtime_computes(kind: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    results = 2 if kind == "Split" else 1
    wanted = answer(kind, inputs, attributes, results)
    tensors = [None if value is None else torch.from_numpy(np.array(value)) for value in inputs]
    found = OPERATIONS[kind](view(kind, attributes, results), tensors)
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(wanted)
    for tensor, array in zip(found, wanted, strict=True):
        assert tuple(tensor.shape) == array.shape
        np.testing.assert_allclose(tensor.numpy(), array, rtol=2e-6, atol=2e-6)


def test_every_operator_is_tried() -> None:
    assert set(OPERATIONS) == {kind for kind, _, _ in NODES}


@pytest.mark.parametrize(
    "kind", ["HardSwish", "HardSigmoid", "Sigmoid", "Erf", "Softmax", "Conv", "AveragePool", "MaxPool"]
)
def test_it_can_be_differentiated_twice(kind: str) -> None:
    """As matching does: of torch's own second derivatives, some functions have none."""
    inputs, attributes = next((inputs, attributes) for name, inputs, attributes in NODES if name == kind)
    tensors = [torch.from_numpy(np.array(value)).requires_grad_() for value in inputs]
    result = OPERATIONS[kind](view(kind, attributes), tensors)
    assert isinstance(result, torch.Tensor)
    (gradient,) = torch.autograd.grad((result**2).sum(), tensors[0], create_graph=True)
    (second,) = torch.autograd.grad((gradient**2).sum(), tensors[0])
    assert bool((second != 0).any())


@pytest.mark.parametrize(
    ("kind", "attributes", "results", "expected"),
    [
        ("MaxPool", {"kernel_shape": [2, 2]}, 2, "positions"),
        ("Pad", {"mode": "reflect"}, 1, "'reflect'"),
        ("BatchNormalization", {"training_mode": 1}, 1, "training mode"),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}, 1, "rounds its size up"),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, 1, "dilations"),
        ("Cast", {"to": TensorProto.FLOAT16}, 1, "float16"),
    ],
)
def test_what_it_cannot_do_is_said(kind: str, attributes: dict[str, Any], results: int, expected: str) -> None:
    tensors = [torch.zeros(1, 1, 4, 4), torch.zeros(8, dtype=torch.int64)] + [torch.zeros(1)] * 3
    with pytest.raises(BadInputError, match=expected) as caught:
        OPERATIONS[kind](view(kind, attributes, results), tensors)
    assert caught.value.where == f"a {kind}"
