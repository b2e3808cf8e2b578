"""Faults of where a map's values lie: another layout, a shift, one map for all images, one value for all cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from edgekit.verify.diagnosis.finding import Finding, Maps, best_of_each, closes, mean_cosine

__all__ = ["find_map_faults"]

_SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]


def find_map_faults(teacher: Maps, engine: Maps) -> list[Finding]:
    """Undo known faults on the engine's maps; what restores the match is a finding.

    Args:
        teacher: float32 [N, h, w].
        engine: float32 [N, h, w]; may hold values that are not finite.
    """
    before = mean_cosine(teacher, engine)
    return [
        *best_of_each([*_layouts(teacher, engine, before), *_shifts(teacher, engine, before)]),
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
