"""The explained network as one flat graph: logits and map, gradient included, with nothing left to differentiate.

torch.export cannot export a function that calls autograd. Tracing it first can: `make_fx` runs the explanation on
symbolic tensors and writes down what autograd does as plain operations. Two of those have no ONNX counterpart and are
decomposed here into ones that have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from edgekit.errors import BadInputError, DefectError

__all__ = ["DECOMPOSITIONS", "GraphFunction", "NamedInputs", "trace"]

GraphFunction = Callable[..., Any]


def _convolution_backward(  # noqa: PLR0913, PLR0917 - the signature is torch's
    grad_output: torch.Tensor,
    activation: torch.Tensor,
    weight: torch.Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[torch.Tensor, None, None]:
    """The input gradient of a convolution is the transposed convolution of the output gradient.

    The output padding given to the transposed convolution restores the rows and columns that the stride
    dropped: of the input sizes that give one output size, the transposed convolution must hit the one that was there.
    """
    del bias_sizes, output_padding, output_mask  # they concern gradients that never enter a map
    if transposed:
        raise BadInputError(
            "The head holds a transposed convolution, whose gradient cannot be exported yet.",
            hint="choose a later tap with --tap",
        )
    restored = [
        activation.shape[2 + axis]
        - ((grad_output.shape[2 + axis] - 1) * stride[axis] - 2 * padding[axis])
        - (dilation[axis] * (weight.shape[2 + axis] - 1) + 1)
        for axis in range(len(stride))
    ]
    convolution = torch.ops.aten.convolution.default
    gradient = convolution(grad_output, weight, None, stride, padding, dilation, True, restored, groups)
    return gradient, None, None


def _empty_permuted(size: Sequence[int], physical_layout: Sequence[int], **options: Any) -> torch.Tensor:
    """Backward formulas allocate with a memory layout and fill at once; ONNX has no layouts to keep."""
    del physical_layout
    empty: torch.Tensor = torch.ops.aten.empty.memory_format(size, **options)
    return empty


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.convolution_backward.default: _convolution_backward,
    torch.ops.aten.empty_permuted.default: _empty_permuted,
    **torch._decomp.get_decompositions(
        [
            torch.ops.aten.silu_backward,
            torch.ops.aten.hardswish_backward,
            torch.ops.aten.hardsigmoid_backward,
            torch.ops.aten.hardtanh_backward,
            torch.ops.aten.gelu_backward,
            torch.ops.aten.sigmoid_backward,
            torch.ops.aten.threshold_backward,
            torch.ops.aten.native_batch_norm_backward,
            torch.ops.aten._softmax_backward_data,
        ]
    ),
}


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

    def forward(self, image: torch.Tensor, class_index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [N, classes] and attribution [N, h, w]."""
        logits, attribution = self.explanation(image, class_index)
        return logits, attribution
