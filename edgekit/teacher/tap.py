"""The tap: the one activation the map lives on, and the network seen as body (up to it) and head (from it on).

The head is not cut out of the network. It is the whole network with the tapped module's output replaced, so it is
right for any wiring, residual connections around the tap included; what the replacement makes useless is dead code,
which tracing removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.attribution.spec import TapSpec
from edgekit.errors import BadInputError
from edgekit.teacher.layouts import NCHW, Layout

__all__ = [
    "Tap",
    "Tapped",
    "as_tap",
    "find_module",
    "forward_with_tap",
    "forward_with_taps",
    "head_from_tap",
    "tap_from_spec",
]


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
    """One forward pass, seen at its taps.

    Attributes:
        logits: [N, classes].
        activations: What each tapped module put out, [N, C, h, w] with sizes of its own.
    """

    logits: torch.Tensor
    activations: tuple[torch.Tensor, ...]

    @property
    def activation(self) -> torch.Tensor:
        """What the first tapped module put out."""
        return self.activations[0]


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
    """`forward_with_taps` at one tap."""
    return forward_with_taps(model, (as_tap(tap),), images)


def forward_with_taps(
    model: nn.Module,
    taps: Sequence[Tap],
    images: torch.Tensor,
    *,
    beyond: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Tapped:
    """Run `model` on [N, 3, H, W] and keep what the `taps` put out; gradients flow as in a plain forward pass.

    Args:
        model: The network.
        taps: Where to look.
        images: [N, 3, H, W].
        beyond: A context for what runs after the first tapped module has, where gradients of the answer begin.

    Raises:
        BadInputError: A module does not exist, did not run exactly once, or put out something else than its layout.
    """
    with ExitStack() as contexts:
        seen = [_Seen(tap) for tap in taps]

        def keep(each: _Seen, output: object) -> object:
            if not any(other.called for other in seen):
                contexts.enter_context(beyond())
            return each.keep(output)

        for each in seen:
            hook = _hooked(
                find_module(model, each.tap.name), lambda _module, _inputs, output, each=each: keep(each, output)
            )
            contexts.enter_context(hook)
        logits = model(images)
    return Tapped(logits, tuple(each.activation() for each in seen))


class _Seen:
    """What one tap saw in one forward pass."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self._calls: list[Any] = []
        self._kept: list[torch.Tensor] = []

    @property
    def called(self) -> bool:
        """Whether the module has run."""
        return bool(self._calls)

    def keep(self, output: object) -> object:
        """Take note of the tapped module's output, and return what the network goes on with."""
        self._calls.append(output)
        if len(self._calls) > 1 or not _could_hold(output, self.tap.layout):
            return output
        assert isinstance(output, torch.Tensor)
        self._kept.append(self.tap.layout.to_map(output))
        # What the network goes on with is made from what is kept, so that gradients reach it; and it is a copy, so
        # that a ReLU or addition in place behind the tap leaves the tap's own alone.
        return self.tap.layout.from_map(self._kept[0], output).clone()

    def activation(self) -> torch.Tensor:
        """What was kept."""
        if len(self._calls) == 1 and self._kept:
            return self._kept[0]
        found = f"{len(self._calls)} calls" if len(self._calls) != 1 else f"an output of {_described(self._calls[0])}"
        shape = {"nchw": "[N, C, h, w]", "nhwc": "[N, h, w, C]", "tokens": "[N, tokens, C]"}[self.tap.layout.kind]
        raise BadInputError(
            f"The module {self.tap.name!r} cannot be the tap.",
            expected=f"one call a forward pass with an output {shape}",
            found=found,
            hint="choose another module with --tap; 'edgekit inspect MODEL' lists candidates",
        )


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
