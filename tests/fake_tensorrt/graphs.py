"""Small ONNX graphs for tests of the fake: one float, one quantised by the rules, and one for each broken rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

__all__ = ["BROKEN_RULES", "float_graph", "quantised_graph"]

SIDE = 6
CHANNELS = 4


def _model(nodes: Sequence[NodeProto], constants: dict[str, Any], batch: Any, opset: int, element: int) -> ModelProto:
    image = helper.make_tensor_value_info("image", element, [batch, 3, SIDE, SIDE])
    class_index = helper.make_tensor_value_info("class_index", TensorProto.INT32, [batch])
    logits = helper.make_tensor_value_info("logits", element, [batch, CHANNELS])
    chosen = helper.make_tensor_value_info("chosen", TensorProto.INT32, [batch])
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    tail = [helper.make_node("Identity", ["class_index"], ["chosen"], "chosen")]
    graph = helper.make_graph([*nodes, *tail], "small", [image, class_index], [logits, chosen], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    checker.check_model(model)
    return model


def _network(image: str, weight: str) -> list[NodeProto]:
    return [
        helper.make_node("Conv", [image, weight], ["conv"], "conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["logits"], "flatten"),
    ]


def _weights(dtype: Any = np.float32) -> dict[str, Any]:
    return {"weight": np.random.default_rng(3).normal(size=(CHANNELS, 3, 3, 3)).astype(dtype)}


def float_graph(batch: Any = "batch", half: bool = False, opset: int = 17) -> ModelProto:
    """Convolution, ReLU and mean; inputs image [batch, 3, 6, 6] and class_index [batch], outputs logits and chosen."""
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    return _model(_network("image", "weight"), _weights(np.float16 if half else np.float32), batch, opset, element)


def quantised_graph(broken: str = "", opset: int = 17) -> ModelProto:
    """The same with pairs on the convolution's input and weights, or with one of `BROKEN_RULES` broken.

    Raises:
        ValueError: No such rule.
    """
    if broken and broken not in BROKEN_RULES:
        raise ValueError(f"no rule {broken!r}; there are {', '.join(BROKEN_RULES)}")
    constants = {
        **_weights(),
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "scales": np.full(CHANNELS, 0.02, np.float32),
        "zeros": np.zeros(CHANNELS, np.int8),
    }
    pairs = _pair("image", "scale", "zero") + _pair("weight", "scales", "zeros", axis=0)
    nodes = [*pairs, *_network("image_dq", "weight_dq")]
    if broken == "zero scale":
        constants["scale"] = np.float32(0)
    elif broken == "asymmetric":
        constants["zero"] = np.int8(3)
    elif broken == "unsigned":
        constants["zero"] = np.uint8(0)
    elif broken == "no zero point":
        nodes[0] = helper.make_node("QuantizeLinear", ["image", "scale"], ["image_q"], "image_q")
        nodes[1] = helper.make_node("DequantizeLinear", ["image_q", "scale"], ["image_dq"], "image_dq")
    elif broken == "scale per channel of an activation":
        constants |= {"scale": np.full(3, 0.05, np.float32), "zero": np.zeros(3, np.int8)}
    elif broken == "wrong axis":
        nodes[2:4] = _pair("weight", "scales", "zeros", axis=1)
    elif broken == "integer bias":
        constants |= {"bias": np.zeros(CHANNELS, np.int32), "bias_scale": np.float32(0.001)}
        nodes[4] = helper.make_node("Conv", ["image_dq", "weight_dq", "bias_dq"], ["conv"], "conv", pads=[1] * 4)
        nodes.insert(0, helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["bias_dq"], "bias_dq"))
    elif broken == "computed scale":
        nodes.insert(0, helper.make_node("Abs", ["scale"], ["computed"], "abs"))
        nodes[1:3] = _pair("image", "computed", "zero")
    return _model(nodes, constants, "batch", opset, TensorProto.FLOAT)


# Rule, and words of the parser's complaint about it.
BROKEN_RULES = {
    "asymmetric": "symmetric",
    "computed scale": "scale must be an initializer",
    "integer bias": "must be INT8",
    "no zero point": "UINT8",
    "scale per channel of an activation": "constant input",
    "unsigned": "symmetric",
    "wrong axis": "axis 1",
    "zero scale": "positive",
}


def _pair(source: str, scale: str, zero: str, **attributes: int) -> list[NodeProto]:
    quantised, back = f"{source}_q", f"{source}_dq"
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [quantised], quantised, **attributes),
        helper.make_node("DequantizeLinear", [quantised, scale, zero], [back], back, **attributes),
    ]
