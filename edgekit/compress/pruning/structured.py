"""Structured channel pruning, as in Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.

The channels of least importance go, by default those whose filters have the smallest l1 norm, the same share in every
group of coupled channels. What goes with them is asked of the dependency graph; what is left is recorded as a surgery,
and no surgery is used before it was seen to be the removal of those channels and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.compress.cost import Cost, measure_cost
from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.choice import channels_kept, misunderstood, nothing_to_prune, prunable_groups
from edgekit.compress.pruning.dependency import ChannelGroup
from edgekit.compress.pruning.equivalence import is_pure_removal
from edgekit.compress.pruning.evidence import PruneEvidence
from edgekit.compress.pruning.importance import IMPORTANCE_SCORES
from edgekit.errors import BadInputError
from edgekit.teacher.surgery import LayerCut, Surgery, apply_surgery, channel_counts

__all__ = ["PruneReport", "Pruned", "prune"]


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


def prune(
    model: nn.Module,
    options: PruneOptions,
    shape: tuple[int, int, int],
    *,
    evidence: PruneEvidence | None = None,
    kept: Mapping[str, int] | None = None,
) -> Pruned:
    """Remove `options.rate` of the channels of every prunable group.

    Of C channels, `int(C * (1 - rate))` are kept, at least one, rounded up to a multiple of `round_to`.

    Args:
        model: In evaluation mode; it is not changed.
        options: Rate, scope, rounding, layers to leave alone, and the measure of importance.
        shape: Channels, height and width of the input.
        evidence: What the measures "taylor" and "random" need.
        kept: How many channels each group keeps, by its root, instead of the rate: a round of several, of which an
            early one may have nothing to remove. Groups that are not named are left alone.

    Raises:
        BadInputError: The dependencies cannot be traced, a pattern matches no layer, nothing can be removed, the
            measure has nothing to measure or lacks its evidence, or the removal would change more than the removed
            channels (then the message says which layers to ignore).
    """
    surgery = Surgery({})
    untouched: Mapping[str, str] = {}
    if options.rate > 0:
        chosen, untouched = prunable_groups(model, options, shape)
        counts = channels_kept(chosen, options.rate, options.round_to) if kept is None else kept
        gone = _weakest(model, chosen, counts, options, evidence)
        surgery = _surgery(model, [(chosen[root], indices) for root, indices in gone.items()])
        if kept is None and not gone:
            raise nothing_to_prune(options, untouched)
        if gone and not is_pure_removal(model, surgery, shape):
            wrong = [
                root
                for root, indices in gone.items()
                if not is_pure_removal(model, _surgery(model, [(chosen[root], indices)]), shape)
            ]
            raise misunderstood(wrong or list(gone), options)
    student = copy.deepcopy(model)
    apply_surgery(student, surgery)
    report = PruneReport(
        before=measure_cost(model, shape),
        after=measure_cost(student, shape),
        channels=_channels(model, student),
        untouched=untouched,
    )
    return Pruned(student, surgery, report)


def _weakest(
    model: nn.Module,
    groups: Mapping[str, ChannelGroup],
    kept: Mapping[str, int],
    options: PruneOptions,
    evidence: PruneEvidence | None,
) -> dict[str, list[int]]:
    """The channels to remove from each group that loses any. Equal parts of one lose the same positions."""
    measure = IMPORTANCE_SCORES.load(options.importance)
    losing = {root: group for root, group in groups.items() if kept.get(root, group.size) < group.size}
    measured = {root: measure(model, group, evidence) for root, group in losing.items()}
    gone: dict[str, list[int]] = {}
    for root, scores in measured.items():
        if scores is None:
            raise _unmeasured([name for name, found in measured.items() if found is None], options)
        parts = losing[root].splits
        each = losing[root].size // parts
        order = torch.argsort(scores.reshape(parts, each).mean(dim=0), stable=True)
        weakest = order[: each - kept[root] // parts].tolist()
        gone[root] = sorted(part * each + index for part in range(parts) for index in weakest)
    return gone


def _unmeasured(roots: Sequence[str], options: PruneOptions) -> BadInputError:
    subject = "batch normalisation with weights behind" if options.importance == "bn-scale" else "learned layer making"
    return BadInputError(
        f"The importance {options.importance!r} cannot be measured for every layer that is to be pruned.",
        where=", ".join(roots),
        expected=f"a {subject} all of its channels",
        found="none",
        hint="add " + ", ".join(repr(root) for root in roots) + " to compress.prune.ignore, "
        "or choose another compress.prune.importance",
    )


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
