"""A batch norm behind a convolution or linear layer becomes part of that layer's weight and bias.

In evaluation mode it is `y = s * x + t` with `s = weight / sqrt(var + eps)` and `t = bias - mean * s`, so that
`s * (W x + b) + t = (s W) x + (s b + t)`. Rules that tell positive from negative weights need the weight that the
two together have: a negative `s` turns every sign. One that is left alone, as in front of a DenseNet's convolutions,
is an element-wise function: each of its outputs has one input, which takes all its relevance.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

__all__ = ["BATCH_NORM", "merge_batch_norms"]

BATCH_NORM = "aten::_native_batch_norm_legit_no_training"
# Their weight has the output channels first.
_LAYERS = ("aten::linear", "aten::conv1d", "aten::conv2d", "aten::conv3d")


def merge_batch_norms(graph: fx.Graph, constants: dict[fx.Node, Any]) -> dict[fx.Node, fx.Node]:
    """Merge in place; `constants` gains the merged weights.

    A batch norm is left alone where something else reads the layer's output too, where the layer is none of those
    known here, and where its input is no layer at all.

    Returns:
        For each node that is no longer in the graph, or no longer computes what it did, the node that stands in its
        place: the layer, for the batch norm and for the layer's own former output.
    """
    replaced: dict[fx.Node, fx.Node] = {}
    for norm in list(graph.nodes):
        if _operation(norm) != BATCH_NORM:
            continue
        layer = norm.args[0]
        outputs = list(norm.users)
        plain = all(user.target is operator.getitem and user.args[1] == 0 for user in outputs)
        alone = plain and len(outputs) == 1 and len(layer.users) == 1
        if not (alone and _has_channels_second(layer) and all(node in constants for node in layer.args[1:3] if node)):
            continue
        _merge(graph, constants, layer, norm)
        outputs[0].replace_all_uses_with(layer)
        replaced.update({outputs[0]: layer, norm: layer})
        graph.erase_node(outputs[0])
        graph.erase_node(norm)
    graph.eliminate_dead_code()
    return replaced


def _operation(node: Any) -> str:
    schema = getattr(getattr(node, "target", None), "_schema", None)
    return schema.name if schema is not None else ""


def _has_channels_second(layer: fx.Node) -> bool:
    """Whether a batch norm normalises what the layer calls its channels: not behind a linear layer on sequences."""
    operation = _operation(layer)
    return operation in _LAYERS and (operation != "aten::linear" or layer.meta["val"].dim() == 2)


def _merge(graph: fx.Graph, constants: dict[fx.Node, Any], layer: fx.Node, norm: fx.Node) -> None:
    def constant(node: Any) -> Any:
        return None if node is None else constants[node]

    _, scale, shift, mean, variance, _, epsilon = norm.args
    factor = torch.rsqrt(constant(variance) + epsilon)
    if scale is not None:
        factor = factor * constant(scale)
    offset = -constant(mean) * factor
    if shift is not None:
        offset = offset + constant(shift)
    arguments = list(layer.args) + [None] * (3 - len(layer.args))
    weight, bias = constant(arguments[1]), constant(arguments[2])
    merged = {
        1: weight * factor.reshape(-1, *[1] * (weight.dim() - 1)),
        2: offset if bias is None else bias * factor + offset,
    }
    for position, tensor in merged.items():
        with graph.inserting_before(layer):
            placeholder = arguments[position] = graph.placeholder(f"{layer.name}_merged_{position}")
        constants[placeholder] = tensor
    layer.args = tuple(arguments)
