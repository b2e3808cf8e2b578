"""Structured l1 channel pruning (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017).

The channels whose filters have the smallest l1 norm go, the same share in every group of coupled channels. What goes
with them is asked of the dependency graph; what is left is recorded as a surgery, and no surgery is used before it was
seen to be the removal of those channels and nothing else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from edgekit.compress.cost import Cost, measure_cost
from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.dependency import ChannelGroup, find_groups
from edgekit.compress.pruning.equivalence import is_pure_removal
from edgekit.errors import BadInputError
from edgekit.teacher.surgery import LayerCut, Surgery, apply_surgery, channel_counts

__all__ = ["PruneReport", "Pruned", "filter_norms", "l1_importance", "prune"]

_SHOWN = 6


@dataclass(frozen=True)
class PruneReport:
    """What pruning did.

    Attributes:
        before: Cost of the whole network, by the rule of `edgekit.compress.cost`.
        after: Cost of what is left.
        channels: Convolution or linear layer to its output channels before and after.
        untouched: Root layer of every group that was left alone to the reason.
    """

    before: Cost
    after: Cost
    channels: Mapping[str, tuple[int, int]]
    untouched: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "channels": {name: list(counts) for name, counts in self.channels.items()},
            "untouched": dict(self.untouched),
        }


@dataclass(frozen=True)
class Pruned:
    """A pruned copy of a network, how it was cut, and what that saves.

    Attributes:
        model: The copy, in the mode of the original.
        surgery: Relative to the network that was given; empty where nothing was cut.
        report: Costs and channels.
    """

    model: nn.Module
    surgery: Surgery
    report: PruneReport


def prune(model: nn.Module, options: PruneOptions, shape: tuple[int, int, int]) -> Pruned:
    """Remove `options.rate` of the channels of every prunable group.

    Of C channels, `int(C * (1 - rate))` are kept, at least one, rounded up to a multiple of `round_to`.

    Args:
        model: In evaluation mode; it is not changed.
        options: Rate, scope, rounding and layers to leave alone.
        shape: Channels, height and width of the input.

    Raises:
        BadInputError: The dependencies cannot be traced, a pattern matches no layer, nothing can be removed, or
            the removal would change more than the removed channels (then the message says which layers to ignore).
    """
    surgery = Surgery({})
    untouched: dict[str, str] = {}
    if options.rate > 0:
        groups = find_groups(model, shape)
        untouched = _untouched(model, groups, options)
        chosen = {group.root: group for group in groups if group.root not in untouched}
        gone = {root: _weakest(model, group, options) for root, group in chosen.items()}
        surgery = _surgery(model, [(chosen[root], indices) for root, indices in gone.items() if indices])
        if not surgery.layers:
            raise _nothing_to_prune(options, untouched)
        if not is_pure_removal(model, surgery, shape):
            wrong = [
                root
                for root, indices in gone.items()
                if indices and not is_pure_removal(model, _surgery(model, [(chosen[root], indices)]), shape)
            ]
            raise _misunderstood(wrong or list(chosen), options)
    student = copy.deepcopy(model)
    apply_surgery(student, surgery)
    report = PruneReport(
        before=measure_cost(model, shape),
        after=measure_cost(student, shape),
        channels=_channels(model, student),
        untouched=untouched,
    )
    return Pruned(student, surgery, report)


def _untouched(model: nn.Module, groups: Sequence[ChannelGroup], options: PruneOptions) -> dict[str, str]:
    """Root layers of the groups that are left alone, with the reason.

    Raises:
        BadInputError: A pattern matches no layer, or a group that would have to be pruned was misunderstood.
    """
    names = [name for name, _ in model.named_modules() if name]
    idle = [pattern for pattern in options.ignore if not any(fnmatchcase(name, pattern) for name in names)]
    if idle:
        raise BadInputError(
            "A pattern of layers to ignore matches none.",
            where="compress.prune.ignore",
            expected="names such as " + ", ".join(names[:_SHOWN]),
            found=", ".join(idle),
        )
    reasons: dict[str, str] = {}
    misfits: list[str] = []
    for group in groups:
        outputs = [link.layer for link in group.links if link.side != "in"]
        ignored = [name for name in outputs if any(fnmatchcase(name, pattern) for pattern in options.ignore)]
        if group.obstacle is not None:
            reasons[group.root] = group.obstacle
        elif ignored:
            reasons[group.root] = f"{ignored[0]!r} is to be ignored"
        elif group.coupled and options.scope == "inner":
            reasons[group.root] = "an addition couples its channels with other layers, and the scope is inner"
        elif group.misfit:
            misfits.append(group.root)
    if misfits:
        raise _misunderstood(misfits, options)
    return reasons


def _misunderstood(roots: Sequence[str], options: PruneOptions) -> BadInputError:
    ignore = "add " + ", ".join(repr(root) for root in roots[:_SHOWN]) + " to compress.prune.ignore"
    hint = f"set compress.prune.scope to inner, or {ignore}" if options.scope == "all" else ignore
    return BadInputError(
        "Some channels of the network cannot be removed without changing what the others compute.",
        where=", ".join(roots[:_SHOWN]) + (f" and {len(roots) - _SHOWN} more" if len(roots) > _SHOWN else ""),
        expected="a network that answers as if the removed channels were silent",
        found="channels that are shifted, padded or rearranged between layers in a way that cannot be followed",
        hint=hint,
    )


def _nothing_to_prune(options: PruneOptions, untouched: Mapping[str, str]) -> BadInputError:
    reasons = [f"{root}: {reason}" for root, reason in untouched.items()]
    return BadInputError(
        "No channel of the network can be removed.",
        expected=f"groups of channels of which a share of {options.rate} and a multiple of {options.round_to} can go",
        found="; ".join(reasons[:_SHOWN]) or "groups too small for this rate and rounding",
        hint="set compress.prune.rate to 0, or change compress.prune.scope, round_to or ignore",
    )


def filter_norms(module: nn.Module) -> torch.Tensor:
    """The l1 norm of the filter behind every output channel of a convolution or linear layer, float [out]."""
    weight = _weight(module).detach().abs()
    if isinstance(module, nn.ConvTranspose2d):
        # Stored as [in, out / groups, ...]: the filter of an output channel is a column of its group.
        grouped = weight.reshape(module.groups, module.in_channels // module.groups, weight.shape[1], -1)
        return grouped.sum(dim=(1, 3)).flatten()
    return weight.flatten(1).sum(dim=1)


def _weight(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def l1_importance(model: nn.Module, group: ChannelGroup) -> torch.Tensor:
    """Importance of every channel of a group's root, float64 [size].

    With one producing layer, the l1 norm of its filters (up to a scale); with several, the mean of their norms, each
    divided by the layer's mean so that no layer decides because its weights are larger. A fixed weight, such as a
    shortcut's placement of channels, was never learned and ranks nothing while others do.
    """
    total = torch.zeros(group.size, dtype=torch.float64)
    count = torch.zeros(group.size, dtype=torch.float64)
    makers = [link for link in group.links if link.produces]
    learned = [link for link in makers if isinstance(_weight(model.get_submodule(link.layer)), nn.Parameter)]
    for link in learned or makers:
        norms = filter_norms(model.get_submodule(link.layer)).double().cpu()
        norms = norms / norms.mean().clamp_min(torch.finfo(torch.float64).tiny)
        roots = torch.tensor(link.roots)
        total.index_add_(0, roots, norms[list(link.indices)])
        count.index_add_(0, roots, torch.ones(len(roots), dtype=torch.float64))
    return total / count.clamp_min(1)


def _weakest(model: nn.Module, group: ChannelGroup, options: PruneOptions) -> list[int]:
    """The root's channels to remove. Equal parts of a grouped convolution lose the same positions."""
    parts = group.splits
    each = group.size // parts
    # Rounding must not cost a channel: 10 * (1 - 0.9) is a little under 1.
    kept = max(1, math.floor(each * (1 - options.rate) + 1e-9))
    step = options.round_to // math.gcd(options.round_to, parts)
    kept = min(each, math.ceil(kept / step) * step)
    scores = l1_importance(model, group).reshape(parts, each).mean(dim=0)
    weakest = torch.argsort(scores, stable=True)[: each - kept].tolist()
    return sorted(part * each + index for part in range(parts) for index in weakest)


def _surgery(model: nn.Module, removals: Sequence[tuple[ChannelGroup, Sequence[int]]]) -> Surgery:
    """What is left of every layer after all removals; their indices all refer to the whole network."""
    gone: dict[tuple[str, str], set[int]] = {}
    for group, indices in removals:
        for axis, channels in group.removal(indices).items():
            gone.setdefault(axis, set()).update(channels)
    layers: dict[str, LayerCut] = {}
    for name in dict.fromkeys(layer for layer, _ in gone):
        counts = channel_counts(model.get_submodule(name))
        assert counts is not None  # links name no other layers
        layers[name] = LayerCut(
            out_kept=_rest(gone.get((name, "out")), counts[0]), in_kept=_rest(gone.get((name, "in")), counts[1])
        )
    return Surgery(layers)


def _rest(gone: set[int] | None, count: int) -> tuple[int, ...] | None:
    return None if gone is None else tuple(index for index in range(count) if index not in gone)


def _channels(whole: nn.Module, pruned: nn.Module) -> dict[str, tuple[int, int]]:
    result: dict[str, tuple[int, int]] = {}
    for name, module in whole.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            before, after = channel_counts(module), channel_counts(pruned.get_submodule(name))
            assert before is not None
            assert after is not None
            result[name] = (before[0], after[0])
    return result
