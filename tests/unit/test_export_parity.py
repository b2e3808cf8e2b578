"""The parity check has to fail: every damage to a graph is a refusal, however small its nodes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import exported
from networks import CASES
from onnx import helper, numpy_helper

from edgekit.errors import BadInputError
from edgekit.export.options import ExportOptions
from edgekit.export.parity import Parity, check_parity, measure_parity
from edgekit.teacher.explain import Explainer
from edgekit.teacher.methods.grad_cam import GRAD_CAM
from edgekit.teacher.tap import Tap

TOLERANCE = ExportOptions().parity_tolerance
CLOSED, TRACED = ("inverted", "last"), ("max-pooled-head", "features")
IMAGES = 12


def measured(case: tuple[str, str], model: onnx.ModelProto, folder: Path) -> Parity:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    name, tap = case
    explainer = Explainer(GRAD_CAM, (Tap(tap),))
    return measure_parity(CASES[name].make(), explainer, path, CASES[name].images(IMAGES, seed=5).numpy())


@pytest.mark.parametrize("case", [CLOSED, TRACED])
def test_a_sound_graph_passes(case: tuple[str, str], tmp_path: Path) -> None:
    parity = measured(case, exported(*case).model, tmp_path)
    check_parity(parity, TOLERANCE)
    assert (parity.samples, parity.ties) == (IMAGES, 0)
    assert 0 < parity.attribution < 1e-5


def changed_weight(model: onnx.ModelProto, shape: tuple[int, ...], change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the first weight of a shape."""
    tensor = next(item for item in model.graph.initializer if tuple(item.dims) == shape)
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)).astype(np.float32), tensor.name))


def one_element(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.flat[array.size // 2] += value
    return array


def bypass(model: onnx.ModelProto, kind: str, place: int) -> None:
    """Make one node pass its input through."""
    node = [item for item in model.graph.node if item.op_type == kind][place]
    node.CopyFrom(helper.make_node("Identity", [node.input[0]], [node.output[0]], name=node.name))


def behind_output(model: onnx.ModelProto, output: str, kind: str, constant: np.ndarray | None = None) -> None:
    """Put one more node in front of an output."""
    producer = next(node for node in model.graph.node if output in node.output)
    producer.output[list(producer.output).index(output)] = "before"
    inputs = ["before"]
    if constant is not None:
        model.graph.initializer.append(numpy_helper.from_array(constant, "constant"))
        inputs.append("constant")
    attributes = {"perm": [0, 2, 1]} if kind == "Transpose" else {"axis": 1} if kind == "Gather" else {}
    model.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))


def scaled(factor: float) -> np.ndarray:
    return np.array(factor, dtype=np.float32)


DAMAGES: dict[str, tuple[tuple[str, str], Callable[[onnx.ModelProto], None]]] = {
    "one weight of a convolution": (
        CLOSED,
        lambda model: changed_weight(model, (14, 6, 1, 1), lambda array: one_element(array, 0.02)),
    ),
    # With a row behind the classes that is zero, for no class.
    "one weight of the classifier, as the map has it": (
        CLOSED,
        lambda model: changed_weight(model, (5, 14), lambda array: one_element(array, 0.02)),
    ),
    "channels of the classifier swapped, as the map has it": (
        CLOSED,
        lambda model: changed_weight(model, (5, 14), lambda array: array[:, [1, 0, *range(2, 14)]]),
    ),
    "channels of a convolution swapped": (
        CLOSED,
        lambda model: changed_weight(model, (14, 6, 1, 1), lambda array: array[[1, 0, *range(2, 14)]]),
    ),
    "classes swapped, as the map has it": (
        CLOSED,
        lambda model: changed_weight(model, (5, 14), lambda array: array[[1, 0, 2, 3, 4]]),
    ),
    "the last ReLU dropped": (TRACED, lambda model: bypass(model, "Relu", -1)),
    "an inner ReLU dropped": (TRACED, lambda model: bypass(model, "Relu", 0)),
    "the map's last ReLU dropped": (CLOSED, lambda model: bypass(model, "Relu", -1)),
    "an activation unclipped": (CLOSED, lambda model: bypass(model, "Clip", 0)),
    "the map a little larger": (CLOSED, lambda model: behind_output(model, "attribution", "Mul", scaled(1.001))),
    "the map negated": (CLOSED, lambda model: behind_output(model, "attribution", "Neg")),
    "the map transposed": (CLOSED, lambda model: behind_output(model, "attribution", "Transpose")),
    "a cell of the map raised": (CLOSED, lambda model: behind_output(model, "attribution", "Add", scaled(1e-3))),
    "the map not finite": (CLOSED, lambda model: behind_output(model, "attribution", "Div", scaled(0.0))),
    "the map zero": (CLOSED, lambda model: behind_output(model, "attribution", "Mul", scaled(0.0))),
    "the logits a little larger": (TRACED, lambda model: behind_output(model, "logits", "Mul", scaled(1.001))),
    "the logits not finite": (TRACED, lambda model: behind_output(model, "logits", "Div", scaled(0.0))),
    "the logits in another order": (
        TRACED,
        lambda model: behind_output(model, "logits", "Gather", np.array([1, 2, 0])),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_graph_fails(damage: str, tmp_path: Path) -> None:
    case, change = DAMAGES[damage]
    model = copy.deepcopy(exported(*case).model)
    change(model)
    parity = measured(case, model, tmp_path)
    with pytest.raises(BadInputError, match="does not answer as the network does") as caught:
        check_parity(parity, TOLERANCE)
    assert "12 images" in (caught.value.expected or "")


def own_class_replaced(model: onnx.ModelProto) -> None:
    """Explain class 0 wherever the network's own answer was asked for."""
    node = next(item for item in model.graph.node if item.op_type == "ArgMax")
    (reader,) = (item for item in model.graph.node if node.output[0] in item.input)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, dtype=np.int64), "always"))
    reader.input[list(reader.input).index(node.output[0])] = "always"


def test_a_graph_that_only_explains_its_own_answer_wrongly_fails(tmp_path: Path) -> None:
    model = copy.deepcopy(exported(*CLOSED).model)
    own_class_replaced(model)
    parity = measured(CLOSED, model, tmp_path)
    assert max(parity.logits, parity.attribution) < TOLERANCE
    with pytest.raises(BadInputError):
        check_parity(parity, TOLERANCE)


@pytest.mark.parametrize("place", ["logits", "attribution", "own_class"])
@pytest.mark.parametrize("error", [math.nan, math.inf, 2e-4])
def test_one_error_is_enough(place: str, error: float) -> None:
    errors = {"logits": 1e-7, "attribution": 1e-7, "own_class": 1e-7, place: error}
    with pytest.raises(BadInputError):
        check_parity(Parity(samples=3, ties=0, **errors), 1e-4)


def test_the_bound_itself_is_allowed() -> None:
    check_parity(Parity(samples=1, logits=1e-4, attribution=1e-4, own_class=0.0, ties=1), 1e-4)
