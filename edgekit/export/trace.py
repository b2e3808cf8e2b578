"""The explained network as one flat graph: logits and map, gradient included, with nothing left to differentiate.

torch.export cannot export a function that calls autograd. Tracing it first can: `make_fx` runs the explanation on
symbolic tensors and writes down what autograd does as plain operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from edgekit.errors import BadInputError, DefectError
from edgekit.export.decompositions import DECOMPOSITIONS

__all__ = ["GraphFunction", "NamedInputs", "trace"]

GraphFunction = Callable[..., Any]


def trace(function: GraphFunction, arguments: Sequence[torch.Tensor]) -> fx.GraphModule:
    """Trace `function` with a symbolic batch.

    Args:
        function: Takes tensors, returns tensors; may call `torch.func.vjp` inside. Its network must be in evaluation
            mode and no parameter may require gradients.
        arguments: Example tensors; a batch of two or more, so that 1 is not mistaken for a constant.

    Raises:
        BadInputError: The network's control flow depends on data, or it uses something that cannot be traced.
    """
    if any(len(argument) < 2 for argument in arguments):
        raise DefectError("A graph must be traced with a batch of at least two.")
    tracer = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True, decomposition_table=DECOMPOSITIONS)
    try:
        graph: fx.GraphModule = tracer(*arguments)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as cause:
        raise BadInputError(
            "The network cannot be traced into a graph.",
            found=str(cause).splitlines()[0] if str(cause) else type(cause).__name__,
            hint="edgekit needs a network without control flow that depends on the values of tensors",
        ) from cause
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


class NamedInputs(nn.Module):
    """Gives a traced explanation the input names of an engine."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        # Not called `graph`: torch.export makes a GraphModule of this module, which has a `graph` of its own.
        self.explanation = graph

    def forward(self, image: torch.Tensor, class_index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits [N, classes], and the maps of each tap, [N, h, w] or [N, k, h, w]."""
        return tuple(self.explanation(image, class_index))
