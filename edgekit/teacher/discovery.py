"""Finding the tap: the last place where the network still knows where, before it pools, flattens or reads one token.

What a module puts out is a map when its cells lie on a grid that the image was really divided into: a grid that a
convolution or pooling has made (or half of one, where patches are merged by a linear layer). That tells [N, C, h, w]
from an attention matrix [N, heads, tokens, tokens], and a sequence of cells from any other sequence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.teacher.layouts import NCHW, Layout
from edgekit.teacher.tap import Tap, find_module, forward_with_tap, head_from_tap

__all__ = ["TapCandidate", "find_tap", "resolve_tap", "resolve_taps", "tap_candidates"]

Grid = tuple[int, int]

# More tokens than that before the cells are no class or register tokens but another sequence.
_MOST_PREFIX_TOKENS = 8
_GRID_MAKERS = ("conv", "pool", "upsample", "pixel_shuffle", "pixel_unshuffle", "im2col")
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True)
class TapCandidate:
    """A module a map could live on.

    Attributes:
        tap: The module and how its output holds the map.
        channels: Channels at each cell.
        height: Rows of the map.
        width: Columns of the map.
    """

    tap: Tap
    channels: int
    height: int
    width: int


@dataclass
class _Seen:
    """What one module did in one forward pass."""

    calls: int = 0
    shape: tuple[int, ...] = ()


class _Probe(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own __init_subclass__ has no types
    """Notes the grids that convolutions and poolings make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.grids: set[Grid] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        if (
            isinstance(first, torch.Tensor)
            and first.dim() == 4
            and any(part in function.__name__ for part in _GRID_MAKERS)
        ):
            self.grids.add((int(first.shape[2]), int(first.shape[3])))
        return result


def tap_candidates(model: nn.Module, images: torch.Tensor) -> tuple[TapCandidate, ...]:
    """Every module a map could live on, in the order in which they end.

    Those are the modules that run once and put out a map of more than one cell.

    Args:
        model: In evaluation mode.
        images: float [N, 3, H, W], N at least 2.
    """
    seen: dict[str, _Seen] = {}

    def record(name: str, output: object) -> None:
        # A module that runs again goes to the end, since that is when it has ended.
        entry = seen.pop(name, _Seen())
        shape = tuple(int(side) for side in output.shape) if isinstance(output, torch.Tensor) else ()
        seen[name] = _Seen(entry.calls + 1, shape)

    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: record(name, output))
        for name, module in model.named_modules()
        if name
    ]
    probe = _Probe()
    try:
        with torch.no_grad(), probe:
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    grids = _with_halves(probe.grids or _patch_grids(images)) | {(int(images.shape[2]), int(images.shape[3]))}
    found = []
    for name, entry in seen.items():
        if entry.calls == 1 and len(entry.shape) in (3, 4) and entry.shape[0] == len(images):
            found += _as_candidate(name, entry.shape, grids)
    return tuple(found)


def _patch_grids(images: torch.Tensor) -> set[Grid]:
    """Grids of square patches: how a network without convolutions can have divided the image."""
    height, width = int(images.shape[2]), int(images.shape[3])
    sides = [side for side in range(1, min(height, width) + 1) if height % side == 0 and width % side == 0]
    return {(height // side, width // side) for side in sides}


def _with_halves(grids: Iterable[Grid]) -> set[Grid]:
    pending, found = list(grids), set()
    while pending:
        height, width = pending.pop()
        if (height, width) not in found and height * width > 1:
            found.add((height, width))
            pending.append((-(-height // 2), -(-width // 2)))
    return found


def _as_candidate(name: str, shape: tuple[int, ...], grids: set[Grid]) -> list[TapCandidate]:
    if len(shape) == 4:
        if shape[2:] in grids:
            place, layout, channels = shape[2:], NCHW, shape[1]
        elif shape[1:3] in grids:
            place, layout, channels = shape[1:3], Layout("nhwc"), shape[3]
        else:
            return []
        height, width = place
    else:
        fits = sorted(
            (shape[1] - height * width, height, width)
            for height, width in grids
            if 0 <= shape[1] - height * width <= _MOST_PREFIX_TOKENS and height * width > _MOST_PREFIX_TOKENS
        )
        if not fits:
            return []
        prefix, height, width = fits[0]
        layout, channels = Layout("tokens", height, width, prefix), shape[2]
    return [TapCandidate(Tap(name, layout), channels, height, width)] if height * width > 1 else []


def find_tap(model: nn.Module, images: torch.Tensor) -> Tap:
    """The tap of a network whose user named none.

    Of a convolutional network, the last map that the logits depend on: what is pooled or flattened next. Of a network
    of tokens, the output of the last normalisation through whose cells the logits change: where a class token is
    read, cells behind the last attention have no say any more.

    Raises:
        BadInputError: No module puts out a map with more than one cell; or there are two of equal merit, maps of one
            size in two branches of which neither feeds the other.
    """
    candidates = tap_candidates(model, images)
    if not candidates:
        raise BadInputError(
            "The network has no spatial feature map for an attribution map to live on.",
            expected="a module with an output [N, C, h, w], [N, h, w, C] or [N, tokens, C] of more than one cell",
            found="none",
            hint="edgekit explains networks that keep the image's layout up to some layer; one of linear layers alone "
            "does not, but the method input-gradient explains it by its input",
        )
    if candidates[-1].tap.layout.kind == "tokens":
        wanted = [item for item in candidates if _is_norm(model, item)] or list(candidates)
    else:
        wanted = list(candidates)
    for chosen in reversed(wanted):
        if _matters(model, chosen.tap, images):
            if chosen.tap.layout.kind != "tokens":
                _refuse_rival(model, chosen, candidates, images)
            return chosen.tap
    raise BadInputError(
        "The logits depend on none of the network's feature maps.",
        found=", ".join(item.tap.name for item in candidates[-5:]),
        hint="look at the network's forward pass: its answer comes from something else than its features",
    )


def _is_norm(model: nn.Module, candidate: TapCandidate) -> bool:
    module = model.get_submodule(candidate.tap.name)
    named = f"{type(module).__name__}.{candidate.tap.name.rpartition('.')[2]}".lower()
    return isinstance(module, _NORMS) or "norm" in named


@torch.no_grad()
def _matters(model: nn.Module, tap: Tap, images: torch.Tensor) -> bool:
    tapped = forward_with_tap(model, tap, images)
    moved = head_from_tap(model, tap, images)(tapped.activation + 1 + tapped.activation.abs())
    return not torch.equal(moved, tapped.logits)


@torch.no_grad()
def _refuse_rival(
    model: nn.Module, chosen: TapCandidate, candidates: tuple[TapCandidate, ...], images: torch.Tensor
) -> None:
    """Raise when another branch ends in a map of the same size that the chosen one does not know about."""
    activation = forward_with_tap(model, chosen.tap, images).activation
    logits = head_from_tap(model, chosen.tap, images)(activation)
    # With the chosen map held, other images make no difference: everything goes through it.
    if torch.equal(head_from_tap(model, chosen.tap, images.flip(0) * 0.5)(activation), logits):
        return
    for other in reversed(candidates):
        same_size = (other.height, other.width) == (chosen.height, chosen.width)
        if other is chosen or not same_size or not _matters(model, other.tap, images):
            continue
        if not _feeds(model, other.tap, chosen.tap, images):
            raise BadInputError(
                "The network has two feature maps of equal merit for an attribution map to live on.",
                found=f"{other.tap.name!r} and {chosen.tap.name!r}, both {chosen.height} x {chosen.width}, in branches "
                "of which neither feeds the other",
                hint=f"say which with --tap {chosen.tap.name}, or take both with --tap {other.tap.name} "
                f"--tap {chosen.tap.name}",
            )


def _feeds(model: nn.Module, earlier: Tap, later: Tap, images: torch.Tensor) -> bool:
    """Whether the map at one tap changes when that at another is changed."""
    before = forward_with_tap(model, later, images).activation
    theirs = forward_with_tap(model, earlier, images).activation
    seen: list[torch.Tensor] = []
    handle = find_module(model, later.name).register_forward_hook(
        lambda _module, _inputs, output: seen.append(later.layout.to_map(output.clone()))
    )
    try:
        head_from_tap(model, earlier, images)(theirs + 1 + theirs.abs())
    finally:
        handle.remove()
    return not torch.equal(seen[0], before)


def resolve_tap(model: nn.Module, requested: str | None, images: torch.Tensor) -> Tap:
    """The tap the card or the user asked for, checked, or the one that is found.

    Raises:
        BadInputError: The module is unsuitable, or the logits do not depend on it.
    """
    if requested is None:
        return find_tap(model, images)
    known = {item.tap.name: item.tap for item in tap_candidates(model, images)}
    tap = known.get(requested, Tap(requested))
    if not _matters(model, tap, images):
        tokens = tap.layout.kind == "tokens"
        raise BadInputError(
            f"The logits do not depend on the output of {requested!r}, so no map can live there.",
            found="cells that nothing reads: the answer comes from another token" if tokens else None,
            hint="choose another module with --tap; 'edgekit inspect MODEL' lists candidates",
        )
    return tap


def resolve_taps(model: nn.Module, card: ModelCard, images: torch.Tensor) -> tuple[Tap, ...]:
    """Every tap of a card, the first one first; found where the card names none.

    Raises:
        BadInputError: As `resolve_tap`; or the same module is named twice.
    """
    taps = (resolve_tap(model, card.tap, images), *(resolve_tap(model, name, images) for name in card.further_taps))
    names = [tap.name for tap in taps]
    if len(set(names)) != len(names):
        raise BadInputError("A tap is named twice.", found=", ".join(names), expected="different modules")
    return taps
