"""A network taken apart into its operations, with every batch norm that follows a layer merged into that layer.

`torch.export` writes the network down as ATen operations, none of them in place, whatever Python it was written in:
modules and functions look the same. Each operation has one output tensor or several, and keeps the name of the module
it ran in.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from edgekit.errors import BadInputError, DefectError
from edgekit.teacher.relevance.batch_norm import merge_batch_norms
from edgekit.teacher.tap import forward_with_tap

__all__ = ["LayeredNetwork", "Values", "layered", "module_of", "reads"]

Values = dict[fx.Node, Any]
_SIZES = (torch.ops.aten.sym_size.int, torch.ops.aten.sym_numel.default, torch.ops.aten.sym_stride.int)
# Relative to the largest logit: merging a batch norm reorders roundings and changes nothing else.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


@dataclass(frozen=True)
class LayeredNetwork:
    """The operations of a network, in the order in which they run.

    Attributes:
        graph: ATen operations; placeholders are the images and the constants.
        constants: What every node that does not read the images computes: parameters and buffers, copies of the
            model's own, and whatever is made of these alone.
        images: The placeholder of the images.
        logits: The node that computes the logits.
        tap_name: The module whose output was asked for, None for none.
        tap: The node that computes that output; `images` when none was asked for.
    """

    graph: fx.Graph
    constants: Values
    images: fx.Node
    logits: fx.Node
    tap_name: str | None
    tap: fx.Node

    def values(self, images: torch.Tensor) -> Values:
        """What every node computes for these images [N, C, H, W]."""
        with torch.no_grad():
            return _run(self.graph, {**self.constants, self.images: images})


def layered(model: nn.Module, images: torch.Tensor, tap: str | None = None) -> LayeredNetwork:
    """Take `model` apart.

    Args:
        model: In evaluation mode; its present weights are copied.
        images: Example batch [N, C, H, W]; height and width are those of every later batch, N is free where the
            network leaves it free.
        tap: A module whose output will be asked for; None for none.

    Raises:
        BadInputError: The model is in training mode, cannot be written down as a graph, or has no such tap.
        DefectError: The parts do not compute what the whole computes.
    """
    if any(module.training for module in model.modules()):
        raise BadInputError(
            "Relevance is propagated through a network in evaluation mode.", found="training mode", hint="call .eval()"
        )
    program = _exported(model, images)
    graph = program.graph
    signature = program.graph_signature
    tensors = {**program.state_dict, **program.constants}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names.update(signature.inputs_to_lifted_tensor_constants)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    constants: Values = {
        node: tensors[names[node.name]].detach().clone() for node in placeholders if node.name in names
    }
    (pixels,) = (node for node in placeholders if node not in constants)
    (results,) = next(node for node in graph.nodes if node.op == "output").args
    if len(results) != 1:
        raise BadInputError("A classifier has one output, its logits.", found=f"{len(results)} outputs")
    values = _run(graph, {**constants, pixels: images})
    for node in graph.nodes:
        if node.op == "call_function" and all(source in constants for source in node.all_input_nodes):
            constants[node] = values[node]
    marked = pixels if tap is None else _tap_node(graph, values, model, tap, images)
    expected = values[results[0]]
    merged = merge_batch_norms(graph, constants)
    network = LayeredNetwork(
        graph, constants, pixels, merged.get(results[0], results[0]), tap, merged.get(marked, marked)
    )
    with torch.no_grad():
        whole = model(images)
    _check_equal(network.values(images)[network.logits], expected, whole)
    return network


def reads(graph: fx.Graph, images: fx.Node) -> set[fx.Node]:
    """The nodes whose value depends on the values of the images, `images` included; on their size alone is not that."""
    found = {images}
    for node in graph.nodes:
        if any(source in found for source in node.all_input_nodes) and node.target not in _SIZES:
            found.add(node)
    return found


def module_of(node: fx.Node) -> str:
    """Dotted name of the module an operation ran in, for messages; "the network itself" at the top."""
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return path or "the network itself"


def _exported(model: nn.Module, images: torch.Tensor) -> Any:
    batch = torch.export.Dim.AUTO
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Torch warns of its own deprecated calls.
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},), strict=False)
            # An empty table: nothing is decomposed, but changes in place are replaced.
            return program.run_decompositions({})
    except Exception as cause:  # torch.export raises nearly anything on what it cannot trace
        raise BadInputError(
            "The network cannot be taken apart into its operations.",
            found=(str(cause).splitlines() or [type(cause).__name__])[0],
            hint="relevance needs a network without control flow that depends on the values of tensors",
        ) from cause


def _run(graph: fx.Graph, known: Values) -> Values:
    values = dict(known)
    for node in graph.nodes:
        if node.op == "call_function" and node not in values:
            arguments = fx.map_arg(node.args, values.__getitem__)
            keywords = fx.map_arg(node.kwargs, values.__getitem__)
            values[node] = node.target(*arguments, **keywords)
    return values


def _tap_node(graph: fx.Graph, values: Values, model: nn.Module, tap: str, images: torch.Tensor) -> fx.Node:
    """The last operation inside the module, checked against what the module really puts out."""
    with torch.no_grad():
        expected = forward_with_tap(model, tap, images).activation
    inside: list[fx.Node] = [
        node
        for node in graph.nodes
        if any(path == tap for path, _ in (node.meta.get("nn_module_stack") or {}).values())
        and node.op == "call_function"
    ]
    for node in reversed(inside):
        value = values[node]
        if isinstance(value, torch.Tensor) and value.shape == expected.shape and torch.allclose(value, expected):
            return node
    raise BadInputError(
        f"The output of {tap!r} is not computed by an operation of that module, or has no part in the logits.",
        hint="name the module that computes it; 'edgekit inspect MODEL' lists candidates",
    )


def _check_equal(found: torch.Tensor, apart: torch.Tensor, whole: torch.Tensor) -> None:
    scale = float(whole.abs().max().clamp(min=torch.finfo(whole.dtype).tiny))
    for step, logits in (("taking it apart", apart), ("merging its batch norms", found)):
        error = float((logits - whole).abs().max()) / scale
        if not error <= _TOLERANCE.get(whole.dtype, _TOLERANCE[torch.float32]):
            raise DefectError(
                f"The network answers differently after {step}.",
                expected="the same logits",
                found=f"a relative difference of {error:.3g}",
            )
