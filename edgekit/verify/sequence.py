"""Sequential verification: samples in a random order, looked at part by part, until every demand is decided.

The order is drawn from the samples' digests alone, so that nobody chooses it and everybody finds it again: a table of
scores from a sequential verification is about the first so many samples of that order, and the gate checks that it is.
When to stop may depend on everything that was seen, since the bounds of a sequential policy hold at every number of
samples at once (`edgekit.metrics.anytime`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.errors import BadInputError
from edgekit.metrics.intervals import seed_of
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.policy import Policy

__all__ = ["check_whole", "judged_part", "looks", "verification_order"]

# Samples between two looks: some batches, and later an eighth of what was seen, since a look costs more then.
_LOOK = 64
_GROWTH = 8


def verification_order(golden: GoldenSet) -> npt.NDArray[np.intp]:
    """The order in which a sequential verification takes the samples, intp [N]: a permutation of all of them.

    Drawn by `numpy.random.RandomState`, whose streams numpy promises not to change (NEP 19), from the sorted digests:
    the order in which somebody wrote the samples down has no part in it.
    """
    digests = golden.digests
    places = np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.intp)
    shuffled: npt.NDArray[np.intp] = places[np.random.RandomState(seed_of(sorted(digests))).permutation(len(places))]
    return shuffled


def judged_part(golden: GoldenSet, policy: Policy, count: int) -> GoldenSet:
    """What a table with `count` rows under `policy` is about: the golden set, or the beginning of its random order."""
    return golden.part(verification_order(golden)[:count]) if policy.sequential else golden


def check_whole(golden: GoldenSet, policy: Policy, table: ScoreTable) -> None:
    """Refuse to judge scores that stopped early by a policy that is not sequential.

    Raises:
        BadInputError: Its bounds say nothing about samples whose number depends on what they showed.
    """
    if policy.sequential or len(table) == len(golden):
        return
    raise BadInputError(
        f"The policy {policy.name!r} needs scores of the whole golden set, and these stopped when they had decided.",
        expected=f"{len(golden)} samples, or a policy with sequential: true",
        found=f"{len(table)} samples",
        hint="run 'edgekit verify' with that policy: it runs the engine over all samples",
    )


def looks(count: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each part of `count` samples, after which somebody looks."""
    start = 0
    while start < count:
        stop = min(count, start + max(_LOOK, start // _GROWTH))
        yield start, stop
        start = stop
