"""What kind of operation each ATen operation is, as far as relevance is concerned.

Five kinds are enough for networks of convolutions: layers with weights; sums with positive coefficients (additions
and averages); routing, where every output cell is a copy of one input cell; element-wise functions, where every
output cell depends on one input cell; and products of a signal and a gate. What is in none of the tables has no rule.
"""

from __future__ import annotations

import operator
from enum import Enum

from torch import fx

__all__ = ["Kind", "gate_rank", "kind_of", "operation_of", "source_of"]


class Kind(Enum):
    """How an operation hands relevance back."""

    WEIGHTED = "layer with weights"
    SUM = "sum"
    ROUTING = "routing"
    ELEMENTWISE = "element-wise function"
    PRODUCT = "product"


_TABLE = {
    Kind.WEIGHTED: "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    Kind.SUM: (
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d "
        "adaptive_avg_pool3d mean sum upsample_bilinear2d"
    ),
    # A maximum is a copy of the winner, the first one where several are equal.
    Kind.ROUTING: (
        "view _unsafe_view reshape flatten unflatten permute transpose t numpy_T squeeze unsqueeze slice select narrow "
        "expand repeat clone alias contiguous cat stack split split_with_sizes chunk unbind index_select flip roll "
        "pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d pixel_shuffle "
        "pixel_unshuffle channel_shuffle native_channel_shuffle upsample_nearest2d dropout "
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d"
    ),
    # Functions that are zero at zero, so that no relevance sits where nothing was active.
    Kind.ELEMENTWISE: (
        "relu relu6 hardtanh clamp clamp_min leaky_relu _prelu_kernel prelu elu celu selu gelu silu hardswish mish "
        "tanh softsign hardshrink softshrink tanhshrink neg _native_batch_norm_legit_no_training"
    ),
    Kind.PRODUCT: "mul",
}
_KINDS = {f"aten::{name}": kind for kind, names in _TABLE.items() for name in names.split()}
# Constant operands shift or scale each cell; two operands that read the images make a sum.
_ADDITIONS = ("aten::add", "aten::sub", "aten::rsub")
_GATES = {
    **dict.fromkeys(("aten::sigmoid", "aten::hardsigmoid", "aten::softmax", "aten::_softmax"), 2),
    **dict.fromkeys(("aten::hardtanh", "aten::relu6", "aten::clamp"), 1),
}


def operation_of(node: fx.Node) -> str:
    """ATen name such as "aten::conv2d", without the overload; of the operation that is picked from, for an item."""
    schema = getattr(source_of(node).target, "_schema", None)
    return schema.name if schema is not None else str(source_of(node).target)


def source_of(node: fx.Node) -> fx.Node:
    """The operation itself: `node`, or what it is an item of."""
    if node.op == "call_function" and node.target is operator.getitem:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return source
    return node


def kind_of(node: fx.Node, reading: set[fx.Node]) -> Kind | None:
    """The kind of a node that depends on the images; None for an operation without a rule.

    Args:
        node: An operation, or an item of one.
        reading: All nodes that depend on the images.
    """
    name = operation_of(node)
    operands = sum(source in reading for source in source_of(node).all_input_nodes)
    if name in _ADDITIONS:
        return Kind.ELEMENTWISE if operands == 1 else Kind.SUM
    if name == "aten::div":
        return Kind.ELEMENTWISE if source_of(node).args[1] not in reading else None
    if name == "aten::mul":
        return Kind.ELEMENTWISE if operands == 1 and len(source_of(node).args) == 2 else Kind.PRODUCT
    return _KINDS.get(name)


def gate_rank(node: fx.Node, reading: set[fx.Node]) -> int:
    """How much a factor looks like a gate: 2 for a sigmoid or softmax, 1 for a clipped range, 0 for anything else.

    Copies, and shifts and scales by constants behind it, do not change what it is.
    """
    while True:
        name = operation_of(node)
        if name in _GATES:
            return _GATES[name]
        sources = [source for source in source_of(node).all_input_nodes if source in reading]
        constant = name in ("aten::mul", "aten::div", "aten::add") and len(sources) == 1
        if len(sources) != 1 or not (constant or _KINDS.get(name) is Kind.ROUTING):
            return 0
        (node,) = sources
