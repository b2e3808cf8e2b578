"""Entropy: the threshold whose coarsened distribution is closest to the original in Kullback-Leibler divergence.

The method is Migacz's (8-bit inference with TensorRT, GTC 2017), in the form that ONNX Runtime's calibration gives it;
that form is the definition here, truncations included, so that the two can be compared exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.calibrator import Calibrator, TensorCalibrator
from edgekit.calibrate.formats import NumberFormat, Range
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.tensor_stats import TensorStats
from edgekit.core.canonical import JsonValue

__all__ = ["EntropyCalibrator", "divergences", "entropy_from_options"]

# TensorRT's 128 levels of the magnitude, counted over both signs.
_LEVELS = 256
_SMOOTHING = 0.0001


class EntropyCalibrator(TensorCalibrator):
    """Minimises KL(original || quantised) over thresholds that are symmetric around zero.

    Args:
        bins: Bins of the histogram over [-amax, amax].
        levels: Levels of the coarse distribution over both signs together.
    """

    name: ClassVar[str] = "entropy"
    centred: ClassVar[bool] = True

    def __init__(self, bins: int, levels: int = _LEVELS) -> None:
        self.bins = bins
        self.levels = levels

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        """Resolution and levels."""
        return {"bins": self.bins, "levels": self.levels}

    def choose_range(self, stats: TensorStats, number_format: NumberFormat) -> Range:  # noqa: ARG002
        """The threshold with the smallest divergence, the smallest of those in a tie, within the extremes."""
        histogram = stats.histogram
        best = int(np.argmin(divergences(histogram.with_zeros(), self.levels)))
        start, end = _window(len(histogram.counts), self.levels // 2 + best)
        edges = histogram.edges
        return Range(max(edges[start], stats.low), min(edges[end], stats.high))


def _window(bins: int, reach: int) -> tuple[int, int]:
    """First and past-the-last bin of the candidate that reaches `reach` bins to either side of the middle one."""
    middle = bins // 2
    return middle - reach, min(middle + reach + 1, bins)


def divergences(counts: npt.NDArray[np.int64], levels: int) -> npt.NDArray[np.float64]:
    """Divergence of each candidate threshold, from the narrowest to the widest.

    Args:
        counts: int64 [bins], a histogram centred on zero, zeros included.
        levels: Levels of the coarse distribution, at most `bins`.

    Returns:
        float64 [bins // 2 - levels // 2 + 1]; infinite where a distribution is empty.
    """
    bins = len(counts)
    below = np.concatenate(([0], np.cumsum(counts)))
    result = np.full(bins // 2 - levels // 2 + 1, np.inf)
    for position in range(len(result)):
        start, end = _window(bins, levels // 2 + position)
        inside = counts[start:end]
        reference = inside.copy()
        reference[0] += below[start]
        reference[-1] += below[bins] - below[end]
        candidate = _coarsened(inside, reference != 0, levels)
        result[position] = _divergence(reference, candidate)
    return result


def _coarsened(inside: npt.NDArray[np.int64], occupied: npt.NDArray[np.bool_], levels: int) -> npt.NDArray[np.int64]:
    """`inside` merged into `levels` groups and spread again, each group over its length if any of it is occupied."""
    width = len(inside) // levels
    used = width * levels
    sums = inside[:used].reshape(levels, width).sum(axis=1)
    # The remainder joins the last group's count but is not filled: the runtime's form, kept for equality.
    sums[-1] += inside[used:].sum()
    holders = occupied[:used].reshape(levels, width).sum(axis=1)
    spread = np.zeros(levels, dtype=np.int64)
    np.floor_divide(sums, holders, out=spread, where=holders != 0)
    return np.concatenate((np.repeat(spread, width), np.zeros(len(inside) - used, dtype=np.int64)))


def _divergence(reference: npt.NDArray[np.int64], candidate: npt.NDArray[np.int64]) -> float:
    p, q = _smoothed(reference), _smoothed(candidate)
    if p is None or q is None:
        return float("inf")
    p, q = p / p.sum(), q / q.sum()
    # All of it in float32, which is the definition's, so that ties fall alike.
    return float((p * np.log(p / q)).sum())


def _smoothed(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
    """Counts with a little mass moved to the empty bins, so that the divergence is finite; None where all are empty."""
    empty = counts == 0
    holders = len(counts) - int(empty.sum())
    if holders == 0:
        return None
    taken = _SMOOTHING * float(empty.sum()) / float(holders)
    return counts.astype(np.float32) + np.where(empty, np.float32(_SMOOTHING), np.float32(-taken))


def entropy_from_options(options: CalibrateOptions) -> Calibrator:
    """The calibrator a recipe asks for."""
    return EntropyCalibrator(options.bins)
