"""Faults of the maps themselves: another layout, a lost sign, another sample's map, one map for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from edgekit.verify.finding import Finding, Maps, best_of_each, closes, mean_cosine

__all__ = ["find_map_faults"]

_SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
# Every map of one set is compared with every map of the other, so not too many.
_COMPARED = 256
# Another sample's map matches exactly or not at all.
_SAME_MAP = 0.98


def find_map_faults(teacher: Maps, engine: Maps) -> list[Finding]:
    """Undo known faults on the engine's maps; what restores the match is a finding.

    Args:
        teacher: float32 [N, h, w].
        engine: float32 [N, h, w]; may hold values that are not finite.
    """
    before = mean_cosine(teacher, engine)
    return [
        *best_of_each([*_layouts(teacher, engine, before), *_shifts(teacher, engine, before)]),
        *best_of_each(_signs(teacher, engine, before)),
        *_sample_order(teacher, engine, before),
        *_repeated(teacher, engine, before),
    ]


def _transforms(shape: tuple[int, ...]) -> Iterator[tuple[str, str, Callable[[Maps], Maps]]]:
    yield "map-flipped", "a left-right flip", lambda maps: maps[:, :, ::-1]
    yield "map-flipped", "an upside-down flip", lambda maps: maps[:, ::-1, :]
    yield "map-rotated", "half a turn", lambda maps: maps[:, ::-1, ::-1]
    if shape[1] == shape[2]:
        yield "map-transposed", "a transpose: rows and columns are exchanged", lambda maps: maps.transpose(0, 2, 1)
        yield "map-rotated", "a quarter turn to the right", lambda maps: maps.transpose(0, 2, 1)[:, :, ::-1]
        yield "map-rotated", "a quarter turn to the left", lambda maps: maps.transpose(0, 2, 1)[:, ::-1, :]


def _layouts(teacher: Maps, engine: Maps, before: float) -> Iterator[Finding]:
    for fault, words, transform in _transforms(teacher.shape):
        after = mean_cosine(teacher, transform(engine))
        if closes(before, after):
            yield Finding(fault, f"The maps match after {words}.", before, after)


def _shifts(teacher: Maps, engine: Maps, before: float) -> Iterator[Finding]:
    # Compared on the cells that both keep, since the row that a shift pushed out is gone.
    for dy, dx in _SHIFTS:
        kept, moved = _overlap(teacher, -dy, -dx), _overlap(engine, dy, dx)
        if kept.shape[1] * kept.shape[2] < 4:
            continue
        after = mean_cosine(kept, moved)
        unmoved = mean_cosine(_overlap(teacher, dy, dx), _overlap(engine, dy, dx))
        if closes(max(before, unmoved), after):
            direction = f"{dy:+d} rows and {dx:+d} columns"
            text = f"The maps match after moving the engine's back: they are shifted by {direction}."
            yield Finding("map-shifted", text, before, after)


def _overlap(maps: Maps, dy: int, dx: int) -> Maps:
    rows = slice(max(dy, 0), maps.shape[1] + min(dy, 0))
    columns = slice(max(dx, 0), maps.shape[2] + min(dx, 0))
    return maps[:, rows, columns]


def _signs(teacher: Maps, engine: Maps, before: float) -> Iterator[Finding]:
    for fault, words, undone in (
        ("sign-lost", "after changing their sign: the map is negated", np.maximum(-engine, 0)),
        (
            "relu-missing",
            "once their negative values are cut off: the ReLU at the end is missing",
            np.maximum(engine, 0),
        ),
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
    if 0.05 < float(zero.mean()) < 0.95 and float(np.mean(zero == positive)) > 0.95:
        text = "The engine's maps are positive just where the teacher's are zero: the ReLU acts on the negated map."
        yield Finding("sign-lost", text, before, before)


def _sample_order(teacher: Maps, engine: Maps, before: float) -> Iterator[Finding]:
    """Each sample's map belongs to another sample, as when results of a batch come back in another order."""
    ours, theirs = _unit_rows(teacher[:_COMPARED]), _unit_rows(engine[:_COMPARED])
    similarity = ours @ theirs.T
    matched = np.argmax(similarity, axis=1)
    places = np.arange(len(matched))
    best = similarity[places, matched]
    after = float(np.mean(best))
    moved = places[matched != places]
    # Not all: where maps arrive a batch late, the last batch's never do.
    found = matched[best >= _SAME_MAP]
    one_to_one = len(set(found.tolist())) >= 0.8 * len(matched)
    if one_to_one and len(moved) and closes(before, after):
        first = int(moved[0])
        text = (
            f"The maps match in another order of the samples: the map of sample {first} was given to sample "
            f"{int(matched[first])}. A batch is mixed up, or a buffer is read too early."
        )
        yield Finding("batch-mixed-up", text, before, after)


def _unit_rows(maps: Maps) -> npt.NDArray[np.float64]:
    rows = np.where(np.isfinite(maps), maps, 0).reshape(len(maps), -1).astype(np.float64)
    unit: npt.NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return unit


def _repeated(teacher: Maps, engine: Maps, before: float) -> Iterator[Finding]:
    count, different = _different(teacher), _different(engine)
    if different <= count / 2:
        text = (
            f"{len(engine)} images got only {different} different maps, the teacher's {count}: the map does not depend "
            "on the image, or an earlier answer is read again."
        )
        yield Finding("map-stale", text, before, before)
    if _flat_share(engine) > 0.5 + _flat_share(teacher):
        text = "The engine's maps have the same value in every cell: they were averaged, or a size was taken for one."
        yield Finding("map-flat", text, before, before)


def _flat_share(maps: Maps) -> float:
    lowest, highest = maps.min(axis=(1, 2)), maps.max(axis=(1, 2))
    return float(np.mean((lowest == highest) & np.isfinite(lowest) & (lowest != 0)))


def _different(maps: Maps) -> int:
    # Zero maps are all alike and say nothing about staleness; values that are not finite are counted elsewhere.
    kept = maps[np.isfinite(maps).all(axis=(1, 2)) & (maps != 0).any(axis=(1, 2))]
    return len({one.tobytes() for one in kept}) + len(maps) - len(kept)
