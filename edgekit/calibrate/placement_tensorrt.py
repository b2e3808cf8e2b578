"""Placement for TensorRT: pairs on the inputs of weighted operations, and little else.

TensorRT moves QuantizeLinear upwards and DequantizeLinear downwards through operations that commute, folds ReLU and
additions into the convolution before them, and takes the next operation's QuantizeLinear as that kernel's output
quantiser. So a pair behind a convolution is in the way, except on the skip side of a residual addition, which must be
integers for convolution, addition and ReLU to become one integer kernel. Where the convolution stays in float, it does
the addition in float, and what it computes is rounded nowhere on the way. Rules from TensorRT's public headers and the
code of NVIDIA's Model-Optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.calibrate.graph import IMAGE, PIXELS, Edge, ExplainedGraph
from edgekit.calibrate.placement import (
    ACTIVATION_OPS,
    DATA_MOVERS,
    WEIGHTED_OPS,
    Placement,
    WeightUse,
    find_weight,
    mover_problem,
)

__all__ = ["place_for_tensorrt"]

_NARROW = 16
_UNWANTED = "nothing that reads it computes in integers"
_ADDED_IN_FLOAT = "the convolution that does the addition stays in float"


def place_for_tensorrt(graph: ExplainedGraph, excluded: Mapping[int, str]) -> Placement:
    """Decide what is quantised."""
    return _Placing(graph, excluded).result()


class _Placing:
    """The decisions on one graph, from the logits upwards."""

    def __init__(self, graph: ExplainedGraph, excluded: Mapping[int, str]) -> None:
        self.graph = graph
        self.excluded = excluded
        self.left_float: dict[int, str] = {}
        self.weights: dict[int, WeightUse] = {}
        self.paired: set[str] = set()
        self.quantised: set[int] = set()
        for index in graph.forward:
            if graph.nodes[index].op_type in WEIGHTED_OPS:
                self._decide_weighted(index)
        for index in reversed(graph.forward):
            if graph.nodes[index].op_type in ("Add", "AveragePool"):
                self._decide_join(index)

    def _decide_weighted(self, index: int) -> None:
        use = find_weight(self.graph, index)
        if index in self.excluded:
            self.left_float[index] = f"excluded by {self.excluded[index]!r}"
        elif isinstance(use, str):
            self.left_float[index] = use
        elif self.graph.nodes[index].op_type != "Conv":
            # With one row for each image it is bound by reading the weights once, and a map branch wants them in float.
            self.left_float[index] = "a matrix times one vector an image gains nothing in integers"
        elif (problem := self._shape_problem(use)) is not None:
            self.left_float[index] = problem
        else:
            self.weights[index] = use
            self.quantised.add(index)
            self.paired.add(use.data)

    def _shape_problem(self, use: WeightUse) -> str | None:
        """Why a convolution of this shape is no faster in integers, or None."""
        outputs, per_group, *kernel = self.graph.constant_shape(use.weight)
        groups = self.graph.attribute(use.node, "group", 1)
        inputs = per_group * groups
        if groups > 1:
            pays = outputs % 8 == 0 and min(kernel) >= 3
        elif min(inputs, outputs) >= _NARROW:
            pays = True
        else:
            aligned = inputs % 8 == 0 or outputs % 8 == 0
            pays = (
                aligned and (use.data in (IMAGE, PIXELS) or max(inputs, outputs) >= _NARROW) and len(set(kernel)) == 1
            )
        return None if pays else f"{inputs} to {outputs} channels in {groups} groups are no faster in integers"

    def _decide_join(self, index: int) -> None:
        node = self.graph.nodes[index]
        if index in self.excluded:
            self.left_float[index] = f"excluded by {self.excluded[index]!r}"
        elif len(self.graph.data_inputs(index)) != len(node.input):
            self.left_float[index] = "one of its inputs is stored"
        elif self._result(index) not in self.paired:
            self.left_float[index] = _UNWANTED
        elif node.op_type == "Add" and self._is_added_in_float(index):
            self.left_float[index] = _ADDED_IN_FLOAT
        else:
            self.quantised.add(index)
            self.paired.update(self._quantised_inputs(index))

    def _result(self, index: int) -> str:
        """The operation's result, behind a Relu or Clip that nothing else precedes."""
        name: str = self.graph.nodes[index].output[0]
        readers = self.graph.readers.get(name, ())
        if len(readers) == 1 and self.graph.nodes[readers[0].node].op_type in ACTIVATION_OPS:
            name = self.graph.nodes[readers[0].node].output[0]
        return name

    def _quantised_inputs(self, index: int) -> tuple[str, ...]:
        """Which inputs of an addition or pooling get a pair."""
        inputs = tuple(self.graph.nodes[index].input)
        bare = [name for name in inputs if self._is_bare(name)]
        if len(inputs) != 2 or not bare:
            return inputs
        if len(bare) == 2:
            # The longer branch ends in the kernel that does the addition; the shorter one is computed before it.
            bare = [max(bare, key=lambda name: self._branch_length(name, inputs))]
        return tuple(name for name in inputs if name != bare[0])

    def _is_added_in_float(self, index: int) -> bool:
        """True where no integer convolution can do the addition, and one in float can."""
        inputs = tuple(self.graph.nodes[index].input)
        return not any(self._is_bare(name) for name in inputs) and any(
            (producer := self.graph.producer.get(name)) in self.left_float
            and self.graph.nodes[producer].op_type == "Conv"
            for name in inputs
        )

    def _is_bare(self, name: str) -> bool:
        """True for the result of an integer convolution that nobody else reads."""
        return self.graph.producer.get(name) in self.weights and len(self.graph.readers.get(name, ())) == 1

    def _branch_length(self, name: str, inputs: tuple[str, ...]) -> int:
        """Operations on the longest way from what both inputs of an addition depend on."""
        common = set.intersection(*(self.graph.ancestors([item]) for item in inputs))
        lengths: dict[int, int] = {}
        for index in sorted(self.graph.ancestors([name]) - common):
            before = (self.graph.producer.get(item) for item in self.graph.nodes[index].input)
            lengths[index] = 1 + max((lengths.get(item, 0) for item in before if item is not None), default=0)
        return lengths[self.graph.producer[name]]

    def result(self) -> Placement:
        """Turn the decisions into pairs."""
        activations = tuple(name for name in self.graph.names() if name in self.paired)
        return Placement(
            activations=activations,
            range_of={name: self._range_source(name) for name in activations},
            dequantised_reads={name: self._dequantised_reads(name) for name in activations},
            weights=tuple(self.weights[index] for index in sorted(self.weights)),
            quantised=frozenset(self.quantised),
            left_float=dict(sorted(self.left_float.items())),
        )

    def _dequantised_reads(self, name: str) -> tuple[Edge, ...]:
        """All readers but the operations whose weights stay in float: TensorRT takes data and weights of one kind."""
        return tuple(
            edge
            for edge in self.graph.readers[name]
            if self.graph.nodes[edge.node].op_type not in WEIGHTED_OPS or edge.node not in self.left_float
        )

    def _range_source(self, name: str) -> str:
        """The first paired tensor that `name` is a copy of, itself if it is computed."""
        source = name
        while (index := self.graph.producer.get(name)) is not None:
            if self.graph.nodes[index].op_type not in DATA_MOVERS or mover_problem(self.graph, index) is not None:
                break
            name = self.graph.nodes[index].input[0]
            source = name if name in self.paired else source
        return source
