"""Faults of who gets which answer: maps and logits are assigned to the samples anew, one to one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.verify.diagnosis.assignment import assign
from edgekit.verify.diagnosis.finding import Finding, Maps, closes, mean_cosine

__all__ = ["find_mixed_logits", "find_mixed_maps"]

# Every answer of one set is compared with every answer of the other, so not too many.
_COMPARED = 256
# Another sample's map matches exactly or not at all.
_SAME_MAP = 0.98
_OTHER_MAP = 2.0 * _COMPARED
# Where a map or answer comes a batch late, the last batch's never do.
_FOUND = 0.8

Float = npt.NDArray[np.float64]


def find_mixed_maps(teacher: Maps, engine: Maps) -> list[Finding]:
    """Each sample's map belongs to another sample, as when results of a batch come back in another order.

    Args:
        teacher: float32 [N, h, w].
        engine: float32 [N, h, w]; may hold values that are not finite.
    """
    ours, theirs = _unit_rows(teacher[:_COMPARED]), _unit_rows(engine[:_COMPARED])
    similarity = ours @ theirs.T
    # As many exact matches as there can be; whose maps never came must not take another's for being less far off.
    matched = assign(np.where(similarity >= _SAME_MAP, 0, _OTHER_MAP) - similarity)
    best = similarity[np.arange(len(matched)), matched]
    before, after = mean_cosine(teacher, engine), float(np.mean(similarity.max(axis=1)))
    moved = np.flatnonzero(matched != np.arange(len(matched)))
    if not len(moved) or float(np.mean(best >= _SAME_MAP)) < _FOUND or not closes(before, after):
        return []
    return [_finding("maps", "map", int(moved[0]), matched, before, after)]


def find_mixed_logits(teacher: npt.NDArray[np.float32], engine: npt.NDArray[np.float32]) -> list[Finding]:
    """The logits alone belong to other samples.

    Args:
        teacher: float32 [N, classes].
        engine: float32 [N, classes]; may hold values that are not finite.
    """
    ours, theirs = (part[:_COMPARED].astype(np.float64) for part in (teacher, engine))
    if len(ours) < 2 or not np.isfinite(theirs).all():
        return []
    matched = assign(_distances(ours, theirs))
    moved = np.flatnonzero(matched != np.arange(len(matched)))
    top = ours.argmax(axis=1)
    before = float(np.mean(theirs.argmax(axis=1) == top))
    after = float(np.mean(theirs[matched].argmax(axis=1) == top))
    # Of answers in a few clusters any two of a cluster are near. Each has to be nearer to the one it was assigned than
    # the teacher's answers are to each other.
    among = _distances(ours, ours)
    np.fill_diagonal(among, np.inf)
    near = np.linalg.norm(ours - theirs[matched], axis=1) < 0.5 * among.min(axis=1)
    if not len(moved) or float(np.mean(near)) < _FOUND or not closes(before, after):
        return []
    return [_finding("predictions", "answer", int(moved[0]), matched, before, after)]


def _finding(what: str, one: str, first: int, matched: npt.NDArray[np.int64], before: float, after: float) -> Finding:
    text = (
        f"The {what} match in another order of the samples: the {one} of sample {first} was given to sample "
        f"{int(matched[first])}. A batch is mixed up, or a buffer is read too early."
    )
    return Finding("batch-mixed-up", text, before, after)


def _unit_rows(maps: Maps) -> Float:
    rows = np.where(np.isfinite(maps), maps, 0).reshape(len(maps), -1).astype(np.float64)
    unit: Float = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return unit


def _distances(first: Float, second: Float) -> Float:
    squared = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None] - 2 * first @ second.T
    distances: Float = np.sqrt(np.maximum(squared, 0))
    return distances
