"""Whether an adjusted graph still answers as it did, shown on images: no reasoning about a map branch promises that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import Adjustments
from edgekit.calibrate.attribution.scale_groups import ScaleGroup, factors_of
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.probe import Answers, answers_of, float_answers

__all__ = ["equal_answers", "proven_groups"]

# Powers of two leave every product and sum of the forward path as it was, bit for bit.
_TRIED = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
_EXACT = 1e-5


def equal_answers(reference: Answers, graph: ExplainedGraph, images: npt.NDArray[np.float32], tolerance: float) -> bool:
    """True where `graph` answers as `reference` within `tolerance` times the largest logit, and the largest map value.

    Args:
        reference: What the original graph says about `images`, with the maps of its own top-1.
        graph: The adjusted graph.
        images: float32 [N, 3, H, W].
        tolerance: Relative. Maps jump where an activation's input is zero, so it must leave room for float32.
    """
    found = answers_of(graph.model, images, reference.classes)
    pairs = [(reference.logits, found.logits), *zip(reference.maps, found.maps, strict=True)]
    return all(_is_close(ours, theirs, tolerance) for ours, theirs in pairs)


def proven_groups(
    graph: ExplainedGraph, groups: Sequence[ScaleGroup], images: npt.NDArray[np.float32], seed: int = 0
) -> tuple[tuple[ScaleGroup, ...], tuple[str, ...]]:
    """The groups that may be scaled with certainty: scaling each at random changes no answer.

    Args:
        graph: The FP32 graph.
        groups: As `find_groups` gives them.
        images: A few images, float32 [N, 3, H, W].
        seed: Of the random factors.

    Returns:
        Groups, in their order, and a sentence for each that was dropped.
    """
    rng = np.random.default_rng(seed)
    trials = [factors_of(group, rng.choice(_TRIED, group.size)) for group in groups]
    reference = float_answers(graph, images)

    def holds(numbers: Sequence[int]) -> bool:
        changed = Adjustments(factors=tuple(item for number in numbers for item in trials[number]))
        return equal_answers(reference, apply_adjustments(graph, changed), images, _EXACT)

    kept: list[int] = []
    pending = [list(range(len(groups)))] if groups else []
    while pending:
        numbers = pending.pop()
        if holds(numbers):
            kept += numbers
        elif len(numbers) > 1:
            middle = len(numbers) // 2
            pending += [numbers[:middle], numbers[middle:]]
    notes = tuple(
        f"channels of {group.members[0].tensor} are not equalised: the map depends on their size"
        for number, group in enumerate(groups)
        if number not in kept
    )
    return tuple(groups[number] for number in sorted(kept)), notes


def _is_close(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], tolerance: float) -> bool:
    return bool(np.abs(ours - theirs).max(initial=0) <= tolerance * np.abs(ours).max(initial=0))
