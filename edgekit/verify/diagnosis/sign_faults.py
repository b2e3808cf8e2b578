"""Faults of the map's last step: a lost sign, a lost ReLU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekit.verify.diagnosis.finding import Finding, Maps, best_of_each, closes, mean_cosine
from edgekit.verify.diagnosis.suspect import Suspect

__all__ = ["find_lost_relu", "find_sign_faults"]

# A map with its sign or ReLU restored is the teacher's, or it was another fault.
_SAME_MAP = 0.98


def find_lost_relu(suspect: Suspect) -> list[Finding]:
    """Values below zero where the method has none: a breach of what a map is, however little it moves the scores."""
    if not suspect.golden.map_spec.nonnegative:
        return []
    pairs = zip(
        (suspect.golden.maps, *(item.maps for item in suspect.golden.further)),
        (suspect.answers.maps, *suspect.answers.further),
        strict=True,
    )
    # The map that shows it best: that of a second class is mostly negative where the first one's hardly is.
    worst = min(pairs, key=lambda pair: mean_cosine(*pair))
    teacher, engine = worst
    if not np.isfinite(engine).all() or not (engine < 0).any():
        return []
    before, after = mean_cosine(teacher, engine), mean_cosine(teacher, np.maximum(engine, 0))
    if after < _SAME_MAP:
        return []
    share = float(np.mean(engine < 0))
    text = (
        f"{share:.1%} of the maps' cells are negative, which {suspect.golden.map_spec.method} never is, and the maps "
        f"match once these are cut off (cosine {before:.3f}, then {after:.3f}): the ReLU at the end is missing."
    )
    return [Finding("relu-missing", text, before, after)]


def find_sign_faults(teacher: Maps, engine: Maps) -> list[Finding]:
    """Undo a lost sign on the engine's maps.

    Args:
        teacher: float32 [N, h, w].
        engine: float32 [N, h, w]; may hold values that are not finite.
    """
    return best_of_each(_signs(teacher, engine, mean_cosine(teacher, engine)))


def _signs(teacher: Maps, engine: Maps, before: float) -> Iterator[Finding]:
    for fault, words, undone in (
        ("sign-lost", "after changing their sign: the map is negated", np.maximum(-engine, 0)),
        (
            "sign-lost",
            "where the teacher's are positive, and do not vanish elsewhere: an absolute value stands for the ReLU",
            np.where((teacher > 0) & (engine >= 0).all(), engine, 0),
        ),
    ):
        after = mean_cosine(teacher, undone.astype(np.float32))
        if closes(before, after) and after >= _SAME_MAP:
            yield Finding(fault, f"The maps match {words}.", before, after)
    zero, positive = teacher == 0, engine > 0
    # relu(-x) is positive where relu(x) is zero; a map of noise would hit a share of these cells by chance.
    share = float(np.mean(zero == positive))
    if 0.05 < float(zero.mean()) < 0.95 and share > 0.95:
        text = "The engine's maps are positive just where the teacher's are zero: the ReLU acts on the negated map."
        # Told by the share of cells, since what a ReLU cut off cannot be put back.
        yield Finding("sign-lost", text, 1 - share, share)
