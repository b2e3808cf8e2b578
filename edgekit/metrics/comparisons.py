"""The seven ways to compare two maps, each a function of two stacks [N, h, w] to float64 [N].

Everything here is defined on finite maps that are not all zero and refuses others; `edgekit.metrics.agreement` sorts
those out by a written rule. All arithmetic is in float64, and a row's value does not depend on the rows beside it.

What a metric needs of one stack alone is kept in a `MapStack`, so that several metrics, and several engines held
against one teacher, work it out once.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit.attribution.normalise import FloatMaps, clipped_distribution, power_of_two_scaled, unit_max
from edgekit.errors import DefectError
from edgekit.metrics.ranks import average_ranks
from edgekit.metrics.states import check_pair

__all__ = [
    "TOP_SHARE",
    "MapStack",
    "Maps",
    "compare_argmax_distance",
    "compare_cosine",
    "compare_iou_top",
    "compare_js_divergence",
    "compare_pearson",
    "compare_spearman",
    "compare_ssim",
]

TOP_SHARE = 0.2
_SSIM_WINDOW = 7
_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2

_Rows = npt.NDArray[np.float64]
_Float = TypeVar("_Float", bound=np.floating[Any])


class MapStack:
    """A stack of maps, and what the metrics make of it alone, each worked out when it is first asked for.

    Attributes:
        maps: Floating [N, h, w], not to be changed any more.
    """

    def __init__(self, maps: FloatMaps) -> None:
        self.maps = maps

    def __len__(self) -> int:
        return len(self.maps)

    @cached_property
    def comparable(self) -> bool:
        """Whether every map is finite and not zero."""
        return bool(np.isfinite(self.maps).all() and (self.maps != 0).any(axis=(1, 2)).all())

    @cached_property
    def scaled(self) -> _Rows:
        """Cells, scaled by a power of two, float64 [N, cells]."""
        return _flat(power_of_two_scaled(self.maps))

    @cached_property
    def squares(self) -> _Rows:
        """Sum of the squares of `scaled`, [N]."""
        return _squares(self.scaled)

    @cached_property
    def values(self) -> _Centred:
        """`scaled`, about its mean."""
        return _Centred(self.scaled)

    @cached_property
    def ranks(self) -> _Centred:
        """Ranks of the cells, about their mean."""
        return _Centred(average_ranks(_flat(self.maps)))

    @cached_property
    def unit(self) -> _Rows:
        """Maps with a largest magnitude of 1, float64 [N, h, w]."""
        return unit_max(self.maps)

    @cached_property
    def window(self) -> tuple[int, _Rows, _Rows]:
        """Side of SSIM's window, and mean and variance of `unit` in every window."""
        side = min(_SSIM_WINDOW, *self.maps.shape[1:])
        side -= 1 - side % 2
        mean = _window_mean(self.unit, side)
        return side, mean, _window_mean(self.unit * self.unit, side) - mean * mean

    @cached_property
    def strongest(self) -> _Rows:
        """To what degree a cell is among the strongest, [N, cells]; see `compare_iou_top`."""
        return _top_membership(_flat(self.maps))

    @cached_property
    def distribution(self) -> _Rows:
        """The maps as distributions over their cells, [N, cells]."""
        return _flat(clipped_distribution(self.maps))

    @cached_property
    def empty(self) -> npt.NDArray[np.bool_]:
        """Where `distribution` has no positive value, [N]."""
        none: npt.NDArray[np.bool_] = np.logical_not(self.distribution.any(axis=1))
        return none

    @cached_property
    def pointed_at(self) -> _Rows:
        """Row and column of the maximum, [N, 2]."""
        return _pointed_at(self.maps)


class _Centred:
    """Rows about their mean, with the sums of their squares, and which of them are constant."""

    def __init__(self, rows: _Rows) -> None:
        lowest = rows.min(axis=1, keepdims=True)
        self.constant: npt.NDArray[np.bool_] = (rows.max(axis=1, keepdims=True) - lowest == 0)[:, 0]
        # The minimum goes first: it leaves small exact numbers where the spread is tiny beside the mean.
        above = rows - lowest
        self.rows: _Rows = above - above.mean(axis=1, keepdims=True)
        self.squares = _squares(self.rows)


Maps: TypeAlias = FloatMaps | MapStack
"""What a metric takes: a stack of maps, or one that other metrics were asked about before."""


def _stacks(teacher: Maps, engine: Maps) -> tuple[MapStack, MapStack]:
    """The two stacks. Raises `DefectError` where they cannot be compared."""
    first, second = (maps if isinstance(maps, MapStack) else MapStack(maps) for maps in (teacher, engine))
    check_pair(first.maps, second.maps)
    if not (first.comparable and second.comparable):
        raise DefectError(
            "A metric was asked about a map that is zero or not finite.",
            hint="call score_agreement, which applies the rules for degenerate maps",
        )
    return first, second


def _flat(maps: npt.NDArray[_Float]) -> npt.NDArray[_Float]:
    return maps.reshape(len(maps), -1)


def _clipped(values: _Rows, low: float) -> _Rows:
    """Values whose definition lies in [low, 1], without what rounding adds to it."""
    clipped: _Rows = np.clip(values, low, 1.0)
    return clipped


def _squares(rows: _Rows) -> _Rows:
    total: _Rows = (rows * rows).sum(axis=1)
    return total


def _cosine_of_rows(a: _Rows, b: _Rows, squares_a: _Rows, squares_b: _Rows) -> _Rows:
    # One square root of the product, and not a product of two: that is exactly 1 for identical rows.
    norm = np.sqrt(squares_a * squares_b)
    cosine = (a * b).sum(axis=1) / np.where(norm > 0, norm, 1.0)
    return _clipped(cosine, -1.0)


def _correlation_of_rows(a: _Centred, b: _Centred) -> _Rows:
    """Pearson's r of each row pair; two constant rows correlate with 1, one constant row with nothing: 0."""
    r = _cosine_of_rows(a.rows, b.rows, a.squares, b.squares)
    return np.where(a.constant & b.constant, 1.0, np.where(a.constant | b.constant, 0.0, r))


def compare_cosine(teacher: Maps, engine: Maps) -> _Rows:
    """Cosine of the angle between the maps as vectors, in [-1, 1]: `a.b / (|a| |b|)`."""
    a, b = _stacks(teacher, engine)
    return _cosine_of_rows(a.scaled, b.scaled, a.squares, b.squares)


def compare_pearson(teacher: Maps, engine: Maps) -> _Rows:
    """Pearson's linear correlation over the cells, in [-1, 1]."""
    a, b = _stacks(teacher, engine)
    return _correlation_of_rows(a.values, b.values)


def compare_spearman(teacher: Maps, engine: Maps) -> _Rows:
    """Spearman's rank correlation over the cells, in [-1, 1]; tied cells share their average rank."""
    a, b = _stacks(teacher, engine)
    return _correlation_of_rows(a.ranks, b.ranks)


def compare_ssim(teacher: Maps, engine: Maps) -> _Rows:
    """Mean structural similarity of the unit-max maps, in [-1, 1] (Wang et al. 2004, IEEE TIP 13(4)).

    Uniform window of side `min(7, largest odd <= min(h, w))`, only windows that lie inside the map, data range 1,
    K1 = 0.01, K2 = 0.03, and population covariances, which unlike sample covariances exist for a window of one cell.
    The same as scikit-image's `structural_similarity(..., data_range=1, use_sample_covariance=False)`.
    """
    a, b = _stacks(teacher, engine)
    side, mean_a, variance_a = a.window
    _, mean_b, variance_b = b.window
    covariance = _window_mean(a.unit * b.unit, side) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _SSIM_C1) / (mean_a * mean_a + mean_b * mean_b + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_a + variance_b + _SSIM_C2)
    return _clipped((luminance * structure).mean(axis=(1, 2)), -1.0)


def _window_mean(maps: _Rows, side: int) -> _Rows:
    """Mean over every window of `side` x `side` cells that lies inside the map."""
    rows = maps.shape[1] - side + 1
    columns = maps.shape[2] - side + 1
    tall = maps[:, :rows].copy()
    for shift in range(1, side):
        tall += maps[:, shift : shift + rows]
    total = tall[:, :, :columns].copy()
    for shift in range(1, side):
        total += tall[:, :, shift : shift + columns]
    return total / (side * side)


def compare_iou_top(teacher: Maps, engine: Maps) -> _Rows:
    """Overlap of the strongest 20 % of the cells, in [0, 1]: intersection over union.

    `k = max(1, round(0.2 * h * w))` cells are chosen from each map. Where the k-th strongest value is held by several
    cells, the places left are shared equally among them, so a cell belongs to a choice by a degree from 0 to 1, and
    intersection and union are sums of the smaller and the larger degree (Ruzicka). Without ties that is the plain
    IoU. Breaking ties by position instead would let two maps that are mostly zero agree on cells neither points at.
    """
    a, b = _stacks(teacher, engine)
    first, second = a.strongest, b.strongest
    shared: _Rows = np.minimum(first, second).sum(axis=1) / np.maximum(first, second).sum(axis=1)
    return shared


def _top_membership(rows: npt.NDArray[np.floating]) -> _Rows:
    cells = rows.shape[1]
    chosen = max(1, round(TOP_SHARE * cells))
    weakest = np.partition(rows, cells - chosen, axis=1)[:, cells - chosen, None]
    above, tied = rows > weakest, rows == weakest
    left = chosen - above.sum(axis=1, keepdims=True)
    return np.where(above, 1.0, np.where(tied, left / tied.sum(axis=1, keepdims=True), 0.0))


def compare_js_divergence(teacher: Maps, engine: Maps) -> _Rows:
    """Jensen-Shannon divergence in bits, in [0, 1] (Lin 1991): 0 for equal distributions, 1 for disjoint ones.

    Maps are read as distributions over cells with negative values clipped to zero. Two maps without any positive
    value are equal as distributions go (0); one without against one with is as far as it gets (1).
    """
    a, b = _stacks(teacher, engine)
    p, q = a.distribution, b.distribution
    divergence = _clipped((_relative_to_mixture(p, q) + _relative_to_mixture(q, p)) / 2, 0.0)
    return np.where(a.empty & b.empty, 0.0, np.where(a.empty | b.empty, 1.0, divergence))


def _relative_to_mixture(p: _Rows, q: _Rows) -> _Rows:
    """Kullback-Leibler divergence of p from (p + q) / 2 in bits: `sum p log2(2 p / (p + q))`."""
    present = p > 0
    ratio = np.where(present, p, 1.0) / np.where(present, p + q, 1.0)
    total: _Rows = np.where(present, p * (1.0 + np.log2(ratio)), 0.0).sum(axis=1)
    return total


def compare_argmax_distance(teacher: Maps, engine: Maps) -> _Rows:
    """Distance between the places the maps point at, in map diagonals, in [0, 1].

    A map points at its largest cell; cells tied for it stand for their centre of mass, which a quantised map needs
    more often than a float one. The diagonal runs between the centres of opposite corner cells.
    """
    a, b = _stacks(teacher, engine)
    height, width = a.maps.shape[1:]
    diagonal = math.hypot(height - 1, width - 1)
    if diagonal == 0:
        return np.zeros(len(a))
    gap = a.pointed_at - b.pointed_at
    return _clipped(np.hypot(gap[:, 0], gap[:, 1]) / diagonal, 0.0)


def _pointed_at(maps: FloatMaps) -> _Rows:
    """Row and column of each map's maximum, float64 [N, 2]."""
    largest = maps == maps.max(axis=(1, 2), keepdims=True)
    count = largest.sum(axis=(1, 2))
    row = (largest.sum(axis=2) * np.arange(maps.shape[1])).sum(axis=1) / count
    column = (largest.sum(axis=1) * np.arange(maps.shape[2])).sum(axis=1) / count
    return np.stack([row, column], axis=1)
