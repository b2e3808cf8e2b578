"""What the map branch reads of the forward path, and where it would notice that channels were scaled.

A map that is made of sums and products of activations and gradients stays as it is: a channel divided by a factor has a
gradient multiplied by it, all the way back through the branch. A comparison with zero stays too. What compares with
other numbers, adds stored ones, or takes powers does not.
"""

from __future__ import annotations

from edgekit.calibrate.graph import ExplainedGraph

__all__ = ["tensors_read_for_their_size"]

_COMPARISONS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_PROPORTIONAL = frozenset(
    {
        "Abs",
        "And",
        "AveragePool",
        "Cast",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Div",
        "Expand",
        "Flatten",
        "Gather",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pad",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Shape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)


def tensors_read_for_their_size(graph: ExplainedGraph) -> frozenset[str]:
    """Tensors of the forward path whose channels the map branch would not let scale: those to leave alone.

    The list errs to both sides in rare branches (a square, a quotient of two activations), so whoever scales the others
    compares answers before and after.
    """
    forward = set(graph.forward)
    branch = [index for index in range(len(graph.nodes)) if index not in forward]
    strict = [index for index in branch if not _is_proportional(graph, index)]
    above = graph.ancestors([name for index in strict for name in graph.nodes[index].output]) - forward
    return frozenset(
        name for index in above for name in graph.data_inputs(index) if graph.producer.get(name, index) in forward
    )


def _is_proportional(graph: ExplainedGraph, index: int) -> bool:
    node = graph.nodes[index]
    stored = [graph.constant(name) for name in node.input if name and graph.is_constant(name)]
    if node.op_type in _COMPARISONS or node.op_type in ("Add", "Sub"):
        return not any(values.any() for values in stored)
    return node.op_type in _PROPORTIONAL or node.op_type == "Constant"
