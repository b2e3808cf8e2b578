"""The one normalisation of maps for display and comparison. Graphs, golden sets and engines keep maps raw.

Dividing by the largest magnitude keeps zero at zero and a signed map signed. Stretching the minimum to zero as well,
as many tools do, would turn a flat map into noise and hide that a map lost its contrast.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["FloatMaps", "clipped_distribution", "power_of_two_scaled", "unit_max"]

FloatMaps: TypeAlias = npt.NDArray[np.floating[Any]]


def _magnitude(maps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    magnitude: npt.NDArray[np.float64] = np.abs(maps).max(axis=(1, 2), keepdims=True)
    return magnitude


def unit_max(maps: FloatMaps) -> npt.NDArray[np.float64]:
    """Divide every map by its largest magnitude.

    Args:
        maps: Floating [N, h, w], finite, h and w at least 1.

    Returns:
        float64 [N, h, w]: `map / max|map|`, in [0, 1] for a non-negative map and in [-1, 1] for a signed one. A zero
        map stays zero.
    """
    wide = maps.astype(np.float64)
    magnitude = _magnitude(wide)
    return wide / np.where(magnitude > 0, magnitude, 1.0)


def power_of_two_scaled(maps: FloatMaps) -> npt.NDArray[np.float64]:
    """Bring every map's largest magnitude into [0.5, 1) by a power of two.

    Unlike `unit_max` this rounds nothing, so sums of squares are safe from overflow while equal values stay equal
    and different values stay different.

    Args:
        maps: Floating [N, h, w], finite.

    Returns:
        float64 [N, h, w].
    """
    wide = maps.astype(np.float64)
    _, exponent = np.frexp(_magnitude(wide))
    scaled: npt.NDArray[np.float64] = np.ldexp(wide, -exponent)
    return scaled


def clipped_distribution(maps: FloatMaps) -> npt.NDArray[np.float64]:
    """Read every map as a probability distribution over its cells.

    Args:
        maps: Floating [N, h, w], finite.

    Returns:
        float64 [N, h, w], non-negative, sum 1: `max(map, 0) / sum(max(map, 0))`. Negative evidence is clipped, since
        a distribution cannot hold it. A map without positive values stays all zero.
    """
    # Clipped before it is scaled: scaled by a huge negative value, a small positive one would vanish.
    positive = power_of_two_scaled(np.maximum(maps, 0.0))
    mass = positive.sum(axis=(1, 2), keepdims=True)
    return positive / np.where(mass > 0, mass, 1.0)
