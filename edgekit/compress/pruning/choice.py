"""What may be pruned of a network, and how much of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import nn

from edgekit.compress.globs import check_patterns, matches
from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.dependency import ChannelGroup, find_groups
from edgekit.errors import BadInputError

__all__ = ["channels_kept", "misunderstood", "nothing_to_prune", "prunable_groups"]

_SHOWN = 6


def prunable_groups(
    model: nn.Module, options: PruneOptions, shape: tuple[int, int, int]
) -> tuple[Mapping[str, ChannelGroup], Mapping[str, str]]:
    """The groups that `options` let be pruned, by the name of their root, and the reasons for leaving the others.

    Raises:
        BadInputError: The dependencies cannot be traced or were misunderstood, or a pattern matches no layer.
    """
    groups = find_groups(model, shape)
    untouched = _untouched(model, groups, options)
    return {group.root: group for group in groups if group.root not in untouched}, untouched


def channels_kept(groups: Mapping[str, ChannelGroup], rate: float, round_to: int) -> dict[str, int]:
    """How many channels each group keeps at `rate`: the paper's rule, in equal parts where they must stay equal."""
    counts: dict[str, int] = {}
    for root, group in groups.items():
        each = group.size // group.splits
        # Rounding must not cost a channel: 10 * (1 - 0.9) is a little under 1.
        kept = max(1, math.floor(each * (1 - rate) + 1e-9))
        step = round_to // math.gcd(round_to, group.splits)
        counts[root] = group.splits * min(each, math.ceil(kept / step) * step)
    return counts


def _untouched(model: nn.Module, groups: Sequence[ChannelGroup], options: PruneOptions) -> dict[str, str]:
    """Root layers of the groups that are left alone, with the reason.

    Raises:
        BadInputError: A pattern matches no layer, or a group that would have to be pruned was misunderstood.
    """
    check_patterns(model, options.ignore, "compress.prune.ignore")
    reasons: dict[str, str] = {}
    misfits: list[str] = []
    for group in groups:
        outputs = [link.layer for link in group.links if link.side != "in"]
        ignored = [name for name in outputs if matches(name, options.ignore)]
        if group.obstacle is not None:
            reasons[group.root] = group.obstacle
        elif ignored:
            reasons[group.root] = f"{ignored[0]!r} is to be ignored"
        elif group.coupled and options.scope == "inner":
            reasons[group.root] = "an addition couples its channels with other layers, and the scope is inner"
        elif group.misfit:
            misfits.append(group.root)
    if misfits:
        raise misunderstood(misfits, options)
    return reasons


def misunderstood(roots: Sequence[str], options: PruneOptions) -> BadInputError:
    """The error of groups whose removal would change what other channels compute."""
    ignore = "add " + ", ".join(repr(root) for root in roots[:_SHOWN]) + " to compress.prune.ignore"
    hint = f"set compress.prune.scope to inner, or {ignore}" if options.scope == "all" else ignore
    return BadInputError(
        "Some channels of the network cannot be removed without changing what the others compute.",
        where=", ".join(roots[:_SHOWN]) + (f" and {len(roots) - _SHOWN} more" if len(roots) > _SHOWN else ""),
        expected="a network that answers as if the removed channels were silent",
        found="channels that are shifted, padded or rearranged between layers in a way that cannot be followed",
        hint=hint,
    )


def nothing_to_prune(options: PruneOptions, untouched: Mapping[str, str]) -> BadInputError:
    """The error of a request that would remove no channel."""
    reasons = [f"{root}: {reason}" for root, reason in untouched.items()]
    return BadInputError(
        "No channel of the network can be removed.",
        expected=f"groups of channels of which a share of {options.rate} and a multiple of {options.round_to} can go",
        found="; ".join(reasons[:_SHOWN]) or "groups too small for this rate and rounding",
        hint="set compress.prune.rate to 0, or change compress.prune.scope, round_to or ignore",
    )
