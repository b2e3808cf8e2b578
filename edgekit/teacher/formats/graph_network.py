"""A graph as the network that the rest of edgekit expects: in evaluation mode, in float32, with modules to hook.

Activations are found and tapped through `named_modules` and forward hooks. A graph has none, so every spatial or
token-like value goes through an identity that has the name of the module whose output it was, or of its operation.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from edgekit.errors import BadInputError
from edgekit.teacher.formats.graph_checks import check_graph
from edgekit.teacher.formats.graph_names import names_of_values
from edgekit.teacher.logits import choose_logits
from edgekit.teacher.weights import check_weights, raised_precision

__all__ = ["check_batch", "graph_network"]

_HALF = {torch.float16, torch.bfloat16}
# Operations that only check what was true at export; the checks of edgekit say what is wrong in words.
_ASSERTIONS = ("_assert", "sym_constrain_range")


class _Point(nn.Identity):
    """Where a value can be tapped; also holds the parameters of the module whose name it has."""


def graph_network(
    graph: fx.GraphModule, outputs: Sequence[str], path: Path, parameters: Set[str] = frozenset()
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Make a network of an exported graph.

    Args:
        graph: Takes one tensor [N, 3, H, W]; its nodes carry the shapes that torch.export found.
        outputs: Names of what it returns.
        path: For messages.
        parameters: Names of weights that are parameters although the graph holds them as mere tensors.

    Returns:
        A module that answers the logits [N, classes], and notes.

    Raises:
        BadInputError: It is in training mode, draws random numbers, changes its own state, has complex or non-finite
            weights, or does not say which output the logits are.
    """
    plain = graph.graph
    plain.set_codegen(fx.graph.CodeGen())
    for node in list(plain.nodes):
        if node.op == "call_module" or (node.op == "call_function" and _is_assertion(node)):
            plain.erase_node(node)
    check_graph(plain, path)
    notes = _take_logits(plain, outputs, path)
    plain.eliminate_dead_code()
    root = _root(graph, plain, parameters)
    state = root.state_dict()
    check_weights(state, path)
    notes += raised_precision(state)
    _compute_in_float32(plain, state)
    root.float()
    for node, names in names_of_values(plain).items():
        _insert_points(plain, root, node, names)
    network = fx.GraphModule(root, plain)
    for name, child in root.named_children():
        network.add_module(name, child)
    return network, notes


def check_batch(batch: Any, path: Path) -> None:
    """Refuse a graph that was made for one size of batch.

    Raises:
        BadInputError: `batch` is a number and no symbol.
    """
    if isinstance(batch, int):
        raise BadInputError(
            "The program only takes batches of one size.",
            where=str(path),
            expected="a batch of any size",
            found=f"batches of {batch}",
            hint='export it with dynamic_shapes=({0: torch.export.Dim("batch")},) and two example images or more',
        )


def _is_assertion(node: fx.Node) -> bool:
    return getattr(node.target, "__name__", "").startswith(_ASSERTIONS)


def _take_logits(graph: fx.Graph, names: Sequence[str], path: Path) -> tuple[str, ...]:
    output = next(node for node in graph.nodes if node.op == "output")
    returned = output.args[0]
    flat = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    parts: dict[str, Any] = dict(zip(names, flat, strict=len(names) == len(flat)))
    values = {name: node.meta.get("val") if isinstance(node, fx.Node) else node for name, node in parts.items()}
    name = choose_logits(values, str(path))
    chosen: Any = values[name]
    check_batch(chosen.shape[0], path)
    output.args = (parts[name],)
    if len(flat) == 1:
        return ()
    return (f"the program has {len(flat)} outputs; {name!r} is taken as the logits",)


def _root(graph: fx.GraphModule, plain: fx.Graph, parameters: Set[str]) -> nn.Module:
    """The parameters and buffers that are used, under their own names."""
    root = nn.Module()
    for node in plain.nodes:
        if node.op != "get_attr":
            continue
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(graph.get_submodule(owner), name)
        place = _place(root, owner) if owner else root
        if isinstance(value, nn.Parameter) or node.target in parameters:
            place.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))
        else:
            place.register_buffer(name, value)
    return root


def _place(root: nn.Module, path: str) -> nn.Module:
    place = root
    for part in path.split("."):
        if part not in place._modules:
            place.add_module(part, _Point())
        place = place.get_submodule(part)
    return place


def _compute_in_float32(graph: fx.Graph, state: dict[str, torch.Tensor]) -> None:
    lowered = set(_HALF)
    if any(value.dtype == torch.float64 for value in state.values()):
        lowered.add(torch.float64)

    def raised(value: Any) -> Any:
        return torch.float32 if isinstance(value, torch.dtype) and value in lowered else value

    for node in graph.nodes:
        node.args = fx.node.map_aggregate(node.args, raised)
        node.kwargs = fx.node.map_aggregate(node.kwargs, raised)


def _insert_points(graph: fx.Graph, root: nn.Module, node: fx.Node, names: Sequence[str]) -> None:
    last = node
    for name in names:
        _place(root, name)
        with graph.inserting_after(last):
            point = graph.create_node("call_module", name, (last,))
        point.meta = dict(node.meta)
        last.replace_all_uses_with(point, delete_user_cb=partial(operator.is_not, point))
        last = point
