"""The one way a map is brought to the size of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.normalise import FloatMaps
from edgekit.errors import DefectError

__all__ = ["upsample_bilinear"]


@dataclass(frozen=True)
class _Line:
    """Where each output position of one axis lies between two input cells."""

    before: npt.NDArray[np.intp]
    after: npt.NDArray[np.intp]
    share: npt.NDArray[np.float64]


def upsample_bilinear(maps: FloatMaps, height: int, width: int) -> npt.NDArray[np.float64]:
    """Resize maps bilinearly, with half-pixel centres and edges repeated.

    Equals torch's `interpolate(mode="bilinear", align_corners=False)`: output position i reads input coordinate
    `(i + 0.5) * input / output - 0.5`, clamped to the cells there are.

    Args:
        maps: Floating [N, h, w].
        height: Rows of the result, at least 1.
        width: Columns of the result, at least 1.

    Returns:
        float64 [N, height, width]. Neighbouring cells of equal value yield exactly that value between them, so a
        flat region stays flat and ties stay ties.

    Raises:
        DefectError: `maps` is not a stack of non-empty maps, or the size is not positive.
    """
    if maps.ndim != 3 or 0 in maps.shape[1:] or min(height, width) < 1:
        raise DefectError(
            "Maps cannot be resized.",
            expected="floating [N, h, w] and a positive size",
            found=f"{maps.dtype} {list(maps.shape)} to {height} x {width}",
        )
    wide = maps.astype(np.float64)
    rows, columns = _line(maps.shape[1], height), _line(maps.shape[2], width)
    # `a + t * (b - a)` and not `(1 - t) * a + t * b`: the second does not return a where a equals b, and rounding
    # noise on a plateau would decide where a map points and how its pixels rank.
    low, high = wide[:, rows.before], wide[:, rows.after]
    tall = low + rows.share[:, None] * (high - low)
    left, right = tall[:, :, columns.before], tall[:, :, columns.after]
    return np.asarray(left + columns.share * (right - left), dtype=np.float64)


def _line(source: int, target: int) -> _Line:
    position: npt.NDArray[Any] = (np.arange(target, dtype=np.float64) + 0.5) * (source / target) - 0.5
    position = np.clip(position, 0.0, source - 1.0)
    before = np.floor(position).astype(np.intp)
    return _Line(before, np.minimum(before + 1, source - 1), position - before)
