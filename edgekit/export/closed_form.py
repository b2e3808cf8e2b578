"""The map without gradients, where the head provably is average pooling and one linear layer.

For logits = W mean_hw(A) + b the gradient of logit c with respect to A_k is W[c, k] / (h w) at every cell: a row of W,
whatever the image. That holds only for this very head; so the head is traced and each of its operations is looked at,
and anything not recognised keeps the traced gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgekit.errors import BadInputError, DefectError
from edgekit.export.trace import trace
from edgekit.teacher.class_choice import chosen_classes
from edgekit.teacher.explain import Head, pulled_back
from edgekit.teacher.methods.protocol import AttributionMethod

__all__ = ["PooledLinearGradient", "closed_form", "pooled_linear_weight"]

_aten = torch.ops.aten
_MEANS = {_aten.mean.dim}
_RESHAPES = {_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default, _aten.squeeze.dims}
_IDENTITIES = {_aten.clone.default, _aten.detach.default, _aten.alias.default}


@dataclass(frozen=True)
class PooledLinearGradient:
    """The gradient of a pooled linear head, known without differentiation; stands in for `pulled_back`.

    Attributes:
        weight: [classes, C], the linear layer's.
    """

    weight: torch.Tensor

    def __call__(
        self, head: Head, activation: torch.Tensor
    ) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """Logits, and the function from a chosen class, int32 [N], to its gradient [N, C, 1, 1]."""
        logits = head(activation)
        each_cell = self.weight / (activation.shape[2] * activation.shape[3])
        # The row behind the last is that of no class.
        table = torch.cat([each_cell, torch.zeros_like(each_cell[:1])])

        def gradient(chosen: torch.Tensor) -> torch.Tensor:
            # Not by indexing, which is exported as a gather over coordinates.
            rows = table.index_select(0, chosen.clamp(max=each_cell.shape[0]).to(torch.int64))
            return rows[:, :, None, None]

        return logits, gradient


def closed_form(method: AttributionMethod, head: Head, activation: torch.Tensor) -> PooledLinearGradient | None:
    """The gradient of `head` in closed form, or None where it is not provably equal.

    Args:
        method: The attribution method asked for, to compare its maps.
        head: The network from the tap on, for the images behind `activation`.
        activation: Example [N, C, h, w], N at least 2.

    Raises:
        DefectError: The head looked right and yet the two forms differ: the proof itself is wrong.
    """
    weight = pooled_linear_weight(head, activation)
    if weight is None:
        return None
    candidate = PooledLinearGradient(weight)
    own = torch.full((len(activation), 1), -1, dtype=torch.int32)
    expected, found = (
        method(activation, gradient(chosen_classes(logits, own)[:, 0]))
        for logits, gradient in (pulled_back(head, activation), candidate(head, activation))
    )
    if not torch.allclose(found, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max()) + 1e-12):
        raise DefectError("The closed form of the map differs from its gradient.", where=method.name)
    return candidate


def pooled_linear_weight(head: Head, activation: torch.Tensor) -> torch.Tensor | None:
    """The linear layer's weight [classes, C] of a head that pools globally and then is one linear layer, else None."""
    try:
        graph = trace(head, (activation,))
    except BadInputError:
        # Not traceable as a function of the activation alone; the caller's own trace reports it properly.
        return None
    return _HeadReader(graph, activation).weight()


class _HeadReader:
    """Follows the one chain of operations from activation to logits."""

    def __init__(self, graph: fx.GraphModule, activation: torch.Tensor) -> None:
        self._graph = graph
        self._channels = activation.shape[1]

    def weight(self) -> torch.Tensor | None:
        placeholder = next(node for node in self._graph.graph.nodes if node.op == "placeholder")
        node: fx.Node = placeholder
        pooled = False
        while True:
            step = self._only_user(node)
            if step is None or step.op != "call_function":
                return None
            if step.target in _IDENTITIES:
                pass
            elif not pooled:
                if not self._is_global_mean(step, node):
                    return None
                pooled = True
            elif not self._is_flatten(step):
                return self._linear(step, node)
            node = step

    @staticmethod
    def _only_user(node: fx.Node) -> fx.Node | None:
        # Sizes of a symbolic batch are read off the tensor; they carry no values and so no gradient.
        users = [user for user in node.users if user.target not in (_aten.sym_size.int,)]
        return users[0] if len(users) == 1 else None

    @staticmethod
    def _is_global_mean(step: fx.Node, node: fx.Node) -> bool:
        if step.target in _MEANS and len(step.args) > 1 and isinstance(step.args[1], (list, tuple)):
            dims: list[Any] = list(step.args[1])
            return step.args[0] is node and sorted(int(dim) % 4 for dim in dims) == [2, 3]
        if step.target is _aten._adaptive_avg_pool2d.default:
            return step.args[0] is node and list(step.args[1]) == [1, 1]  # type: ignore[arg-type]
        return False

    def _is_flatten(self, step: fx.Node) -> bool:
        value = step.meta.get("val")
        return (
            step.target in _RESHAPES
            and value is not None
            and tuple(value.shape[1:])
            in (
                (self._channels,),
                (self._channels, 1, 1),
            )
        )

    def _linear(self, step: fx.Node, node: fx.Node) -> torch.Tensor | None:
        if step.target is _aten.addmm.default and len(step.args) == 3 and not step.kwargs:
            _, left, right = step.args
        elif step.target is _aten.mm.default:
            left, right = step.args
        else:
            return None
        outputs = next(item for item in self._graph.graph.nodes if item.op == "output").args[0]
        is_last = outputs is step or (isinstance(outputs, (list, tuple)) and list(outputs) == [step])
        if left is not node or not is_last or not isinstance(right, fx.Node):
            return None
        if right.target is _aten.t.default:
            source, transpose = right.args[0], False
        else:
            source, transpose = right, True
        if not isinstance(source, fx.Node) or source.op != "get_attr":
            return None
        attribute: Callable[[Any], Any] = _attribute_getter(str(source.target))
        weight: torch.Tensor = attribute(self._graph)
        return (weight.t() if transpose else weight).detach()


def _attribute_getter(dotted: str) -> Callable[[Any], Any]:
    def read(root: Any) -> Any:
        for part in dotted.split("."):
            root = getattr(root, part)
        return root

    return read
