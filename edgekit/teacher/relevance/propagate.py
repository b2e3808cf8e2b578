"""The walk from the logits back: every operation hands what it received to its inputs, and each node adds up.

Relevance that reaches a node on several ways is the sum of what came on each, and an addition splits what it has;
that is what keeps a residual network from counting its relevance twice. What a layer or a sum does is the method's
business (`Rules`); routing, element-wise functions and gates are the same for all methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import fx

from edgekit.errors import BadInputError
from edgekit.teacher.relevance.first_layers import Bounds, bounds_before_layers
from edgekit.teacher.relevance.network import LayeredNetwork, Values, module_of, reads
from edgekit.teacher.relevance.operations import Kind, gate_rank, kind_of, operation_of, source_of

__all__ = ["Layer", "Rules", "Sum", "propagate", "pulled"]

Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer `y = apply(x, weight, bias)`, its batch norm merged.

    Attributes:
        x: Its input.
        weight: As torch stores it.
        bias: None for none.
        bounds: Smallest and largest possible `x` where no other layer stands before this one; None elsewhere.
        last: Whether no other layer stands between this one and the logits.
        apply: The layer for any input, weight and bias.
    """

    x: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    bounds: Bounds | None
    last: bool
    apply: Linear


@dataclass(frozen=True)
class Sum:
    """An addition or average: `sum_k part_k(x_k)`, each part linear.

    Attributes:
        inputs: The `x_k`.
        signs: One a part: 1 where its coefficients are positive, -1 where it is subtracted.
        bounds: Smallest and largest possible `x_k` where no layer stands before any of them; None elsewhere.
        apply: The sum for any inputs of these shapes.
    """

    inputs: tuple[torch.Tensor, ...]
    signs: tuple[int, ...]
    bounds: tuple[Bounds, ...] | None
    apply: Callable[..., torch.Tensor]


class Rules(Protocol):
    """What makes one method differ from another."""

    def through_layer(self, layer: Layer, relevance: torch.Tensor) -> torch.Tensor:
        """The relevance of `layer.x`, from that of the layer's output."""

    def through_sum(self, total: Sum, relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The relevance of each of `total.inputs`, from that of the sum."""


def propagate(
    network: LayeredNetwork, values: Values, start: torch.Tensor, rules: Rules, bounds: Bounds
) -> torch.Tensor:
    """Relevance of the tapped node, or of the images, in the shape of that node's value.

    Args:
        network: The operations.
        values: What each computed, from `network.values(images)`.
        start: [N, classes], relevance of the logits.
        rules: The method's rules.
        bounds: Smallest and largest possible images, each broadcastable to them.

    Raises:
        BadInputError: Relevance reaches an operation without a rule, or does not reach the tap.
    """
    walk = _Walk(network, values, rules, bounds)
    pending = {network.logits: (start, True)}
    for node in reversed(network.graph.nodes):
        if node is network.tap and node in pending:
            return pending[node][0]
        if node in (network.tap, network.images):
            break
        if node not in pending:
            continue
        relevance, last = pending.pop(node)
        for source, share in walk.shares(node, relevance, last):
            behind = last and kind_of(node, walk.reading) is not Kind.WEIGHTED
            if source in pending:
                share, behind = share + pending[source][0], behind or pending[source][1]  # noqa: PLW2901
            pending[source] = (share, behind)
    where = "the images" if network.tap_name is None else repr(network.tap_name)
    raise BadInputError(
        f"No relevance reaches {where} from the logits.",
        expected="a network, or a module, whose output the logits are made of; gates and constants receive none",
    )


class _Walk:
    def __init__(self, network: LayeredNetwork, values: Values, rules: Rules, bounds: Bounds) -> None:
        self._values, self._rules = values, rules
        self.reading = reads(network.graph, network.images)
        self._bounds = bounds_before_layers(network, values, self.reading, bounds)

    def shares(self, node: fx.Node, relevance: torch.Tensor, last: bool) -> list[tuple[fx.Node, torch.Tensor]]:
        """What each input that depends on the images receives."""
        kind = kind_of(node, self.reading)
        sources = [source for source in source_of(node).all_input_nodes if source in self.reading]
        if kind is Kind.ELEMENTWISE:
            (source,) = sources
            # An input may be repeated to the size of a constant operand: its copies are one cell.
            return [(source, relevance.sum_to_size(self._values[source].shape))]
        if kind is Kind.PRODUCT:
            signal = self._signal(node, sources)
            return [(signal, relevance.sum_to_size(self._values[signal].shape))]
        if kind is Kind.ROUTING:
            inputs = tuple(self._values[source] for source in sources)
            return list(zip(sources, pulled(self._function(node, sources), inputs, relevance), strict=True))
        if kind is Kind.WEIGHTED and sources == [source_of(node).args[0]]:
            return [(sources[0], self._rules.through_layer(self._layer(node, last), relevance))]
        if kind is Kind.SUM:
            return list(zip(sources, self._rules.through_sum(self._sum(node, sources), relevance), strict=True))
        raise self._no_rule(node)

    def _function(self, node: fx.Node, sources: list[fx.Node]) -> Callable[..., torch.Tensor]:
        """The operation as a function of `sources` alone."""
        operation = source_of(node)

        def function(*inputs: torch.Tensor) -> torch.Tensor:
            known = {**self._values, **dict(zip(sources, inputs, strict=True))}
            result: Any = operation.target(  # type: ignore[operator]
                *fx.map_arg(operation.args, known.__getitem__), **fx.map_arg(operation.kwargs, known.__getitem__)
            )
            output: torch.Tensor = result if operation is node else result[node.args[1]]
            return output

        return function

    def _layer(self, node: fx.Node, last: bool) -> Layer:
        x, weight, *others = node.args
        bias = others[0] if others else None

        def apply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
            further = fx.map_arg(tuple(others[1:]), self._values.__getitem__)
            result: torch.Tensor = node.target(x, weight, bias, *further)  # type: ignore[operator]
            return result

        found = self._bounds.get(x)  # type: ignore[arg-type]
        values = self._values
        return Layer(values[x], values[weight], None if bias is None else values[bias], found, last, apply)  # type: ignore[index]

    def _sum(self, node: fx.Node, sources: list[fx.Node]) -> Sum:
        signs = dict.fromkeys(sources, 1)
        if operation_of(node) in ("aten::sub", "aten::rsub"):
            signs[source_of(node).args[operation_of(node) == "aten::sub"]] = -1  # type: ignore[index]
        if source_of(node).kwargs.get("alpha", 1) != 1:
            raise self._no_rule(node)
        known = [self._bounds[source] for source in sources if source in self._bounds]
        return Sum(
            tuple(self._values[source] for source in sources),
            tuple(signs[source] for source in sources),
            tuple(known) if len(known) == len(sources) else None,
            self._function(node, sources),
        )

    def _signal(self, node: fx.Node, sources: list[fx.Node]) -> fx.Node:
        """The factor that is not the gate: signal takes all.

        Arras et al., "Explaining Recurrent Neural Network Predictions in Sentiment Analysis", WASSA 2017:
        in a product of a gate and a signal the gate decides how much passes and receives no relevance.
        """
        if len(sources) == 2:
            ranked = sorted(
                sources, key=lambda source: (gate_rank(source, self.reading), -self._values[source].numel())
            )
            first, second = ((gate_rank(source, self.reading), self._values[source].numel()) for source in ranked)
            if first != second:
                return ranked[0]
        raise self._no_rule(node, "a product of a signal and a gate (sigmoid, softmax, or broadcast)")

    def _no_rule(self, node: fx.Node, expected: str | None = None) -> BadInputError:
        return BadInputError(
            "Relevance reaches an operation without a rule.",
            where=module_of(node),
            expected=expected or "convolutions, linear layers, batch norms, poolings, additions and concatenations",
            found=operation_of(node),
            hint="read the map at a module behind it, or use a gradient method for this network",
        )


def pulled(
    function: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], seed: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """The transposed derivative of `function` at `inputs`, applied to `seed`."""
    pullback = torch.func.vjp(function, *inputs)[1]
    result: tuple[torch.Tensor, ...] = pullback(seed)
    return result
