"""Names for the values of a graph: those of the modules they came out of, where the graph knows them."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import fx

__all__ = ["names_of_values"]

_TOKEN_AXES = 3
# Values that are no features of their own: the same numbers laid out in another way, or parts of an attention or of a
# normalisation over the last axis. They have a name where they are a module's output, and none otherwise; else the
# last "map" of a network could be the inside of its head.
_BY_THE_WAY = frozenset(
    {
        "_softmax",
        "_to_copy",
        "_unsafe_view",
        "alias",
        "baddbmm",
        "bmm",
        "chunk",
        "clone",
        "contiguous",
        "detach",
        "einsum",
        "expand",
        "expand_as",
        "flatten",
        "getitem",
        "layer_norm",
        "linear",
        "matmul",
        "movedim",
        "narrow",
        "native_layer_norm",
        "permute",
        "repeat",
        "reshape",
        "scaled_dot_product_attention",
        "select",
        "slice",
        "softmax",
        "split",
        "split_with_sizes",
        "squeeze",
        "t",
        "to",
        "transpose",
        "unbind",
        "unflatten",
        "unsqueeze",
        "view",
    }
)


def names_of_values(graph: fx.Graph) -> dict[fx.Node, list[str]]:
    """Names for every spatial [N, C, h, w] or token-like [N, tokens, channels] floating-point value.

    A value that is the output of modules, each called once, has their names, innermost first. Where the graph does
    not know modules (TorchScript), a value computed from the parameters of one module has that module's name. All
    others have the name of their operation, except for those that are no features of their own.
    """
    outputs = _outputs_of_modules(graph) or _values_of_parameters(graph)
    taken = {name.partition(".")[0] for names in outputs.values() for name in names}
    taken |= {str(node.target).partition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    found: dict[fx.Node, list[str]] = {}
    for node in graph.nodes:
        if node.op != "call_function" or not _is_map(node.meta.get("val")):
            continue
        if node in outputs:
            found[node] = outputs[node]
        elif _operation(node) not in _BY_THE_WAY:
            found[node] = [_free(node.name, taken)]
    return found


def _operation(node: fx.Node) -> str:
    """The name of the operation: "relu" of aten.relu.default, "getitem" of operator.getitem."""
    target: Any = node.target
    return str(getattr(target, "_opname", getattr(target, "__name__", "")))


def _is_map(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() in (3, 4) and value.is_floating_point()


def _axes(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, torch.Tensor) else 0


def _free(name: str, taken: set[str]) -> str:
    # An operation may be called "to" or "float", as methods of every module are.
    while name in taken or hasattr(fx.GraphModule, name):
        name += "_"
    taken.add(name)
    return name


def _outputs_of_modules(graph: fx.Graph) -> dict[fx.Node, list[str]]:
    """Node to the modules whose only output it is."""
    members: dict[str, set[fx.Node]] = defaultdict(set)
    paths: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            for call, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
                members[call].add(node)
                paths[call] = path
    calls: dict[str, int] = defaultdict(int)
    for path in paths.values():
        calls[path] += 1
    found: dict[fx.Node, list[str]] = defaultdict(list)
    for call, path in paths.items():
        leaving = [node for node in members[call] if any(user not in members[call] for user in node.users)]
        if path and calls[path] == 1 and len(leaving) == 1:
            found[leaving[0]].append(path)
    for names in found.values():
        names.sort(key=lambda path: (-path.count("."), path))
    return dict(found)


def _values_of_parameters(graph: fx.Graph) -> dict[fx.Node, list[str]]:
    """Node to the module whose parameters it alone is computed from."""
    users: dict[str, set[fx.Node]] = defaultdict(set)
    owners: dict[fx.Node, set[str]] = defaultdict(set)
    for node in graph.nodes:
        owner = str(node.target).rpartition(".")[0] if node.op == "get_attr" else ""
        for user in node.users if owner else ():
            users[owner].add(user)
            owners[user].add(owner)
    return {
        node: list(owned)
        for node, owned in owners.items()
        # A layer norm or linear layer on [N, H, W, C] lies inside of a module that turns it back.
        if len(owned) == 1
        and len(users[min(owned)]) == 1
        and (_operation(node) not in _BY_THE_WAY or _axes(node) == _TOKEN_AXES)
    }
