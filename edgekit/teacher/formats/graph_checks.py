"""What a graph shows of the mode it was exported in: evaluation is required, and cannot be had afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from edgekit.errors import BadInputError

__all__ = ["check_graph"]

_MODES = ("training", "train")
_PLAIN_MODULES = ("_operator", "math", "torch")


def check_graph(graph: fx.Graph, path: Path) -> None:
    """Refuse a graph that does not answer the same for the same image.

    Raises:
        BadInputError: Batch norm or dropout are in training mode, random numbers are drawn, its own buffers are
            changed, or a part of it is no operation on tensors.
    """
    calls = [node for node in graph.nodes if node.op == "call_function"]
    for node in calls:
        if not isinstance(node.target, OpOverload):
            _check_plain(node, path)
    operations = [node for node in calls if isinstance(node.target, OpOverload)]
    # First of all, because a batch norm in training mode changes its state as well, and this says why.
    for node in operations:
        if _is_training(_arguments(node)):
            raise BadInputError(
                "The program was exported in training mode.",
                where=str(path),
                expected="batch norm with its stored statistics, and no dropout",
                found=f"{node.target} in training mode",
                hint="call model.eval(), and export it again",
            )
    for node in operations:
        _check_repeatable(node, path)


def _check_repeatable(node: fx.Node, path: Path) -> None:
    target: Any = node.target
    if torch.Tag.nondeterministic_seeded in target.tags and not _is_silenced(_arguments(node)):
        raise BadInputError(
            "The program draws random numbers, so its answers and maps are not those of the image alone.",
            where=str(path),
            found=str(target),
            hint="call model.eval() before exporting, and leave out what is random there too",
        )
    changed = node.args[0] if node.args else None
    if target._schema.is_mutable and isinstance(changed, fx.Node) and changed.op == "get_attr":
        raise BadInputError(
            "The program changes its own state from one batch to the next.",
            where=str(path),
            found=f"{target} on {changed.target}",
            hint="call model.eval() before exporting",
        )


def _check_plain(node: fx.Node, path: Path) -> None:
    # Arithmetic on sizes, and parts of a tuple, are Python functions; everything else would be control flow.
    if getattr(node.target, "__module__", None) not in _PLAIN_MODULES:
        raise BadInputError(
            "The program holds something other than operations on tensors.",
            where=str(path),
            found=str(node.target),
            hint="edgekit needs a network without control flow that depends on the values of tensors",
        )


def _arguments(node: fx.Node) -> dict[str, Any]:
    target: Any = node.target
    given = {item.name: item.default_value for item in target._schema.arguments if item.has_default_value()}
    given |= {item.name: value for item, value in zip(target._schema.arguments, node.args, strict=False)}
    return given | dict(node.kwargs)


def _is_training(given: dict[str, Any]) -> bool:
    if not any(given.get(name) is True for name in _MODES):
        return False
    if "running_mean" in given:
        # Without stored statistics a batch norm computes them in evaluation mode too.
        return given["running_mean"] is not None
    return bool(given.get("p", 1))


def _is_silenced(given: dict[str, Any]) -> bool:
    """Whether an operation that can draw random numbers was told not to."""
    if any(name in given for name in _MODES):
        return True
    return any(given[name] == 0 for name in ("dropout_p", "dropout", "p") if name in given)
