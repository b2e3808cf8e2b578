"""Where pairs of QuantizeLinear and DequantizeLinear stand: the seam between number formats and runtimes' fusions.

Explicit Q/DQ means what it says, and a runtime only computes in integers where the pairs stand as its fusion patterns
want them. So the rules are those of a runtime, and a number format names the rules it is placed by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from edgekit.calibrate.formats import NumberFormat
from edgekit.calibrate.graph import Edge, ExplainedGraph
from edgekit.core.registry import Registry
from edgekit.errors import BadInputError

__all__ = [
    "ACTIVATION_OPS",
    "DATA_MOVERS",
    "PLACERS",
    "WEIGHTED_OPS",
    "Placement",
    "Placer",
    "WeightUse",
    "excluded_nodes",
    "find_weight",
    "mover_problem",
    "place",
]

WEIGHTED_OPS = frozenset({"Conv", "Gemm", "MatMul"})
# Relu and Clip, which a runtime folds into the rounding of the operation before them.
ACTIVATION_OPS = frozenset({"Relu", "Clip"})
# Operations that copy values (or pick one of them): what goes in as an integer comes out as the same integer.
DATA_MOVERS = frozenset(
    {
        "DepthToSpace",
        "Flatten",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


@dataclass(frozen=True)
class WeightUse:
    """A stored weight of a quantised operation.

    Attributes:
        node: Index of the operation.
        weight: Name of the stored weight.
        axis: Its output-channel axis.
        bias: Name of the stored bias, or None.
        data: Name of the activation the weight is multiplied with.
    """

    node: int
    weight: str
    axis: int
    bias: str | None
    data: str


@dataclass(frozen=True)
class Placement:
    """What is quantised in one graph.

    Attributes:
        activations: Activation tensors that get a pair, in graph order.
        range_of: For each of them, the tensor whose observed range decides its scale: itself, or the tensor that a
            data mover copied it from.
        dequantised_reads: For each of them, the places that read the pair's output instead of the tensor.
        weights: Weights of the quantised operations, in graph order.
        quantised: Indices of the operations meant to run in integers.
        left_float: Forward operations on float tensors that stay in float, by index, with the reason.
    """

    activations: tuple[str, ...]
    range_of: Mapping[str, str]
    dequantised_reads: Mapping[str, tuple[Edge, ...]]
    weights: tuple[WeightUse, ...]
    quantised: frozenset[int]
    left_float: Mapping[int, str]

    @property
    def observed(self) -> tuple[str, ...]:
        """The tensors whose ranges calibration has to find, in graph order."""
        wanted = set(self.range_of.values())
        return tuple(name for name in self.activations if name in wanted)


class Placer(Protocol):
    """One runtime's placement rules."""

    def __call__(self, graph: ExplainedGraph, excluded: Mapping[int, str]) -> Placement:
        """Decide what is quantised. `excluded` maps node indices to the pattern that keeps them in float."""


PLACERS: Registry[Placer] = Registry(
    "placement",
    {
        "onnxruntime": "edgekit.calibrate.placement_onnxruntime:place_for_onnxruntime",
        "tensorrt": "edgekit.calibrate.placement_tensorrt:place_for_tensorrt",
    },
)


def place(graph: ExplainedGraph, fmt: NumberFormat, exclude: Iterable[str] = ()) -> Placement:
    """Decide what is quantised in `graph` by the rules of the format's runtime.

    Raises:
        BadInputError: A pattern of `exclude` matches no node, or nothing is left to quantise.
    """
    placement = PLACERS.load(fmt.placement)(graph, excluded_nodes(graph, exclude))
    if not placement.weights:
        reasons = sorted({f"{graph.nodes[index].op_type}: {why}" for index, why in placement.left_float.items()})
        raise BadInputError(
            "Nothing in the graph can be quantised.",
            expected="at least one Conv, Gemm or MatMul with stored weights on the way to the logits",
            found="; ".join(reasons[:5]) or "no such operation",
        )
    return placement


def excluded_nodes(graph: ExplainedGraph, patterns: Iterable[str]) -> dict[int, str]:
    """Node index to the first pattern that matches the node's name.

    Raises:
        BadInputError: A pattern matches nothing: a misspelt exclusion must not pass for one that worked.
    """
    found: dict[int, str] = {}
    for pattern in patterns:
        matches = [index for index in graph.forward if fnmatchcase(graph.nodes[index].name, pattern)]
        if not matches:
            names = [graph.nodes[index].name for index in graph.forward if graph.nodes[index].op_type in WEIGHTED_OPS]
            raise BadInputError(
                "A pattern of calibrate.exclude matches no node on the way to the logits.",
                expected=f"names such as {', '.join(names[:4])}",
                found=repr(pattern),
            )
        for index in matches:
            found.setdefault(index, pattern)
    return found


def find_weight(graph: ExplainedGraph, index: int) -> WeightUse | str:
    """The stored weight of a Conv, Gemm or MatMul and its output-channel axis, or why it has none."""
    node = graph.nodes[index]
    data, weight = node.input[0], node.input[1]
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if graph.is_constant(data) or not graph.is_constant(weight):
        return "its weights are not stored"
    rank = len(graph.constant_shape(weight))
    if node.op_type == "Conv":
        axis = 0
    elif node.op_type == "MatMul":
        if rank != 2:
            return "its weights are not a matrix"
        axis = 1
    else:
        axis = 0 if graph.attribute(index, "transB", 0) else 1
        if graph.attribute(index, "transA", 0) or graph.attribute(index, "alpha", 1.0) != 1.0:
            return "it scales or transposes its input"
        if bias is not None and graph.attribute(index, "beta", 1.0) != 1.0:
            return "it scales its bias"
    if bias is not None and not graph.is_constant(bias):
        return "its bias is not stored"
    if bias is not None and graph.constant_shape(bias) != (graph.constant_shape(weight)[axis],):
        return "its bias is not one number for each output channel"
    return WeightUse(index, weight, axis, bias, data)


def mover_problem(graph: ExplainedGraph, index: int) -> str | None:
    """Why an operation of `DATA_MOVERS` does not only copy values, or None."""
    node = graph.nodes[index]
    if graph.is_constant(node.input[0]):
        return "its input is stored"
    padding = node.input[2] if node.op_type == "Pad" and len(node.input) > 2 else ""
    # Zero is the one value that every range holds.
    if padding and not (graph.is_constant(padding) and graph.constant(padding) == 0):
        return "it pads with something other than zero"
    return None
