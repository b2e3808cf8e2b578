"""Placement for ONNX Runtime's CPU kernels: pairs around each operation that has an integer kernel.

ONNX Runtime replaces `DequantizeLinear -> operation -> QuantizeLinear` by one integer kernel when nothing else reads
the values in between. Hence every Conv needs a pair on its output, directly or behind its Relu or Clip, and Gemm and
MatMul do not. Operations without weights are worth an integer kernel only between integer kernels: the last
residual addition before a pooled classifier stays in float, so the activation that the map is taken from is as fine
as the graph can make it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekit.calibrate.graph import Edge, ExplainedGraph
from edgekit.calibrate.placement import (
    ACTIVATION_OPS,
    DATA_MOVERS,
    WEIGHTED_OPS,
    Placement,
    WeightUse,
    find_weight,
    mover_problem,
)

__all__ = ["place_for_onnxruntime"]

_JOINS = frozenset({"Add", "AveragePool", "Concat", "Mul"})
_AVERAGES = frozenset({"GlobalAveragePool", "ReduceMean"})
_AVERAGES_STAY = "it averages whole maps, which is cheap in float and finer"
_UNFUSED = {
    "BatchNormalization": "it is not folded into a convolution",
    "PRelu": "ONNX Runtime has no integer kernel for it",
    "Relu": "it follows an operation that stays in float",
    "Clip": "it follows an operation that stays in float",
}
_COMPARISONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_ELEMENTWISE = frozenset({"Add", "Clip", "Div", "Erf", "HardSigmoid", "Mul", "Sigmoid", "Softplus", "Tanh"})


def place_for_onnxruntime(graph: ExplainedGraph, excluded: Mapping[int, str]) -> Placement:
    """Decide what is quantised; the same for uint8 and int8 activations."""
    return _Placing(graph, excluded).result()


class _Placing:
    """The decisions on one graph, taken in the order of the methods."""

    def __init__(self, graph: ExplainedGraph, excluded: Mapping[int, str]) -> None:
        self.graph = graph
        self.excluded = excluded
        self.left_float: dict[int, str] = {}
        self.weights: dict[int, WeightUse] = {}
        self.forward = frozenset(graph.forward)
        self.quantised = {index for index in graph.forward if self._is_candidate(index)}
        self._drop_isolated()

    def _is_candidate(self, index: int) -> bool:
        node = self.graph.nodes[index]
        reason: str | None
        if index in self.excluded:
            reason = f"excluded by {self.excluded[index]!r}"
        elif node.op_type in WEIGHTED_OPS:
            use = find_weight(self.graph, index)
            reason = use if isinstance(use, str) else self._weighted_problem(use)
            if isinstance(use, WeightUse) and reason is None:
                self.weights[index] = use
        elif node.op_type in _JOINS:
            reason = self._join_problem(index)
        elif node.op_type in DATA_MOVERS:
            reason = mover_problem(self.graph, index)
        elif node.op_type in _AVERAGES:
            reason = _AVERAGES_STAY
        else:
            reason = _UNFUSED.get(node.op_type, "it is not among the operations that are quantised")
        if reason is not None:
            self.left_float[index] = reason
        return reason is None

    def _weighted_problem(self, use: WeightUse) -> str | None:
        node = self.graph.nodes[use.node]
        if any(use.weight == other.weight and use.axis != other.axis for other in self.weights.values()):
            return "it shares its weights with an operation that lays them out differently"
        if node.op_type == "Conv" and self._effective_output(use.node) in self.graph.outputs:
            return "its output is the graph's"
        if node.op_type == "MatMul" and any(
            self.graph.nodes[edge.node].op_type == "Add"
            and self.graph.is_constant(self.graph.nodes[edge.node].input[1 - edge.slot])
            for edge in self._readers(node.output[0])
        ):
            # ONNX Runtime first merges the two into a Gemm with a float bias, and that one has no integer kernel.
            return "a stored bias is added to its result by another operation"
        return None

    def _join_problem(self, index: int) -> str | None:
        node = self.graph.nodes[index]
        if len(self.graph.data_inputs(index)) != len(node.input):
            # A factor for each channel could be stored in eight bits and multiplied in integers. Between convolutions
            # that saved a few percent of the time and moved the answers by up to a third more.
            return "one of its inputs is stored"
        if node.op_type == "Mul" and self._is_self_gated(index):
            return "it is part of an activation function"
        if node.op_type == "AveragePool" and self._pools_everything(index):
            return _AVERAGES_STAY
        return None

    def _is_self_gated(self, index: int) -> bool:
        """True for x * f(x) with an elementwise f, as in SiLU and hard-swish: finer in float than in two roundings."""
        first, second = self.graph.nodes[index].input
        return self._derives_elementwise(first, second) or self._derives_elementwise(second, first)

    def _derives_elementwise(self, name: str, source: str) -> bool:
        while name != source:
            index = self.graph.producer.get(name)
            if index is None or self.graph.nodes[index].op_type not in _ELEMENTWISE:
                return False
            inputs = self.graph.data_inputs(index)
            if len(inputs) != 1:
                return False
            name = inputs[0]
        return True

    def _pools_everything(self, index: int) -> bool:
        return self.graph.shapes.get(self.graph.nodes[index].output[0], ())[2:] == (1, 1)

    def _readers(self, name: str) -> tuple[Edge, ...]:
        return self.graph.readers.get(name, ())

    def _folded_activation(self, index: int) -> int | None:
        """The Relu or Clip that the runtime folds into operation `index`, or None."""
        node = self.graph.nodes[index]
        readers = self._readers(node.output[0])
        # Behind a data mover the activation would change the range that input and output must share.
        if node.op_type in DATA_MOVERS or len(readers) != 1 or node.output[0] in self.graph.outputs:
            return None
        reader = readers[0].node
        return reader if self._folds(reader, readers[0].slot) else None

    def _folds(self, activation: int, slot: int) -> bool:
        node = self.graph.nodes[activation]
        if activation not in self.forward or activation in self.excluded:
            return False
        if node.op_type not in ACTIVATION_OPS or slot != 0:
            return False
        if node.op_type == "Relu":
            return True
        bounds = [name for name in node.input[1:] if name]
        if not all(self.graph.is_constant(name) for name in bounds):
            return False
        # A Clip is dropped if the grid of integers lies within its bounds. That can be had for certain where it starts
        # at zero, which has an integer of its own; elsewhere the grid's ends are as rounding makes them.
        low = self.graph.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else -np.inf
        high = self.graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.inf
        return bool(low == 0 < high)

    def _effective_output(self, index: int) -> str:
        """The operation's result behind the activation that is folded into it."""
        folded = self._folded_activation(index)
        name: str = self.graph.nodes[index if folded is None else folded].output[0]
        return name

    def _masked_activation(self, index: int) -> int | None:
        """A Relu or Clip behind operation `index` whose input the map branch reads too, but only to compare it.

        That is the mask of the activation's gradient. Rounding clips as the activation does, so the pair may stand
        before it with the range from behind it, and the mask sees what the engine computed.
        """
        if self.graph.nodes[index].op_type in DATA_MOVERS:
            return None
        readers = self._readers(self.graph.nodes[index].output[0])
        inside = [edge for edge in readers if edge.node in self.forward]
        outside = [edge for edge in readers if edge.node not in self.forward]
        if len(inside) != 1 or not outside or not self._folds(inside[0].node, inside[0].slot):
            return None
        if all(self.graph.nodes[edge.node].op_type in _COMPARISONS for edge in outside):
            return inside[0].node
        return None

    def _source(self, name: str) -> int | None:
        """The candidate operation whose result `name` is, behind a folded activation or not."""
        index = self.graph.producer.get(name)
        if index is None or index in self.quantised:
            return index
        if self.graph.nodes[index].op_type in ACTIVATION_OPS:
            before = self.graph.producer.get(self.graph.nodes[index].input[0])
            if before in self.quantised and index in (
                self._folded_activation(before),
                self._masked_activation(before),
            ):
                return before
        return None

    def _results(self, index: int) -> tuple[str, ...]:
        """Tensors that hold the operation's result: what its readers read."""
        node = self.graph.nodes[index]
        if node.op_type in DATA_MOVERS:
            # MaxPool's second output holds positions.
            return tuple(node.output[:1] if node.op_type == "MaxPool" else node.output)
        masked = self._masked_activation(index)
        return (self._effective_output(index) if masked is None else self.graph.nodes[masked].output[0],)

    def _drop_isolated(self) -> None:
        """Leave operations without weights in float unless they stand between integer kernels."""
        while True:
            weightless = self.quantised - self.weights.keys()
            isolated = {index: reason for index in weightless if (reason := self._isolation(index)) is not None}
            if not isolated:
                return
            self.quantised -= isolated.keys()
            self.left_float.update(isolated)

    def _isolation(self, index: int) -> str | None:
        results = self._results(index)
        if any(name in self.graph.outputs for name in results):
            return "its output is the graph's"
        if not any(self._source(name) in self.quantised for name in self._integer_inputs(index)):
            return "nothing that feeds it computes in integers"
        if not any(edge.node in self.quantised for name in results for edge in self._readers(name)):
            return "nothing that reads it computes in integers"
        return None

    def _integer_inputs(self, index: int) -> tuple[str, ...]:
        """The inputs a quantised operation reads as integers."""
        node = self.graph.nodes[index]
        if index in self.weights or node.op_type in DATA_MOVERS:
            return (node.input[0],)
        return self.graph.data_inputs(index)

    def result(self) -> Placement:
        """Turn the decisions into pairs."""
        paired: set[str] = set()
        range_of: dict[str, str] = {}
        folded: set[int] = set()
        for index in sorted(self.quantised):
            paired.update(self._integer_inputs(index))
            node = self.graph.nodes[index]
            masked, activation = self._masked_activation(index), self._folded_activation(index)
            if masked is not None:
                folded.add(masked)
                behind = self.graph.nodes[masked].output[0]
                paired.update((node.output[0], behind))
                range_of[node.output[0]] = behind
            elif node.op_type == "Conv":
                paired.add(self._effective_output(index))
            elif node.op_type in DATA_MOVERS:
                paired.update(self._results(index))
            if activation is not None:
                folded.add(activation)
        for index in sorted(self.quantised):
            if self.graph.nodes[index].op_type in DATA_MOVERS:
                source = self.graph.nodes[index].input[0]
                range_of.update(dict.fromkeys(self._results(index), source))
        activations = tuple(name for name in self.graph.names() if name in paired)
        return Placement(
            activations=activations,
            range_of={name: _root(name, range_of) for name in activations},
            dequantised_reads={name: self._dequantised_reads(name) for name in activations},
            weights=tuple(self.weights[index] for index in sorted(self.weights)),
            quantised=frozenset(self.quantised),
            left_float={
                index: reason
                for index, reason in sorted(self.left_float.items())
                if index not in folded and self._is_float(index)
            },
        )

    def _dequantised_reads(self, name: str) -> tuple[Edge, ...]:
        if self._source(name) in self.quantised or self.graph.producer.get(name) in self.quantised:
            # The runtime only fuses an operation whose float result nobody else asks for.
            return self._readers(name)
        return tuple(
            edge for edge in self._readers(name) if edge.node in self.quantised or edge.node not in self.forward
        )

    def _is_float(self, index: int) -> bool:
        return any(name in self.graph.shapes for name in self.graph.nodes[index].output)


def _root(name: str, parents: Mapping[str, str]) -> str:
    while name in parents:
        name = parents[name]
    return name
