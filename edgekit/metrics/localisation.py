"""Does the map lie on the object? Maps against masks of the object, at the size of the image.

The rules: a sample whose mask is empty has no value (NaN). A zero map ranks nothing (pixel-auc 0.5), points nowhere
(pointing 0) and holds nothing (energy-inside 0). A map that is not finite gets 0 for all three. Ties count as if
broken at random, in expectation, so a flat map scores what chance scores.

A high value says less than it seems where objects stand in the middle: `centre_prior` is the map that knows nothing
but that, to be scored beside the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.attribution.normalise import FloatMaps, clipped_distribution
from edgekit.attribution.upsample import upsample_bilinear
from edgekit.errors import DefectError

__all__ = ["LOCALISATION", "centre_prior", "score_localisation"]

_Rows: TypeAlias = npt.NDArray[np.float64]
_Masks: TypeAlias = npt.NDArray[np.bool_]

_CHUNK_PIXELS = 1 << 20


def _pixel_auc(maps: _Rows, masks: _Masks) -> _Rows:
    """Area under the ROC curve of "inside the mask" by pixel value, exact: `U / (inside * outside)` (Mann-Whitney).

    A mask that covers the whole image leaves nothing to rank against: NaN.
    """
    return np.array([_pixel_auc_of_one(one, mask) for one, mask in zip(maps, masks, strict=True)], dtype=np.float64)


def _pixel_auc_of_one(one: _Rows, mask: _Masks) -> float:
    within = np.sort(one[mask])
    inside, outside = len(within), len(one) - len(within)
    if inside == 0 or outside == 0:
        return float("nan")
    # Two sorts of values, and not `average_ranks`, which sorts places: an image has a thousand times a map's cells.
    others = np.sort(one[~mask])
    below = np.searchsorted(others, within, side="left").sum()
    not_above = np.searchsorted(others, within, side="right").sum()
    return float((below + not_above) / (2 * inside * outside))


def _pointing(maps: _Rows, masks: _Masks) -> _Rows:
    """Whether the largest pixel lies inside the mask; of pixels tied for it, the share that does."""
    largest = maps == maps.max(axis=1, keepdims=True)
    hits: _Rows = (largest & masks).sum(axis=1) / largest.sum(axis=1)
    return np.where(maps.any(axis=1), hits, 0.0)


def _energy_inside(maps: _Rows, masks: _Masks) -> _Rows:
    """Share of the map's positive mass that lies inside the mask."""
    mass = clipped_distribution(maps[:, None, :])[:, 0]
    share: _Rows = np.clip((mass * masks).sum(axis=1), 0.0, 1.0)
    return share


# Upsampled maps [N, pixels] and masks [N, pixels] to [N]. Higher is better for all of them.
LOCALISATION: Mapping[str, Callable[[_Rows, _Masks], _Rows]] = MappingProxyType(
    {"energy-inside": _energy_inside, "pixel-auc": _pixel_auc, "pointing": _pointing}
)


def score_localisation(maps: FloatMaps, masks: _Masks) -> dict[str, _Rows]:
    """Score maps against masks of the object, under the rules at the top of this module.

    Args:
        maps: Floating [N, h, w], raw; brought to the masks' size by `upsample_bilinear`.
        masks: bool [N, H, W].

    Returns:
        Name to float64 [N] in [0, 1], NaN where a sample has no mask.

    Raises:
        DefectError: The arrays do not fit each other.
    """
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks) or masks.dtype != np.bool_:
        raise DefectError(
            "Maps and masks do not fit.",
            expected="floating [N, h, w] and bool [N, H, W]",
            found=f"{maps.dtype} {list(maps.shape)} and {masks.dtype} {list(masks.shape)}",
        )
    masked = masks.any(axis=(1, 2))
    finite = np.isfinite(maps).all(axis=(1, 2))
    values = {name: np.where(masked, 0.0, np.nan) for name in LOCALISATION}
    rows = np.flatnonzero(masked & finite)
    height, width = masks.shape[1:]
    step = max(1, _CHUNK_PIXELS // max(1, height * width))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        large = upsample_bilinear(maps[chunk], height, width).reshape(len(chunk), -1)
        flat = masks[chunk].reshape(len(chunk), -1)
        for name, function in LOCALISATION.items():
            values[name][chunk] = function(large, flat)
    return values


def centre_prior(height: int, width: int) -> _Rows:
    """The map of somebody who has not seen the image: a Gaussian on its centre, a quarter of each side wide.

    Returns:
        float64 [height, width], positive, at most 1.
    """
    rows = ((np.arange(height) + 0.5) / height - 0.5) * 4
    columns = ((np.arange(width) + 0.5) / width - 0.5) * 4
    prior: _Rows = np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / 2)
    return prior
