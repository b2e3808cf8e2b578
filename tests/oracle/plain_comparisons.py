"""The comparisons of maps as they were first written: each from its formula, nothing shared. Scores must be these."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgekit.attribution.normalise import FloatMaps, clipped_distribution, power_of_two_scaled, unit_max
from edgekit.errors import DefectError
from edgekit.metrics.states import check_pair

__all__ = [
    "TOP_SHARE",
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


def average_ranks(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rank the values of every row from 1 upwards; equal values share the average of their ranks.

    Args:
        rows: float64 [N, cells], without NaN.

    Returns:
        float64 [N, cells].
    """
    order = np.argsort(rows, axis=1)
    ordered = np.take_along_axis(rows, order, axis=1)
    place = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    edge = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones((len(rows), 1), dtype=np.bool_)
    first = np.maximum.accumulate(np.where(np.hstack([ends, edge]), place, 0), axis=1)
    backwards = np.where(np.hstack([edge, ends]), place, rows.shape[1])[:, ::-1]
    last = np.minimum.accumulate(backwards, axis=1)[:, ::-1]
    ranks = np.empty_like(rows)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def _require_comparable(teacher: FloatMaps, engine: FloatMaps) -> None:
    check_pair(teacher, engine)
    for maps in (teacher, engine):
        if not (np.isfinite(maps).all() and (maps != 0).any(axis=(1, 2)).all()):
            raise DefectError(
                "A metric was asked about a map that is zero or not finite.",
                hint="call score_agreement, which applies the rules for degenerate maps",
            )


def _flat(maps: _Rows) -> _Rows:
    return maps.reshape(len(maps), -1)


def _clipped(values: _Rows, low: float) -> _Rows:
    """Values whose definition lies in [low, 1], without what rounding adds to it."""
    clipped: _Rows = np.clip(values, low, 1.0)
    return clipped


def _cosine_of_rows(a: _Rows, b: _Rows) -> _Rows:
    # One square root of the product, and not a product of two: that is exactly 1 for identical rows.
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    cosine = (a * b).sum(axis=1) / np.where(norm > 0, norm, 1.0)
    return _clipped(cosine, -1.0)


def _correlation_of_rows(a: _Rows, b: _Rows) -> _Rows:
    """Pearson's r of each row pair; two constant rows correlate with 1, one constant row with nothing: 0."""
    constant_a, constant_b = (np.ptp(rows, axis=1) == 0 for rows in (a, b))
    # The minimum goes first: it leaves small exact numbers where the spread is tiny beside the mean.
    centred = [rows - rows.min(axis=1, keepdims=True) for rows in (a, b)]
    centred = [rows - rows.mean(axis=1, keepdims=True) for rows in centred]
    r = _cosine_of_rows(centred[0], centred[1])
    return np.where(constant_a & constant_b, 1.0, np.where(constant_a | constant_b, 0.0, r))


def compare_cosine(teacher: FloatMaps, engine: FloatMaps) -> _Rows:
    """Cosine of the angle between the maps as vectors, in [-1, 1]: `a.b / (|a| |b|)`."""
    _require_comparable(teacher, engine)
    return _cosine_of_rows(_flat(power_of_two_scaled(teacher)), _flat(power_of_two_scaled(engine)))


def compare_pearson(teacher: FloatMaps, engine: FloatMaps) -> _Rows:
    """Pearson's linear correlation over the cells, in [-1, 1]."""
    _require_comparable(teacher, engine)
    return _correlation_of_rows(_flat(power_of_two_scaled(teacher)), _flat(power_of_two_scaled(engine)))


def compare_spearman(teacher: FloatMaps, engine: FloatMaps) -> _Rows:
    """Spearman's rank correlation over the cells, in [-1, 1]; tied cells share their average rank."""
    _require_comparable(teacher, engine)
    ranks = [average_ranks(_flat(maps.astype(np.float64))) for maps in (teacher, engine)]
    return _correlation_of_rows(ranks[0], ranks[1])


def compare_ssim(teacher: FloatMaps, engine: FloatMaps) -> _Rows:
    """Mean structural similarity of the unit-max maps, in [-1, 1] (Wang et al. 2004, IEEE TIP 13(4)).

    Uniform window of side `min(7, largest odd <= min(h, w))`, only windows that lie inside the map, data range 1,
    K1 = 0.01, K2 = 0.03, and population covariances, which unlike sample covariances exist for a window of one cell.
    The same as scikit-image's `structural_similarity(..., data_range=1, use_sample_covariance=False)`.
    """
    _require_comparable(teacher, engine)
    side = min(_SSIM_WINDOW, *teacher.shape[1:])
    side -= 1 - side % 2
    a, b = unit_max(teacher), unit_max(engine)
    mean_a, mean_b = _window_mean(a, side), _window_mean(b, side)
    variance_a = _window_mean(a * a, side) - mean_a * mean_a
    variance_b = _window_mean(b * b, side) - mean_b * mean_b
    covariance = _window_mean(a * b, side) - mean_a * mean_b
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


def compare_iou_top(teacher: FloatMaps, engine: FloatMaps) -> _Rows:
    """Overlap of the strongest 20 % of the cells, in [0, 1]: intersection over union.

    `k = max(1, round(0.2 * h * w))` cells are chosen from each map. Where the k-th strongest value is held by several
    cells, the places left are shared equally among them, so a cell belongs to a choice by a degree from 0 to 1, and
    intersection and union are sums of the smaller and the larger degree (Ruzicka). Without ties that is the plain
    IoU. Breaking ties by position instead would let two maps that are mostly zero agree on cells neither points at.
    """
    _require_comparable(teacher, engine)
    a, b = (_top_membership(_flat(maps.astype(np.float64))) for maps in (teacher, engine))
    shared: _Rows = np.minimum(a, b).sum(axis=1) / np.maximum(a, b).sum(axis=1)
    return shared


def _top_membership(rows: _Rows) -> _Rows:
    cells = rows.shape[1]
    chosen = max(1, round(TOP_SHARE * cells))
    weakest = np.partition(rows, cells - chosen, axis=1)[:, cells - chosen, None]
    above, tied = rows > weakest, rows == weakest
    left = chosen - above.sum(axis=1, keepdims=True)
    return np.where(above, 1.0, np.where(tied, left / tied.sum(axis=1, keepdims=True), 0.0))


def compare_js_divergence(teacher: FloatMaps, engine: FloatMaps) -> _Rows:
    """Jensen-Shannon divergence in bits, in [0, 1] (Lin 1991): 0 for equal distributions, 1 for disjoint ones.

    Maps are read as distributions over cells with negative values clipped to zero. Two maps without any positive
    value are equal as distributions go (0); one without against one with is as far as it gets (1).
    """
    _require_comparable(teacher, engine)
    p, q = _flat(clipped_distribution(teacher)), _flat(clipped_distribution(engine))
    empty_p, empty_q = (~rows.any(axis=1) for rows in (p, q))
    divergence = _clipped((_relative_to_mixture(p, q) + _relative_to_mixture(q, p)) / 2, 0.0)
    return np.where(empty_p & empty_q, 0.0, np.where(empty_p | empty_q, 1.0, divergence))


def _relative_to_mixture(p: _Rows, q: _Rows) -> _Rows:
    """Kullback-Leibler divergence of p from (p + q) / 2 in bits: `sum p log2(2 p / (p + q))`."""
    present = p > 0
    ratio = np.where(present, p, 1.0) / np.where(present, p + q, 1.0)
    total: _Rows = np.where(present, p * (1.0 + np.log2(ratio)), 0.0).sum(axis=1)
    return total


def compare_argmax_distance(teacher: FloatMaps, engine: FloatMaps) -> _Rows:
    """Distance between the places the maps point at, in map diagonals, in [0, 1].

    A map points at its largest cell; cells tied for it stand for their centre of mass, which a quantised map needs
    more often than a float one. The diagonal runs between the centres of opposite corner cells.
    """
    _require_comparable(teacher, engine)
    height, width = teacher.shape[1:]
    diagonal = math.hypot(height - 1, width - 1)
    if diagonal == 0:
        return np.zeros(len(teacher))
    gap = _pointed_at(teacher) - _pointed_at(engine)
    return _clipped(np.hypot(gap[:, 0], gap[:, 1]) / diagonal, 0.0)


def _pointed_at(maps: FloatMaps) -> _Rows:
    """Row and column of each map's maximum, float64 [N, 2]."""
    largest = maps == maps.max(axis=(1, 2), keepdims=True)
    count = largest.sum(axis=(1, 2))
    row = (largest.sum(axis=2) * np.arange(maps.shape[1])).sum(axis=1) / count
    column = (largest.sum(axis=1) * np.arange(maps.shape[2])).sum(axis=1) / count
    return np.stack([row, column], axis=1)
