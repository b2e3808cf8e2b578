"""Sparsity in rounds: each takes the same share of the weights that are left, and the network is trained between."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edgekit.compress.options import SparsifyOptions
from edgekit.compress.sparsity.magnitude import masks_for
from edgekit.compress.sparsity.masks import Masks

__all__ = ["sparsify_in_rounds", "sparsities"]


def sparsities(options: SparsifyOptions) -> tuple[float, ...]:
    """What each round is to reach, increasing, the last exactly `options.sparsity`; none where that is 0.

    Round r of the paper reaches `1 - (1 - step) ** r`. The last one takes what is missing, however little. The
    pattern 2:4 takes one round.
    """
    if options.sparsity == 0:
        return ()
    if options.pattern == "2:4":
        return (options.sparsity,)
    reached: list[float] = []
    # A power may be a rounding away from what was asked for: that is no round of its own.
    while (following := 1 - (1 - options.step) ** (len(reached) + 1)) < options.sparsity - 1e-9:
        reached.append(following)
    return (*reached, options.sparsity)


def sparsify_in_rounds(
    model: nn.Module, options: SparsifyOptions, *, between: Callable[[nn.Module, Masks, int], None]
) -> Masks:
    """Make `model` sparse in place, round by round; a weight that is zero after one stays so in all others.

    Args:
        model: The network, which ends with the last round's zeros and is to be trained with them.
        options: What to make sparse.
        between: Trains the network in place after every round but the last, under that round's masks; also told the
            round's number, from 1.

    Returns:
        The last round's masks; of nothing where the sparsity is 0.

    Raises:
        BadInputError: As `masks_for` does.
    """
    masks: Masks | None = None
    reached = sparsities(options)
    for number, sparsity in enumerate(reached, start=1):
        masks = masks_for(model, options, sparsity, earlier=masks)
        masks.apply(model)
        if number < len(reached):
            between(model, masks, number)
    return Masks({}) if masks is None else masks
