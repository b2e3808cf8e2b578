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

__all__ = ["LOCALISATION", "POINTING_TOLERANCE", "centre_prior", "grown", "score_localisation"]

_Rows: TypeAlias = npt.NDArray[np.float64]
_Masks: TypeAlias = npt.NDArray[np.bool_]

_CHUNK_PIXELS = 1 << 20

# The pointing game forgives 15 pixels (Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop"), on
# photographs whose longer side is about 500.
POINTING_TOLERANCE = 15 / 500


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


def score_localisation(maps: FloatMaps, masks: _Masks, ignored: _Masks | None = None) -> dict[str, _Rows]:
    """Score maps against masks of the object, under the rules at the top of this module.

    Args:
        maps: Floating [N, h, w], raw; brought to the masks' size by `upsample_bilinear`.
        masks: bool [N, H, W].
        ignored: bool [N, H, W], pixels that are neither object nor background, such as the border that VOC draws
            around objects: they are left out as if the image did not have them. A sample of which they leave no
            object has no mask.

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
    if ignored is not None:
        if ignored.shape != masks.shape or ignored.dtype != np.bool_:
            raise DefectError(
                "Masks and ignored pixels do not fit.",
                expected=f"bool {list(masks.shape)}",
                found=f"{ignored.dtype} {list(ignored.shape)}",
            )
        masks = masks & ~ignored
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
        if ignored is None or not ignored[chunk].any():
            for name, function in LOCALISATION.items():
                values[name][chunk] = function(large, flat)
            continue
        # Every image has another number of pixels left.
        counted = ~ignored[chunk].reshape(len(chunk), -1)
        for row, one, mask, kept in zip(chunk, large, flat, counted, strict=True):
            for name, function in LOCALISATION.items():
                values[name][row] = function(one[None, kept], mask[None, kept])[0]
    return values


def grown(masks: _Masks, tolerance: float = POINTING_TOLERANCE) -> _Masks:
    """Masks with all pixels that lie within a tolerance of them: pointing at these is pointing with tolerance.

    Args:
        masks: bool [N, H, W].
        tolerance: Distance between pixel centres, as a share of the side along each axis, at least 0: what a square
            image allows in a circle, one that was squeezed allows in an ellipse.

    Returns:
        bool [N, H, W]; an empty mask stays empty.
    """
    height, width = masks.shape[1:]
    result = masks.copy()
    for down in range(-int(tolerance * height), int(tolerance * height) + 1):
        for across in range(-int(tolerance * width), int(tolerance * width) + 1):
            if (down / height) ** 2 + (across / width) ** 2 <= tolerance**2:
                rows, other_rows = _shifted(height, down)
                columns, other_columns = _shifted(width, across)
                result[:, rows, columns] |= masks[:, other_rows, other_columns]
    return result


def _shifted(length: int, by: int) -> tuple[slice, slice]:
    """Where on an axis something lies after a shift, and where it lay before."""
    return slice(max(by, 0), length + min(by, 0)), slice(max(-by, 0), length - max(by, 0))


def centre_prior(height: int, width: int) -> _Rows:
    """The map of somebody who has not seen the image: a Gaussian on its centre, a quarter of each side wide.

    Returns:
        float64 [height, width], positive, at most 1.
    """
    rows = ((np.arange(height) + 0.5) / height - 0.5) * 4
    columns = ((np.arange(width) + 0.5) / width - 0.5) * 4
    prior: _Rows = np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / 2)
    return prior
