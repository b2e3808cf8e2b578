"""Fold inference-time batch normalisation into the convolution before it.

The exporter's own rule leaves a convolution alone whose weight is also read by the gradient of the map. Quantisation
needs it folded all the same, and a second copy of the weight costs less than a normalisation at run time.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgekit.export.origin import module_of_node, outputs_of_node, set_origin
from edgekit.export.passes.graph_index import GraphIndex, drop_unread

__all__ = ["fold_batch_norm", "foldable_batch_norms"]


def fold_batch_norm(model: onnx.ModelProto) -> int:
    """Fold every `Conv -> BatchNormalization` of `model` in place and return how many there were.

    Precondition: initialisers are stored in the graph. Postcondition: the same function up to rounding; no
    convolution whose only reader is a batch normalisation with constant parameters is left. Weights that several
    convolutions share stay shared by those that have no batch normalisation.
    """
    graph = model.graph
    folded = 0
    # Again until nothing is left: a second normalisation right behind the first then follows the convolution.
    while pairs := foldable_batch_norms(model):
        constants = {item.name: item for item in graph.initializer}
        for conv, norm in pairs:
            _fold_pair(graph, conv, norm, constants)
            graph.node.remove(norm)
        folded += len(pairs)
    drop_unread(graph)
    return folded


def foldable_batch_norms(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """The convolutions whose only reader is a batch normalisation with constant parameters, each with it."""
    index = GraphIndex(model)
    found = []
    for norm in model.graph.node:
        if norm.op_type != "BatchNormalization" or len([name for name in norm.output if name]) != 1:
            continue
        conv = index.producers.get(norm.input[0])
        if conv is None or conv.op_type != "Conv":
            continue
        result = conv.output[0]
        parameters = [*norm.input[1:], *conv.input[1:]]
        only_reader = index.readers[result] == 1 and result not in index.outputs
        if only_reader and all(name in index.initialisers for name in parameters):
            found.append((conv, norm))
    return found


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
    # The tensor is the normalisation's output now, so what is known of that output goes with it.
    set_origin(conv, module_of_node(conv), outputs_of_node(norm))
    inputs = [conv.input[0], *names]
    conv.ClearField("input")
    conv.input.extend(inputs)
    conv.output[0] = norm.output[0]
