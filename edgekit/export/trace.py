"""The explained network as one flat graph: logits and map, gradient included, with nothing left to differentiate.

torch.export cannot export a function that calls autograd. Tracing it first can: `make_fx` runs the explanation on
symbolic tensors and writes down what autograd does as plain operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgekit.errors import BadInputError, DefectError
from edgekit.export.decompositions import DECOMPOSITIONS
from edgekit.export.fake_quantised import frozen_observers
from edgekit.export.frozen import check_frozen, evaluating
from edgekit.export.module_names import ModuleNames
from edgekit.export.plain_functions import PlainFunctions

__all__ = ["GraphFunction", "NamedInputs", "trace"]

GraphFunction = Callable[..., Any]


def trace(
    function: GraphFunction, arguments: Sequence[torch.Tensor], network: nn.Module | None = None
) -> fx.GraphModule:
    """Trace `function` with a symbolic batch.

    Args:
        function: Takes tensors, returns tensors; may call `torch.func.vjp` inside. No parameter of its network may
            require gradients.
        arguments: Example tensors; a batch of two or more, so that 1 is not mistaken for a constant.
        network: The network that `function` runs. It is put into evaluation mode meanwhile, and the graph's nodes
            carry the names of its modules (`module_names.module_of`).

    Raises:
        BadInputError: The network's control flow depends on data, it draws random numbers even in evaluation mode, or
            it uses something that cannot be traced.
    """
    if any(len(argument) < 2 for argument in arguments):
        raise DefectError("A graph must be traced with a batch of at least two.")
    names = ModuleNames(network if network is not None else nn.Module())

    def named(*inputs: torch.Tensor) -> Any:
        with names.recording():
            return function(*inputs)

    tracer = make_fx(named, tracing_mode="symbolic", _allow_non_fake_inputs=True, decomposition_table=DECOMPOSITIONS)
    try:
        with _traceable(network):
            graph: fx.GraphModule = tracer(*_with_free_batch(arguments))
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as cause:
        raise BadInputError(
            "The network cannot be traced into a graph.",
            where=None if names.failed_in is None else f"module {names.failed_in!r}",
            found=str(cause).splitlines()[0] if str(cause) else type(cause).__name__,
            hint="edgekit needs a network without control flow that depends on the values of tensors, and without "
            "operations of its own that torch cannot differentiate",
        ) from cause
    # Before dead code goes: elimination keeps what is random, and would hide batch statistics nobody reads.
    check_frozen(graph)
    _check_free_batch(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _with_free_batch(arguments: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The arguments without values, their first axis a symbol they share and the others numbers.

    Left to itself, `make_fx` makes symbols of all sizes, and spends minutes on proving what becomes of their quotients.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    return [
        mode.from_tensor(
            argument,
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[DimDynamic.DUCK, *[DimDynamic.STATIC] * (argument.dim() - 1)]
            ),
            source=ConstantSource(f"argument_{place}"),
        )
        for place, argument in enumerate(arguments)
    ]


def _check_free_batch(graph: fx.GraphModule) -> None:
    """The sizes of the example must have stayed symbols where they are the batch's."""
    for node in graph.graph.nodes:
        if node.op == "placeholder" and str(node.meta["val"].shape[0]).isdigit():
            raise BadInputError(
                "The network asks for the number of images, so its graph holds for that of the example alone.",
                expected="a network that takes any batch",
                found=f"a batch of {node.meta['val'].shape[0]} written into the graph",
                hint="write x.shape[0] in place of len(x) and int(x.shape[0]) in the network",
            )


@contextmanager
def _traceable(network: nn.Module | None) -> Iterator[None]:
    """What torch does differently while a graph is written, so that the batch stays free and every operation plain."""
    with ExitStack() as stack:
        if network is not None:
            stack.enter_context(evaluating(network))
            stack.enter_context(frozen_observers(network))
        # Fused attention has no ONNX form for its gradient; as products and a softmax it has.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(PlainFunctions())
        yield


class NamedInputs(nn.Module):
    """Gives a traced explanation the input names of an engine."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__()
        # Not called `graph`: torch.export makes a GraphModule of this module, which has a `graph` of its own.
        self.explanation = graph

    def forward(self, image: torch.Tensor, class_index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits [N, classes], and the maps of each tap, [N, h, w] or [N, k, h, w]."""
        # Node by node, since the graph's own code would be traced anew without the modules' names.
        with traceback.preserve_node_meta():
            return tuple(fx.Interpreter(self.explanation).run(image, class_index))
