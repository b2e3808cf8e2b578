"""Every operator set that a target may ask for: valid ONNX, in that set, with the network's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from exported import export_afresh
from networks import CASES
from onnx import TensorProto, helper, numpy_helper

from edgekit.errors import BadInputError
from edgekit.export.opset import downgraded, opset_of
from edgekit.export.parity import check_parity, measure_parity
from edgekit.teacher.explain import Explainer
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.tap import Tap

# Between them: reductions, splits, pads, layer norm and group norm, max pooling, transposed and grouped convolutions.
# The step to 17 is edgekit's own; 18 is what every other test exports.
EXPORTS = [
    (17, "residual", "layer1"),
    (17, "vgg", "features.1"),
    (17, "mobile", "block1"),
    (17, "norms", "features"),
    (18, "norms", "features"),
    (19, "norms", "features"),
    (20, "vgg", "features.1"),
    (21, "vgg", "features.1"),
    (21, "norms", "features"),
]


@pytest.mark.parametrize(("opset", "name", "tap"), EXPORTS)
def test_the_graph_is_of_the_set_and_answers_as_the_network(opset: int, name: str, tap: str, tmp_path: Path) -> None:
    case, model = CASES[name], export_afresh(name, tap, opset=opset).model
    assert opset_of(model) == opset
    onnx.checker.check_model(model, full_check=True)
    if opset < 18:
        assert not [n for n in model.graph.node if n.op_type.startswith("ReduceMean") and len(n.input) > 1]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    check_parity(
        measure_parity(case.make(), Explainer(GRAD_CAM, (Tap(tap),)), tmp_path / "m.onnx", case.images(8).numpy()), 1e-4
    )


def test_a_set_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(BadInputError, match="cannot be written in the operator set") as caught:
        export_afresh("residual", "layer2", opset=13)
    assert caught.value.expected == "operator set 13"


def graph(nodes: list[onnx.NodeProto], outputs: int = 1, **constants: object) -> onnx.ModelProto:
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 6])],
            [helper.make_tensor_value_info(f"y{place}", TensorProto.FLOAT, None) for place in range(outputs)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return onnx.shape_inference.infer_shapes(model)


def answers(model: onnx.ModelProto) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)})


node = helper.make_node
REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare", "Sum"]
SAYABLE = {
    **{kind: graph([node(f"Reduce{kind}", ["x", "a"], ["y0"])], a=np.array([1, -1])) for kind in REDUCTIONS},
    "all axes": graph([node("ReduceMean", ["x"], ["y0"], keepdims=0)]),
    "no axes at all": graph([node("ReduceMax", ["x"], ["y0"], noop_with_empty_axes=0)]),
    "split evenly": graph([node("Split", ["x"], ["y0", "y1"], axis=2, num_outputs=2)], 2),
    "split unevenly": graph([node("Split", ["x"], ["y0", "y1", "y2"], axis=1, num_outputs=3)], 3),
    "split by sizes": graph([node("Split", ["x", "s"], ["y0", "y1"], axis=1)], 2, s=np.array([1, 4])),
    "pad": graph([node("Pad", ["x", "p"], ["y0"])], p=np.array([0, 1, 2, 0, 3, 0])),
    "pad some axes": graph(
        [node("Pad", ["x", "p", "v", "a"], ["y0"])], p=np.array([1, 2, 3, 0]), v=np.float32(4), a=np.array([2, -2])
    ),
    "resize": graph(
        [node("Resize", ["x", "", "s"], ["y0"], mode="linear", antialias=0)], s=np.array([1, 1, 2], np.float32)
    ),
}


@pytest.mark.parametrize("model", SAYABLE.values(), ids=SAYABLE)
def test_the_step_to_17_keeps_the_function(model: onnx.ModelProto) -> None:
    older = downgraded(model)
    assert opset_of(older) == 17
    assert opset_of(model) == 18
    onnx.checker.check_model(older, full_check=True)
    for before, after in zip(answers(model), answers(older), strict=True):
        np.testing.assert_array_equal(after, before)


UNSAYABLE = {
    "new operator": graph([node("Mish", ["x"], ["y0"])]),
    "antialiasing": graph(
        [node("Resize", ["x", "", "s"], ["y0"], mode="linear", antialias=1)], s=np.array([1, 1, 0.5], np.float32)
    ),
    "computed axes": graph([node("Abs", ["a"], ["b"]), node("ReduceMean", ["x", "b"], ["y0"])], a=np.array([1])),
    "nothing reduced": graph([node("ReduceMean", ["x"], ["y0"], noop_with_empty_axes=1)]),
    "batch split": graph([node("Split", ["x"], ["y0", "y1"], axis=0, num_outputs=2)], 2),
    "largest of scattered": graph(
        [node("ScatterElements", ["x", "i", "u"], ["y0"], reduction="max")],
        i=np.zeros((1, 1, 1), np.int64),
        u=np.ones((1, 1, 1), np.float32),
    ),
}


@pytest.mark.parametrize("model", UNSAYABLE.values(), ids=UNSAYABLE)
def test_what_17_cannot_say_is_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(BadInputError, match="operator set 17"):
        downgraded(model)
