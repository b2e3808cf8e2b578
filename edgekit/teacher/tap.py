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

from edgekit.attribution.spec import TapSpec
from edgekit.errors import BadInputError
from edgekit.teacher.layouts import NCHW, Layout

__all__ = ["Tap", "Tapped", "as_tap", "find_module", "forward_with_tap", "head_from_tap", "tap_from_spec"]


@dataclass(frozen=True)
class Tap:
    """Where a map lives.

    Attributes:
        name: Dotted name of the module.
        layout: How its output holds the map.
    """

    name: str
    layout: Layout = NCHW

    def to_spec(self, height: int, width: int) -> TapSpec:
        """The stored form, for maps of `height` x `width`."""
        return TapSpec(self.name, height, width, self.layout.kind, self.layout.prefix_tokens)


@dataclass(frozen=True)
class Tapped:
    """One forward pass, seen at the tap.

    Attributes:
        logits: [N, classes].
        activation: [N, C, h, w], what the tapped module put out.
    """

    logits: torch.Tensor
    activation: torch.Tensor


def as_tap(tap: Tap | str) -> Tap:
    """A bare name stands for a module that puts out [N, C, h, w]."""
    return Tap(tap) if isinstance(tap, str) else tap


def tap_from_spec(spec: TapSpec) -> Tap:
    """The tap that a specification describes."""
    tokens = spec.layout == "tokens"
    return Tap(
        spec.tap, Layout(spec.layout, spec.height if tokens else 0, spec.width if tokens else 0, spec.prefix_tokens)
    )


@contextmanager
def _hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def forward_with_tap(model: nn.Module, tap: Tap | str, images: torch.Tensor) -> Tapped:
    """Run `model` on [N, 3, H, W] and keep what module `tap` put out; gradients flow as in a plain forward pass.

    Raises:
        BadInputError: The module does not exist, did not run exactly once, or put out something else than its layout.
    """
    tap = as_tap(tap)
    seen: list[torch.Tensor] = []
    calls: list[Any] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> object:
        calls.append(output)
        if len(calls) > 1 or not _could_hold(output, tap.layout):
            return output
        assert isinstance(output, torch.Tensor)
        seen.append(tap.layout.to_map(output))
        # What the network goes on with is made from what is kept, so that gradients reach it; and it is a copy, so
        # that a ReLU or addition in place behind the tap leaves the tap's own alone.
        return tap.layout.from_map(seen[0], output).clone()

    with _hooked(find_module(model, tap.name), keep):
        logits = model(images)
    if len(calls) != 1 or not seen:
        found = f"{len(calls)} calls" if len(calls) != 1 else f"an output of {_described(calls[0])}"
        shape = {"nchw": "[N, C, h, w]", "nhwc": "[N, h, w, C]", "tokens": "[N, tokens, C]"}[tap.layout.kind]
        raise BadInputError(
            f"The module {tap.name!r} cannot be the tap.",
            expected=f"one call a forward pass with an output {shape}",
            found=found,
            hint="choose another module with --tap; 'edgekit inspect MODEL' lists candidates",
        )
    return Tapped(logits, seen[0])


def head_from_tap(model: nn.Module, tap: Tap | str, images: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function from the tapped activation [N, C, h, w] to the logits, for these very images."""
    tap = as_tap(tap)
    module = find_module(model, tap.name)

    def head(activation: torch.Tensor) -> torch.Tensor:
        with _hooked(module, lambda _module, _inputs, output: tap.layout.from_map(activation, output).clone()):
            logits: torch.Tensor = model(images)
        return logits

    return head


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The module called `name`. Raises `BadInputError` that lists some there are."""
    try:
        return model.get_submodule(name)
    except AttributeError as cause:
        names = [known for known, _ in model.named_modules() if known]
        raise BadInputError(
            f"The network has no module {name!r}.", expected="one of " + ", ".join(names[-12:]) + " or an earlier one"
        ) from cause


def _could_hold(output: object, layout: Layout) -> bool:
    if not isinstance(output, torch.Tensor) or output.dim() != (3 if layout.kind == "tokens" else 4):
        return False
    return layout.kind != "tokens" or output.shape[1] == layout.prefix_tokens + layout.height * layout.width


def _described(value: Any) -> str:
    return f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else f"type {type(value).__name__}"
