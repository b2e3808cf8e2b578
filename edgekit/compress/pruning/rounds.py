"""Iterative pruning: the same channel counts as in one shot, reached in rounds with training between them.

The counts of every round are planned on the whole network. Rates applied to what is left would round down once a
round and end with fewer channels, and a comparison with one-shot pruning would then be one of two sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from edgekit.compress.options import PruneOptions
from edgekit.compress.pruning.choice import channels_kept, nothing_to_prune, prunable_groups
from edgekit.compress.pruning.evidence import PruneEvidence
from edgekit.compress.pruning.structured import Pruned, PruneReport, prune

__all__ = ["plan_rounds", "prune_in_rounds", "round_rates"]


def round_rates(options: PruneOptions) -> tuple[float, ...]:
    """The share of what is left that each round removes, before channels are rounded; none without pruning.

    All alike, so that `options.rate` is what they remove together.
    """
    if options.rate == 0:
        return ()
    if options.rounds == 1:
        return (options.rate,)
    return (1 - (1 - options.rate) ** (1 / options.rounds),) * options.rounds


def plan_rounds(model: nn.Module, options: PruneOptions, shape: tuple[int, int, int]) -> tuple[Mapping[str, int], ...]:
    """How many channels each group keeps after each round, by its root, as `prune` takes them; none without pruning.

    The last round's are those of pruning in one shot. Every round's are rounded to `options.round_to`.

    Args:
        model: The whole network; it is not changed.
        options: Rate, rounds and everything else about pruning.
        shape: Channels, height and width of the input.

    Raises:
        BadInputError: As `prunable_groups` does, or nothing would be removed.
    """
    if options.rate == 0:
        return ()
    groups, untouched = prunable_groups(model, options, shape)
    left = (1 - options.rate) ** (1 / options.rounds)
    # The last rate as it was asked for: a power of a root is a little off.
    rates = [*(1 - left**number for number in range(1, options.rounds)), options.rate]
    plan = tuple(channels_kept(groups, rate, options.round_to) for rate in rates)
    if all(count == groups[root].size for root, count in plan[-1].items()):
        raise nothing_to_prune(options, untouched)
    return plan


def prune_in_rounds(
    model: nn.Module,
    options: PruneOptions,
    shape: tuple[int, int, int],
    *,
    between: Callable[[nn.Module, int], None],
    evidence: Callable[[nn.Module, int], PruneEvidence | None] | None = None,
) -> Pruned:
    """Prune in `options.rounds` rounds; with one round, or a rate of 0, the same as `prune`.

    Args:
        model: The whole network, in evaluation mode; it is not changed.
        options: What to prune.
        shape: Channels, height and width of the input.
        between: Trains the network it is given, in place, after every round but the last; also told the round's
            number, from 1. It must not change the network's layers.
        evidence: Gathers what the measure needs about the network that a round is about to cut, and is told the
            round's number, from 1.

    Returns:
        The network after the last cut, and one surgery relative to `model` that all rounds together amount to.

    Raises:
        BadInputError: As `prune` does.
    """

    def asked(student: nn.Module, number: int) -> PruneEvidence | None:
        return None if evidence is None else evidence(student, number)

    if options.rate == 0 or options.rounds == 1:
        return prune(model, options, shape, evidence=asked(model, 1) if options.rate > 0 else None)
    plan = plan_rounds(model, options, shape)
    pruned = prune(model, options, shape, evidence=asked(model, 1), kept=plan[0])
    for number, kept in enumerate(plan[1:], start=2):
        between(pruned.model, number - 1)
        latest = prune(pruned.model, options, shape, evidence=asked(pruned.model, number), kept=kept)
        report = _together(pruned.report, latest.report)
        pruned = Pruned(latest.model, latest.surgery.after(pruned.surgery), report)
    return pruned


def _together(first: PruneReport, last: PruneReport) -> PruneReport:
    return PruneReport(
        before=first.before,
        after=last.after,
        channels={name: (counts[0], last.channels[name][1]) for name, counts in first.channels.items()},
        untouched=first.untouched,
    )
