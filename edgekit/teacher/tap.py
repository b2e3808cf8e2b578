"""The tap: the one activation the map lives on, and the network seen as body (up to it) and head (from it on).

The head is not cut out of the network. It is the whole network with the tapped module's output replaced, so it is
right for any wiring, residual connections around the tap included; what the replacement makes useless is dead code,
which tracing removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.errors import BadInputError

__all__ = ["Tapped", "find_tap", "forward_with_tap", "head_from_tap", "resolve_tap", "tap_candidates"]


@dataclass(frozen=True)
class Tapped:
    """One forward pass, seen at the tap.

    Attributes:
        logits: [N, classes].
        activation: [N, C, h, w], the tapped module's output.
    """

    logits: torch.Tensor
    activation: torch.Tensor


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def forward_with_tap(model: nn.Module, tap: str, images: torch.Tensor) -> Tapped:
    """Run `model` on [N, 3, H, W] and keep what module `tap` put out; gradients flow as in a plain forward pass.

    Raises:
        BadInputError: The module does not exist, or did not run exactly once with a 4-D tensor as output.
    """
    seen: list[Any] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> object:
        seen.append(output)
        return _copied(output)

    with _hooked(_module(model, tap), keep):
        logits = model(images)
    if len(seen) != 1 or not isinstance(seen[0], torch.Tensor) or seen[0].dim() != 4:
        found = f"{len(seen)} calls" if len(seen) != 1 else f"an output of {_described(seen[0])}"
        raise BadInputError(
            f"The module {tap!r} cannot be the tap.",
            expected="one call a forward pass with an output [N, C, h, w]",
            found=found,
            hint="choose another module with --tap; 'edgekit inspect MODEL' lists candidates",
        )
    return Tapped(logits, seen[0])


def head_from_tap(model: nn.Module, tap: str, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function from the tapped activation to the logits, for these very images."""
    module = _module(model, tap)

    def head(activation: torch.Tensor) -> torch.Tensor:
        with _hooked(module, lambda _module, _inputs, _output: _copied(activation)):
            logits: torch.Tensor = model(images)
        return logits

    return head


def tap_candidates(model: nn.Module, images: torch.Tensor) -> dict[str, tuple[int, int, int]]:
    """Every module a map could live on, in the order in which they run: name to channels, height and width.

    Those are the modules that run once and put out a feature map of more than one cell.
    """
    seen: dict[str, tuple[int, int, int]] = {}
    calls: dict[str, int] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
                seen[name] = (output.shape[1], output.shape[2], output.shape[3])

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: size for name, size in seen.items() if calls[name] == 1}


def find_tap(model: nn.Module, images: torch.Tensor) -> str:
    """The last module whose output is a spatial feature map: the layer before pooling or flattening.

    Raises:
        BadInputError: No module puts out a map with more than one cell.
    """
    candidates = tap_candidates(model, images)
    if not candidates:
        raise BadInputError(
            "The network has no spatial feature map for an attribution map to live on.",
            expected="a module with an output [N, C, h, w] of more than one cell",
            found="none",
            hint="edgekit explains convolutional classifiers; a network of linear layers alone has no such map",
        )
    return list(candidates)[-1]


def resolve_tap(model: nn.Module, requested: str | None, images: torch.Tensor) -> str:
    """The tap the card or the user asked for, checked, or the one that is found.

    Raises:
        BadInputError: The module is unsuitable, or the logits do not depend on it.
    """
    tap = requested or find_tap(model, images)
    with torch.no_grad():
        tapped = forward_with_tap(model, tap, images)
        moved = head_from_tap(model, tap, images)(tapped.activation + 1 + tapped.activation.abs())
    if torch.equal(moved, tapped.logits):
        raise BadInputError(
            f"The logits do not depend on the output of {tap!r}, so no map can live there.",
            hint="choose another module with --tap; 'edgekit inspect MODEL' lists candidates",
        )
    return tap


def _module(model: nn.Module, tap: str) -> nn.Module:
    try:
        return model.get_submodule(tap)
    except AttributeError as cause:
        names = [name for name, _ in model.named_modules() if name]
        raise BadInputError(
            f"The network has no module {tap!r}.", expected="one of " + ", ".join(names[-12:]) + " or an earlier one"
        ) from cause


def _copied(activation: Any) -> Any:
    """What the network goes on with, so that a ReLU or addition in place behind the tap leaves the tap's own alone."""
    return activation.clone() if isinstance(activation, torch.Tensor) else activation


def _described(value: Any) -> str:
    return f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else f"type {type(value).__name__}"
