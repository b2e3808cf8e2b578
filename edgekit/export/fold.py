"""Fold inference-time batch normalisation into the convolution before it.

The exporter's own rule leaves a convolution alone whose weight is also read by the gradient of the map. Quantisation
needs it folded all the same, and a second copy of the weight costs less than a normalisation at run time.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["fold_batch_norm"]


def fold_batch_norm(model: onnx.ModelProto) -> int:
    """Fold every `Conv -> BatchNormalization` of `model` in place and return how many there were.

    Precondition: initialisers are stored in the graph. Postcondition: the same function up to rounding; no
    convolution whose only reader is a batch normalisation with constant parameters is left. Weights that several
    convolutions share stay shared by those that have no batch normalisation.
    """
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    producers = {name: node for node in graph.node for name in node.output}
    folded = []
    for norm in graph.node:
        if norm.op_type != "BatchNormalization" or len([name for name in norm.output if name]) != 1:
            continue
        conv = producers.get(norm.input[0])
        parameters = [*norm.input[1:], *(conv.input[1:] if conv is not None else [])]
        if conv is None or conv.op_type != "Conv" or readers[conv.output[0]] != 1:
            continue
        if not all(name in constants for name in parameters):
            continue
        _fold_pair(graph, conv, norm, constants)
        # A second normalisation right behind the first now follows the convolution.
        producers[norm.output[0]] = conv
        folded.append(norm)
    for norm in folded:
        graph.node.remove(norm)
    _drop_unread(graph)
    return len(folded)


def _fold_pair(
    graph: onnx.GraphProto, conv: onnx.NodeProto, norm: onnx.NodeProto, constants: dict[str, onnx.TensorProto]
) -> None:
    # y = gamma (W x + b - mean) / sqrt(var + eps) + beta, computed in float64 so that folding loses nothing.
    gamma, beta, mean, variance = (
        numpy_helper.to_array(constants[name]).astype(np.float64) for name in norm.input[1:5]
    )
    epsilon = next((item.f for item in norm.attribute if item.name == "epsilon"), 1e-5)
    weight = numpy_helper.to_array(constants[conv.input[1]])
    bias = numpy_helper.to_array(constants[conv.input[2]]).astype(np.float64) if len(conv.input) > 2 else 0.0
    gain = gamma / np.sqrt(variance + epsilon)
    new_weight = (weight.astype(np.float64) * gain.reshape(-1, *[1] * (weight.ndim - 1))).astype(weight.dtype)
    new_bias = (beta + (bias - mean) * gain).astype(weight.dtype)
    # Named after the normalisation's output, which is unique; the weight's own name may be shared.
    names = [f"{norm.output[0]}.weight", f"{norm.output[0]}.bias"]
    for name, array in zip(names, (new_weight, new_bias), strict=True):
        tensor = numpy_helper.from_array(array, name)
        graph.initializer.append(tensor)
        constants[name] = tensor
    inputs = [conv.input[0], *names]
    conv.ClearField("input")
    conv.input.extend(inputs)
    conv.output[0] = norm.output[0]


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [item for item in graph.initializer if item.name in read]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)
    produced = {name for node in graph.node for name in node.output}
    infos = [value for value in graph.value_info if value.name in produced]
    graph.ClearField("value_info")
    graph.value_info.extend(infos)
