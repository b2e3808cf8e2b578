"""Explained ONNX graphs broken in one place: at the input, at the tap, in the map branch, at an output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# An operation, its inputs beside the tensor itself, and its attributes.
Step = tuple[str, Sequence[Any], dict[str, Any]]


def _node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], name=f"fault/{output}", **attributes)


def _constant(model: onnx.ModelProto, name: str, values: Any) -> str:
    array = np.asarray(values)
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    model.graph.initializer.append(numpy_helper.from_array(array, f"fault/{name}"))
    return f"fault/{name}"


def _read_elsewhere(model: onnx.ModelProto, old: str, new: str) -> None:
    """Whoever reads `old` reads `new`."""
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            if name == old:
                node.input[slot] = new


def at_input(model: onnx.ModelProto, name: str, *steps: Step) -> None:
    """Put nodes between an input and its readers. Each is (operation, further inputs as arrays, attributes)."""
    made, last = [], name
    for number, (op, further, attributes) in enumerate(steps):
        output = f"fault/{name}_{number}"
        inputs = [last, *(_constant(model, f"{name}_{number}_{k}", v) for k, v in enumerate(further))]
        made.append(_node(op, inputs, output, **attributes))
        last = output
    _read_elsewhere(model, name, last)
    for number, node in enumerate(made):
        model.graph.node.insert(number, node)


def at_output(model: onnx.ModelProto, name: str, *steps: Step) -> None:
    """Put nodes between what makes an output and the output; whatever else reads it still reads the old value."""
    _after(model, name, f"fault/{name}_sound", rename=True, steps=steps)


def at_tensor(model: onnx.ModelProto, name: str, *steps: Step) -> None:
    """Put nodes between a tensor inside the graph and all its readers."""
    _after(model, name, name, rename=False, steps=steps)


def _after(
    model: onnx.ModelProto,
    name: str,
    source: str,
    *,
    rename: bool,
    steps: Sequence[Step],
) -> None:
    place, producer = next((i, node) for i, node in enumerate(model.graph.node) if name in node.output)
    if rename:
        _read_elsewhere(model, name, source)
        producer.output[list(producer.output).index(name)] = source
    made, last = [], source
    for number, (op, further, attributes) in enumerate(steps):
        final = rename and number == len(steps) - 1
        output = name if final else f"fault/{name}_{number}"
        inputs = [last, *(_constant(model, f"{name}_{number}_{k}", v) for k, v in enumerate(further))]
        made.append(_node(op, inputs, output, **attributes))
        last = output
    if not rename:
        _read_elsewhere(model, name, last)
    for number, node in enumerate(made):
        model.graph.node.insert(place + 1 + number, node)


def tap_of(model: onnx.ModelProto) -> str:
    """The activation that the closed form of the map weighs: what the product in the map branch reads."""
    makers = {output: node for node in model.graph.node for output in node.output}
    product = makers[_reads_back(makers, "attribution", "MatMul")].input[1]
    return str(makers[product].input[0])


def _reads_back(makers: dict[str, onnx.NodeProto], name: str, op: str) -> str:
    while makers[name].op_type != op:
        name = makers[name].input[0]
    return name


def _last_relus(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The ReLU at the end of each class's map."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found, waiting = [], ["attribution"]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.op_type == "Relu":
            found.append(node)
        elif node is not None:
            waiting += node.input
    return found


def before_relu(model: onnx.ModelProto) -> str:
    """What the ReLU at the end of the one map reads."""
    (relu,) = _last_relus(model)
    return str(relu.input[0])


def without_relu(model: onnx.ModelProto) -> None:
    """Drop the ReLU at the end of every map."""
    for relu in _last_relus(model):
        relu.op_type = "Identity"


def int8_steps(scale: float) -> tuple[Step, Step]:
    """QuantizeLinear and DequantizeLinear with unsigned integers from 0 on, as a scale table writes them."""
    given = (np.float32(scale), np.uint8(0))
    return ("QuantizeLinear", given, {}), ("DequantizeLinear", given, {})
