"""An FP32 graph as an engine in FP16 would hold it, run in float: every tensor rounded to half precision.

What a tensor is stored as is what FP16 kernels of all makers agree on; whether they add up in half or in single
precision they do not, and here it is single. So this shows what half-precision tensors cost and stands for no engine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.calibrate.graph import IMAGE, ExplainedGraph

__all__ = ["half_precision"]

_LARGEST = np.float32(np.finfo(np.float16).max)


def half_precision(graph: ExplainedGraph) -> Any:
    """The graph with the image, every computed float tensor and every stored one rounded to FP16.

    Args:
        graph: An explained FP32 graph. Not modified.

    Returns:
        An `onnx.ModelProto` with the same inputs and outputs, all of them float32. Stored values beyond FP16's range
        are held at its end, as converters do it; computed ones become infinite, as they do on a device.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    taken = set(graph.names())
    floats = _float_tensors(graph)
    image = _unused(f"{IMAGE}/half", taken)
    nodes = _rounded(IMAGE, image, taken)
    for original in graph.nodes:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for slot, name in enumerate(node.input):
            node.input[slot] = image if name == IMAGE else name
        nodes.append(node)
        if node.op_type == "Constant":
            _round_constant(node)
            continue
        for slot, name in enumerate(node.output):
            if name in floats:
                node.output[slot] = _unused(f"{name}/single", taken)
                nodes += _rounded(node.output[slot], name, taken)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(_halved(numpy_helper.to_array(tensor)), tensor.name))
    # What was said of sizes in between is said of other names now.
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def _float_tensors(graph: ExplainedGraph) -> set[str]:
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    values = (*inferred.value_info, *inferred.output)
    return {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}


def _rounded(source: str, result: str, taken: set[str]) -> list[Any]:
    """Nodes that store `source` as FP16 and read it back as `result`."""
    half = _unused(f"{result}/as_half", taken)
    return [
        helper.make_node("Cast", [source], [half], f"{half}/Cast", to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [result], f"{half}/Back", to=TensorProto.FLOAT),
    ]


def _round_constant(node: Any) -> None:
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(numpy_helper.from_array(_halved(numpy_helper.to_array(attribute.t)), attribute.t.name))


def _halved(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    halved: npt.NDArray[np.float32] = np.clip(values, -_LARGEST, _LARGEST).astype(np.float16).astype(np.float32)
    return halved


def _unused(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
