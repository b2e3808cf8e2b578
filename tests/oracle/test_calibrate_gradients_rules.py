"""Every rule alone, against central differences of the ONNX reference evaluator in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgekit.calibrate.gradients.graph import cotangent_name, gradient_graph, gradient_name
from edgekit.calibrate.gradients.rules import STOPPING_OPS, VJP_RULES
from edgekit.calibrate.graph import ExplainedGraph

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class X:
    """An operand that is computed, its values spread between two bounds, none twice."""

    shape: tuple[int, ...]
    low: float = -2.3
    high: float = 2.4


@dataclass(frozen=True)
class RuleCase:
    """One operator, with computed and stored operands; None for one that is left out."""

    op: str
    operands: Sequence[X | Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 18
    # The evaluator computes some operators in float32 whatever comes in: a longer step then.
    coarse: bool = False


def ints(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def real(*shape: int, seed: int = 0, shift: float = 0.0) -> Array:
    return (np.random.default_rng(seed).normal(shift, 1, shape)).astype(np.float32)


def positive(*shape: int) -> Array:
    return np.abs(real(*shape)) + np.float32(0.5)


MAP, COLUMN = X((1, 4, 5, 6)), X((1, 3, 7))
CHOICE = np.array([[True, False, True], [False, False, True]])

CASES = [
    RuleCase("Abs", [MAP]),
    RuleCase("Add", [MAP, X((4, 1, 6))]),
    RuleCase("Add", [X((3,)), X((2, 1))]),
    RuleCase("AveragePool", [MAP], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    RuleCase(
        "AveragePool", [MAP], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1}
    ),
    RuleCase("AveragePool", [COLUMN], {"kernel_shape": [2], "strides": [2], "auto_pad": "SAME_UPPER"}),
    RuleCase("AveragePool", [X((1, 2, 4, 4, 4))], {"kernel_shape": [2, 2, 3], "strides": [1, 2, 2]}),
    RuleCase("BatchNormalization", [MAP, real(4), real(4), real(4), positive(4)], {"epsilon": 1e-2}),
    RuleCase("Cast", [MAP], {"to": TensorProto.FLOAT}, coarse=True),
    RuleCase("Clip", [MAP, np.float32(-1.0), np.float32(1.1)]),
    RuleCase("Clip", [MAP, None, np.float32(1.1)]),
    RuleCase("Clip", [MAP]),
    RuleCase("Concat", [MAP, real(1, 2, 5, 6), X((1, 3, 5, 6))], {"axis": -3}),
    RuleCase("Conv", [MAP, real(6, 4, 3, 3), real(6)], {"pads": [1] * 4}),
    RuleCase("Conv", [MAP, real(6, 2, 3, 2)], {"group": 2, "strides": [2, 3], "pads": [1, 0, 2, 1]}),
    RuleCase("Conv", [MAP, real(4, 1, 3, 3)], {"group": 4, "dilations": [1, 2], "pads": [0, 2, 1, 0]}),
    RuleCase("Conv", [MAP, real(3, 4, 1, 1)], {"strides": [2, 2]}),
    RuleCase("Conv", [MAP, real(3, 4, 1, 1)], {"pads": [1] * 4}),
    RuleCase("Conv", [MAP, real(3, 4, 3, 2)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    RuleCase("Conv", [COLUMN, real(2, 3, 3), X((2,))], {"auto_pad": "VALID"}),
    RuleCase("ConvTranspose", [MAP, real(4, 3, 3, 3), X((3,))], {"pads": [1] * 4}),
    RuleCase(
        "ConvTranspose",
        [MAP, real(4, 2, 3, 2)],
        {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 0]},
    ),
    RuleCase("ConvTranspose", [COLUMN, real(3, 2, 3)], {"strides": [2], "auto_pad": "SAME_UPPER"}),
    RuleCase("Div", [MAP, X((4, 1, 1), 0.5, 3.0)]),
    RuleCase("Elu", [MAP], {"alpha": 0.7}),
    RuleCase("Erf", [MAP], coarse=True),
    RuleCase("Exp", [MAP]),
    RuleCase("Expand", [X((4, 1)), ints(2, 1, 3)]),
    RuleCase("Flatten", [MAP], {"axis": 2}),
    RuleCase("Gather", [MAP, ints(2, 0)], {"axis": 1}),
    RuleCase("Gather", [MAP, np.array(-1)], {"axis": 2}),
    RuleCase("Gather", [MAP, np.array([[1, 3], [1, -1]])], {"axis": 1}),
    RuleCase("GatherElements", [X((3, 4)), np.array([[0, 2, 0, 1], [2, 2, 1, 1]])], {"axis": 0}),
    RuleCase("Gelu", [MAP], opset=20, coarse=True),
    RuleCase("Gelu", [MAP], {"approximate": "tanh"}, opset=20),
    RuleCase("Gemm", [X((3, 4)), X((4, 5)), X((1, 5))], {"alpha": 0.5, "beta": 2.0}),
    RuleCase("Gemm", [X((4, 3)), X((5, 4)), X((5,))], {"transA": 1, "transB": 1}),
    RuleCase("Gemm", [X((3, 4)), X((5, 4))], {"transB": 1, "alpha": 3.0}),
    RuleCase("Gemm", [X((4, 3)), X((4, 5)), real(3, 5)], {"transA": 1}),
    RuleCase("GlobalAveragePool", [MAP]),
    RuleCase("GlobalMaxPool", [MAP]),
    RuleCase("HardSigmoid", [MAP], {"alpha": 0.4, "beta": 0.45}),
    RuleCase("HardSwish", [X((1, 40), -4.03, 4.1)]),
    RuleCase("Identity", [MAP]),
    RuleCase("InstanceNormalization", [MAP, real(4), real(4)], {"epsilon": 1e-2}),
    RuleCase("LayerNormalization", [X((2, 3, 5)), real(5), real(5)], {"epsilon": 1e-2}),
    RuleCase("LayerNormalization", [X((2, 3, 5)), real(3, 5)], {"axis": 1}),
    RuleCase("LeakyRelu", [MAP], {"alpha": 0.2}),
    RuleCase("Log", [X((2, 9), 0.3, 4.0)]),
    RuleCase("LogSoftmax", [X((2, 5, 3))], {"axis": 1}),
    RuleCase("MatMul", [X((2, 3, 4)), real(4, 5)]),
    RuleCase("MatMul", [X((2, 1, 3, 4)), X((5, 4, 2))]),
    RuleCase("MatMul", [real(3, 4), X((2, 4, 5))]),
    RuleCase("MatMul", [X((4,)), X((2, 4, 5))]),
    RuleCase("MatMul", [X((2, 3, 4)), X((4,))]),
    RuleCase("MatMul", [X((4,)), X((4,))]),
    RuleCase("Max", [X((3, 4)), X((4,), -2.0, 2.1), real(3, 1)]),
    RuleCase("MaxPool", [MAP], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
    RuleCase("MaxPool", [MAP], {"kernel_shape": [2, 2], "strides": [1, 1], "dilations": [2, 1]}),
    RuleCase("MaxPool", [COLUMN], {"kernel_shape": [2], "strides": [2], "ceil_mode": 1}),
    RuleCase("Min", [X((3, 4)), np.float32(0.55)]),
    RuleCase("Mul", [MAP, X((1, 4, 1, 1))]),
    # A gate for each channel, as squeeze and excite has it, on either side.
    RuleCase("Mul", [X((1, 4, 1, 1), 0.1, 0.9), MAP]),
    RuleCase("Mul", [MAP, MAP]),
    RuleCase("Mul", [MAP, real(6)]),
    RuleCase("Neg", [MAP]),
    RuleCase("PRelu", [MAP, X((4, 1, 1), 0.1, 0.4)]),
    RuleCase("PRelu", [MAP, real(4, 1, 1)]),
    RuleCase("PRelu", [MAP, np.array([-0.25], dtype=np.float32)]),
    RuleCase("Pad", [MAP, ints(0, 1, 0, 2, 0, 0, 3, 1), np.float32(3.0)]),
    RuleCase("Pad", [MAP, ints(1, 2, 0, 1), None, ints(-2, 3)]),
    RuleCase("Pad", [MAP, ints(0, 0, 2, 1, 0, 0, 1, 3)], {"mode": "reflect"}),
    RuleCase("Pad", [MAP, ints(0, 1, 0, 1, 0, 0, 2, 0)], {"mode": "edge"}),
    RuleCase("Pow", [X((2, 9), 0.4, 3.0), np.float32(2.5)]),
    RuleCase("Pow", [X((2, 9)), np.int64(3)]),
    RuleCase("Pow", [X((2, 9), 0.4, 3.0), X((9,), -1.5, 2.0)]),
    RuleCase("Reciprocal", [X((2, 9), 0.4, 3.0)]),
    RuleCase("ReduceL2", [MAP, ints(1, -1)], {"keepdims": 0}),
    RuleCase("ReduceMax", [MAP, ints(2, 3)], {"keepdims": 0}),
    RuleCase("ReduceMean", [MAP, ints(-1, -2)], {"keepdims": 1}),
    RuleCase("ReduceMean", [MAP], {"keepdims": 0}),
    RuleCase("ReduceMean", [MAP], {"axes": [1], "keepdims": 0}, opset=17),
    RuleCase("ReduceMin", [MAP, ints(0, 1)], {"keepdims": 1}),
    RuleCase("ReduceSum", [MAP, ints(1)], {"keepdims": 0}),
    RuleCase("ReduceSum", [MAP], {"noop_with_empty_axes": 1}),
    RuleCase("Relu", [MAP]),
    RuleCase("Reshape", [MAP, ints(0, -1, 2, 3)]),
    RuleCase("ScatterElements", [X((3, 4)), np.array([[0, 2, 0, 1]]), X((1, 4))], {"axis": 0}),
    RuleCase("ScatterElements", [X((3, 4)), np.array([[1, 3], [0, 2]]), X((2, 2))], {"axis": 1, "reduction": "add"}),
    RuleCase("Sigmoid", [MAP]),
    RuleCase("Slice", [MAP, ints(1, 0), ints(3, 99), ints(1, -1), ints(1, 2)]),
    RuleCase("Slice", [MAP, ints(-1), ints(-99), ints(2), ints(-1)]),
    RuleCase("Slice", [MAP, ints(4), ints(0), ints(-1), ints(-2)]),
    RuleCase("Softmax", [X((2, 5, 3))], {"axis": 1}),
    RuleCase("Softplus", [MAP]),
    RuleCase("Split", [MAP, ints(1, 2, 1)], {"axis": 1}, outputs=3),
    RuleCase("Split", [MAP], {"axis": -1, "num_outputs": 2}, outputs=2),
    RuleCase("Sqrt", [X((2, 9), 0.3, 4.0)]),
    RuleCase("Squeeze", [X((1, 4, 1)), ints(0, -1)]),
    RuleCase("Sub", [X((4, 1)), X((2, 1, 3))]),
    RuleCase("Sum", [X((4, 1)), X((2, 1, 3)), real(3)]),
    RuleCase("Tanh", [MAP]),
    RuleCase(
        "Transpose",
        [
            X((2, 3, 4)),
        ],
        {"perm": [2, 0, 1]},
    ),
    RuleCase("Transpose", [X((2, 3, 4))]),
    RuleCase("Unsqueeze", [X((3, 4)), ints(0, -1)]),
    RuleCase("Where", [CHOICE, X((2, 1)), X((3,))]),
    RuleCase("Where", [CHOICE, X((2, 3)), real(1)]),
]


def graph_of(case: RuleCase, element: int = TensorProto.FLOAT) -> tuple[ExplainedGraph, npt.NDArray[np.float64]]:
    """The operator on operands carved out of a flat image, and such an image.

    With several outputs, nothing depends on the second.
    """
    rng = np.random.default_rng(3)
    nodes, stored, names, image = [], [], [], []
    for slot, operand in enumerate(case.operands):
        names.append("" if operand is None else f"operand_{slot}")
        if isinstance(operand, X):
            count = int(np.prod(operand.shape))
            start = sum(map(len, image))
            image.append(rng.permutation(np.linspace(operand.low, operand.high, count)))
            bounds = {"start": ints(start), "end": ints(start + count), "axis": ints(1), "shape": ints(*operand.shape)}
            stored += [numpy_helper.from_array(value, f"{key}_{slot}") for key, value in bounds.items()]
            nodes.append(
                helper.make_node("Slice", ["image", f"start_{slot}", f"end_{slot}", f"axis_{slot}"], [f"part_{slot}"])
            )
            nodes.append(helper.make_node("Reshape", [f"part_{slot}", f"shape_{slot}"], [names[-1]]))
        elif operand is not None:
            value = np.asarray(operand)
            if element == TensorProto.DOUBLE and value.dtype == np.float32:
                value = value.astype(np.float64)
            stored.append(numpy_helper.from_array(value, names[-1]))
    results = ["logits", "unused", "attribution"][: case.outputs]
    nodes.append(helper.make_node(case.op, names, results, "the_node", **case.attributes))
    pixels = np.concatenate(image)[None]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "one",
            [
                helper.make_tensor_value_info("image", element, pixels.shape),
                helper.make_tensor_value_info("class_index", TensorProto.INT32, [1]),
            ],
            [helper.make_tensor_value_info(name, element, None) for name in results if name != "unused"],
            stored,
        ),
        opset_imports=[helper.make_opsetid("", case.opset)],
        ir_version=10,
    )
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return ExplainedGraph(inferred, "0" * 64), pixels


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def analytic(graph: ExplainedGraph, image: Array, cotangents: dict[str, Array]) -> dict[str, Array]:
    model = gradient_graph(graph, ["image"])
    onnx.checker.check_model(model, full_check=True)
    feeds = {"image": image.astype(np.float32), "class_index": np.zeros(1, np.int32)}
    return run(model, feeds | {cotangent_name(name): value for name, value in cotangents.items()})


def weights_of(graph: ExplainedGraph, image: Array) -> dict[str, Array]:
    """A weight for every cell that the runtime answers."""
    rng = np.random.default_rng(5)
    answers = run(graph.model, {"image": image.astype(np.float32), "class_index": np.zeros(1, np.int32)})
    return {name: rng.normal(size=values.shape).astype(np.float32) for name, values in answers.items()}


def name_of(case: RuleCase) -> str:
    return case.op + "".join(f"-{key}" for key in case.attributes)


def test_every_rule_has_a_case() -> None:
    assert {case.op for case in CASES} == set(VJP_RULES)
    assert not set(VJP_RULES) & STOPPING_OPS


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_rule_is_the_slope_of_its_operator(case: RuleCase) -> None:
    graph, image = graph_of(case)
    cotangents = weights_of(graph, image)
    found = analytic(graph, image, cotangents)
    precise = ReferenceEvaluator(graph_of(case, TensorProto.DOUBLE)[0].model)

    def weighed(pixels: npt.NDArray[np.float64]) -> float:
        answers = precise.run(list(cotangents), {"image": pixels, "class_index": np.zeros(1, np.int32)})
        return sum(
            float((answer.astype(np.float64) * weight).sum())
            for answer, weight in zip(answers, cotangents.values(), strict=True)
        )

    step, tolerance = (4e-3, 1e-3) if case.coarse else (1e-6, 2e-4)
    slopes = np.zeros_like(image)
    for place in range(image.size):
        moved = np.zeros_like(image)
        moved[0, place] = step
        slopes[0, place] = (weighed(image + moved) - weighed(image - moved)) / (2 * step)
    assert np.abs(slopes).max() > 1e-3
    gradient = found[gradient_name("image")]
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, slopes, rtol=tolerance, atol=tolerance * np.abs(slopes).max())


LINEAR = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")


@st.composite
def geometries(draw: st.DrawFn) -> RuleCase:
    """A layer of windows with any kernel, stride, dilation and padding that leaves something to answer."""
    kind = draw(st.sampled_from(LINEAR))
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    sides = [draw(st.integers(5, 8)) for _ in range(2)]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [draw(st.integers(1, 3)) for _ in range(2)]}
    if draw(st.booleans()):
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        if kind in ("AveragePool", "MaxPool") and attributes["auto_pad"] != "VALID":
            # With a stride beyond the kernel ONNX Runtime finds less than no padding, and refuses to run.
            attributes["strides"] = [min(pair) for pair in zip(attributes["strides"], kernel, strict=True)]
    else:
        limit = min(kernel) - 1
        attributes["pads"] = [draw(st.integers(0, limit)) for _ in range(4)]
        if kind != "AveragePool":
            attributes["dilations"] = [draw(st.integers(1, 2)) for _ in range(2)]
    group = draw(st.sampled_from([1, 2]))
    operands: list[X | Array | None] = [X((1, 4, *sides))]
    if kind in ("Conv", "ConvTranspose"):
        attributes["group"] = group
        operands.append(real(4, 4 // group if kind == "Conv" else 3, *kernel))
    elif kind == "AveragePool":
        attributes["count_include_pad"] = draw(st.sampled_from([0, 1]))
    if kind in ("AveragePool", "MaxPool") and "pads" in attributes:
        attributes["ceil_mode"] = draw(st.sampled_from([0, 1]))
    return RuleCase(kind, operands, attributes)


@settings(max_examples=60, deadline=None)
@given(case=geometries())
def test_windows_give_back_what_they_take(case: RuleCase) -> None:
    # Of rounded-up sizes ONNX's inference counts windows that the runtime leaves out; such a graph has no sound shapes.
    graph, image = graph_of(case)
    declared = [dim.dim_value for dim in graph.model.graph.output[0].type.tensor_type.shape.dim]
    assume(declared == list(weights_of(graph, image)["logits"].shape))
    check_homogeneous(case)


def test_padding_may_cut() -> None:
    # Less than none, which the reference evaluator does not know.
    check_homogeneous(RuleCase("Pad", [MAP, ints(0, 1, 0, -2, 0, 0, -1, 1)]))


def check_homogeneous(case: RuleCase) -> None:
    """<gradient, x> is <cotangent, f(x)>, as the runtime itself computes f."""
    graph, image = graph_of(case)
    cotangents = weights_of(graph, image)
    found = analytic(graph, image, cotangents)
    across = float((found[gradient_name("image")].astype(np.float64) * image).sum())
    terms = found["logits"].astype(np.float64) * cotangents["logits"]
    assert across == pytest.approx(float(terms.sum()), abs=1e-4 * float(np.abs(terms).sum()) + 1e-5)


@settings(max_examples=40, deadline=None)
@given(
    left=st.lists(st.sampled_from([1, 2, 3]), min_size=0, max_size=4),
    ones=st.tuples(st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 4)),
    op=st.sampled_from(["Add", "Sub", "Mul", "Div"]),
)
def test_what_was_broadcast_is_summed(left: list[int], ones: tuple[list[bool], int], op: str) -> None:
    import torch

    right = [1 if one else size for size, one in zip(left, ones[0], strict=False)][min(ones[1], len(left)) :]
    case = RuleCase(op, [X(tuple(left)), X(tuple(right), 0.5, 2.0)])
    graph, image = graph_of(case)
    cotangents = weights_of(graph, image)
    found = analytic(graph, image, cotangents)[gradient_name("image")]
    pixels = torch.from_numpy(image).requires_grad_()
    split = int(np.prod(left))
    first, second = pixels[0, :split].reshape(left), pixels[0, split:].reshape(right)
    kinds = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}
    kinds[op](first, second).backward(torch.from_numpy(cotangents["logits"]).double())
    np.testing.assert_allclose(found, pixels.grad.numpy(), rtol=1e-4, atol=1e-4)
