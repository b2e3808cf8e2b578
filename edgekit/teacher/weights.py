"""A state dict against the network it is meant for: what does not fit is said by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import BadInputError

__all__ = ["check_weights", "load_weights", "raised_precision", "state_dict_of"]

_SHOWN = 5


def state_dict_of(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """`content` as a state dict.

    Raises:
        BadInputError: It is none; where it wraps one, the hint says which entry.
    """
    tensors = isinstance(content, Mapping) and all(isinstance(value, torch.Tensor) for value in content.values())
    if not tensors or not content:
        wrapped = [key for key in ("state_dict", "model", "net") if isinstance(content, Mapping) and key in content]
        raise BadInputError(
            "The model file is not a state dict.",
            where=str(path),
            expected="a mapping of parameter names to tensors",
            found=f"a mapping that holds {', '.join(wrapped)}" if wrapped else "entries that are not tensors",
            hint=f"save its entry {wrapped[0]!r} on its own" if wrapped else None,
        )
    return dict(content)


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> tuple[str, ...]:
    """Put `state` into `model`, all of it and nothing else.

    Returns:
        Notes: a precision that was raised.

    Raises:
        BadInputError: Names, shapes or kinds of numbers differ, or a value is not finite.
    """
    wanted = model.state_dict()
    differences = [f"missing {name}" for name in wanted if name not in state and not name.endswith("_tracked")]
    differences += [f"unexpected {name}" for name in state if name not in wanted]
    differences += [
        f"{name}: {list(state[name].shape)} in the file, {list(wanted[name].shape)} in the network"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    differences += [
        f"{name}: {_kind(state[name])} in the file, {_kind(wanted[name])} in the network"
        for name in wanted
        if name in state and _kind(state[name]) != _kind(wanted[name])
    ]
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        prefixed = all(name.startswith("module.") for name in state)
        raise BadInputError(
            "The weights do not belong to the architecture.",
            where=str(path),
            found="; ".join(differences[:_SHOWN]) + more,
            hint="remove the prefix 'module.' that DataParallel left" if prefixed else "check --arch and its arguments",
        )
    check_weights(state, path)
    versioned = OrderedDict(state)
    # Modules number the layouts of their weights, and some refuse weights without a number, which no tensor file
    # carries along. Weights of just these names and shapes have this network's layout.
    versioned._metadata = wanted._metadata  # type: ignore[attr-defined]
    # BatchNorm's step counter may be absent; with a fixed momentum nothing reads it.
    model.load_state_dict(versioned, strict=False)
    return raised_precision(state)


def check_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse numbers that no classifier of ours computes with.

    Raises:
        BadInputError: Complex numbers, or values that are not finite.
    """
    complex_names = [name for name, value in state.items() if value.is_complex()]
    if complex_names:
        raise BadInputError(
            "The weights are complex numbers, which edgekit cannot compress or export.",
            where=str(path),
            found=f"{len(complex_names)} tensors, such as " + ", ".join(complex_names[:_SHOWN]),
            hint="store real and imaginary parts as networks of real weights",
        )
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BadInputError(
            "The weights hold values that are not finite.",
            where=str(path),
            found=f"{len(broken)} tensors, such as " + ", ".join(broken[:_SHOWN]),
            hint="the training that made this file diverged, or the file is damaged",
        )


def raised_precision(state: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """The note that weights of another precision than float32 are computed with as float32."""
    kinds = sorted({str(value.dtype).removeprefix("torch.") for value in state.values() if value.is_floating_point()})
    others = [kind for kind in kinds if kind != "float32"]
    return (f"weights stored as {', '.join(others)} are computed with as float32",) if others else ()


def _kind(tensor: torch.Tensor) -> str:
    # Precisions of one kind convert into each other; integers read as weights are somebody's quantised network.
    if tensor.is_complex():
        return "complex numbers"
    return "floating-point numbers" if tensor.is_floating_point() else "whole numbers"
