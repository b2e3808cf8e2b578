"""The forward path of an explained graph as a torch network: the very operations that the engine will run, trainable.

The network's own modules are not used. Only so is the rounded forward pass the quantised graph by construction:
`Quantiser` rounds the same tensors at the same places as the pairs that `calibrate.qdq` writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.calibrate.graph import IMAGE, LOGITS, Edge, ExplainedGraph
from edgekit.calibrate.placement import WEIGHTED_OPS
from edgekit.errors import BadInputError
from edgekit.qat.nodes import NodeView, Operation
from edgekit.qat.operations import OPERATIONS
from edgekit.qat.quantiser import ForwardPass, Quantiser

__all__ = ["Interpreter", "dequantised", "weight_names"]


def dequantised(name: str) -> str:
    """What the rounded form of a tensor is called, here as in the quantised graph."""
    return f"{name}/dequantised"


def weight_names(graph: ExplainedGraph) -> frozenset[str]:
    """Stored float32 weights and biases of Conv, Gemm and MatMul that nothing else on the way to the logits reads."""
    wanted: set[str] = set()
    others: set[str] = set()
    for index in graph.forward:
        node = graph.nodes[index]
        for slot, name in enumerate(node.input):
            if name and graph.is_constant(name):
                (wanted if slot > 0 and node.op_type in WEIGHTED_OPS else others).add(name)
    return frozenset(name for name in wanted - others if graph.constant(name).dtype == np.float32)


class Interpreter(nn.Module):
    """Runs the nodes on the way to the logits.

    Args:
        graph: The explained FP32 graph; it must take any batch.
        trainable: Stored tensors that are parameters; all others stay as they are.
        quantiser: Rounds as the target does; None computes in float32 throughout.
        tapped: Tensors at which a tap can be put: `taps.0` is an identity at the first of them, and so on. It stands
            behind the rounding where all that follows reads the rounded tensor, as the map's branch does.

    Raises:
        BadInputError: An operator has no place in `OPERATIONS`, the graph takes one batch alone, or a tapped tensor
            is not on the way to the logits.
    """

    def __init__(
        self,
        graph: ExplainedGraph,
        trainable: Collection[str],
        quantiser: Quantiser | None = None,
        tapped: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._graph = graph
        self._nodes = _checked_nodes(graph)
        self._places: dict[str, str] = {}
        self._numbers: dict[str, torch.Tensor] = {}
        self.weights = nn.ParameterDict()
        self.constants = nn.Module()
        self._store(trainable)
        self.quantiser = quantiser
        self.taps = nn.ModuleList(nn.Identity() for _ in tapped)
        self._tap_of = {name: place for place, name in enumerate(tapped)}
        made = {name for index, _, _ in self._nodes for name in graph.nodes[index].output}
        self._check_taps(made)
        self._behind = {name for name in tapped if self._rounded_for_all(name)}

    def _store(self, trainable: Collection[str]) -> None:
        read = dict.fromkeys(name for index, _, _ in self._nodes for name in self._graph.nodes[index].input)
        for number, name in enumerate(name for name in read if name and self._graph.is_constant(name)):
            value = torch.from_numpy(np.array(self._graph.constant(name)))
            # Torch allows no dot in a name, and ONNX anything.
            place = f"{number}_{''.join(letter if letter.isalnum() else '_' for letter in name)}"
            if name in trainable:
                self.weights[place] = nn.Parameter(value)
                self._places[name] = place
            elif value.is_floating_point() and value.dim() > 0:
                # Not among the weights that training checks: a mask may hold infinities.
                self.constants.register_buffer(place, value, persistent=False)
                self._places[name] = place
            else:
                # Read as numbers by the operations, so never on another device.
                self._numbers[name] = value

    def _check_taps(self, made: Collection[str]) -> None:
        for name in self._tap_of:
            if name not in made:
                raise BadInputError(
                    "A tapped tensor is not on the way to the logits in the exported graph.", found=repr(name)
                )

    def _rounded_for_all(self, name: str) -> bool:
        if self.quantiser is None or name not in self.quantiser.reads:
            return False
        inside = set(self._graph.forward)
        return all(
            edge in self.quantiser.reads[name] for edge in self._graph.readers.get(name, ()) if edge.node in inside
        )

    def stored(self, name: str) -> torch.Tensor:
        """A stored tensor as it is now: a parameter where it is trainable."""
        if name in self._numbers:
            return self._numbers[name]
        place = self._places[name]
        if place in self.weights:
            parameter: torch.Tensor = self.weights[place]
            return parameter
        buffer: torch.Tensor = getattr(self.constants, place)
        return buffer

    @property
    def trainable(self) -> Mapping[str, torch.Tensor]:
        """The stored tensors that are parameters, by their name in the graph."""
        return {name: self.weights[place] for name, place in self._places.items() if place in self.weights}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, classes] of images float32 [N, 3, H, W]."""
        return self.values(images)[LOGITS]

    def values(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Every tensor on the way, and the rounded form of each that has a pair, under `dequantised` of its name."""
        values: dict[str, torch.Tensor] = {}
        begun = None if self.quantiser is None else self.quantiser.begin(self.stored)
        self._keep(values, begun, IMAGE, images)
        for index, view, operation in self._nodes:
            node = self._graph.nodes[index]
            inputs = [self._read(values, begun, Edge(index, slot), name) for slot, name in enumerate(node.input)]
            result = operation(view, inputs)
            for name, tensor in zip(node.output, result if isinstance(result, tuple) else (result,), strict=False):
                if name:
                    self._keep(values, begun, name, tensor)
        return values

    def _read(
        self, values: Mapping[str, torch.Tensor], begun: ForwardPass | None, edge: Edge, name: str
    ) -> torch.Tensor | None:
        if not name:
            return None
        if begun is not None and edge in begun.replaced:
            return begun.replaced[edge]
        if name in values:
            rounded = self.quantiser is not None and edge in self.quantiser.reads.get(name, ())
            return values[dequantised(name) if rounded else name]
        return self.stored(name)

    def _keep(
        self, values: dict[str, torch.Tensor], begun: ForwardPass | None, name: str, tensor: torch.Tensor
    ) -> None:
        tap = self._tap_of.get(name)
        if tap is not None and name not in self._behind:
            tensor = self.taps[tap](tensor)
        values[name] = tensor
        if self.quantiser is not None and begun is not None and name in self.quantiser.reads:
            rounded = self.quantiser.activation(name, tensor, begun)
            values[dequantised(name)] = rounded if tap is None or name not in self._behind else self.taps[tap](rounded)


def _checked_nodes(graph: ExplainedGraph) -> tuple[tuple[int, NodeView, Operation], ...]:
    if graph.batch is not None:
        raise BadInputError(
            "The graph takes batches of one size alone, and training wants others.",
            expected="export.batch 0",
            found=f"export.batch {graph.batch}",
        )
    kinds = sorted({graph.nodes[index].op_type for index in graph.forward} - OPERATIONS.keys() - {"Constant"})
    if kinds:
        raise BadInputError(
            "The graph cannot be trained with quantisation: it has operators that are not known here.",
            expected=", ".join(OPERATIONS),
            found=", ".join(kinds),
            hint="set qat.epochs to 0",
        )
    read = {name for index in graph.forward for name in graph.nodes[index].input}
    nodes = []
    for index in graph.forward:
        node = graph.nodes[index]
        if node.op_type == "Constant":
            continue
        asked = [place for place, name in enumerate(node.output, start=1) if name in read or name == LOGITS]
        view = NodeView(
            kind=node.op_type,
            name=node.name or node.output[0],
            attributes={item.name: _plain(item) for item in node.attribute},
            results=max(asked, default=1),
        )
        nodes.append((index, view, OPERATIONS[node.op_type]))
    return tuple(nodes)


def _plain(attribute: Any) -> Any:
    from onnx.helper import get_attribute_value

    value = get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value
