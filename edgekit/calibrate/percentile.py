"""Percentile: the smallest range of whole bins that keeps a given share of the values."""

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

__all__ = ["PercentileCalibrator", "percentile_from_options"]


class PercentileCalibrator(TensorCalibrator):
    """Clips a fixed share of a tensor's values, zeros counted.

    A tensor of both signs loses at most half of the share at either end; a tensor of one sign, or in a symmetric
    format, where only the magnitude matters, all of it at the far end.

    Args:
        percentile: Share that is kept, in percent.
        bins: Histogram bins, which bound the resolution.
    """

    name: ClassVar[str] = "percentile"

    def __init__(self, percentile: float, bins: int) -> None:
        self.percentile = percentile
        self.bins = bins

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        """Share and resolution."""
        return {"percentile": self.percentile, "bins": self.bins}

    def choose_range(self, stats: TensorStats, number_format: NumberFormat) -> Range:
        """Cut whole bins from the ends as long as what they hold may be lost."""
        histogram = stats.histogram
        counts, edges = histogram.with_zeros(), histogram.edges
        allowed = histogram.total * (100.0 - self.percentile) / 100.0
        if number_format.symmetric and stats.low < 0 < stats.high:
            amax = _magnitude(counts, edges, allowed)
            return Range(max(-amax, stats.low), min(amax, stats.high))
        if stats.low < 0 < stats.high:
            allowed /= 2
        cut_low = int(np.searchsorted(np.cumsum(counts), allowed, side="right")) if stats.low < 0 else 0
        cut_high = int(np.searchsorted(np.cumsum(counts[::-1]), allowed, side="right")) if stats.high > 0 else 0
        return Range(edges[cut_low], edges[len(counts) - cut_high])


def _magnitude(counts: npt.NDArray[np.int64], edges: npt.NDArray[np.float64], allowed: float) -> float:
    """The smallest bin edge magnitude beyond which at most `allowed` values lie; bins count by their outer edge."""
    outer = np.maximum(np.abs(edges[:-1]), np.abs(edges[1:]))
    order = np.argsort(outer, kind="stable")[::-1]
    cut = int(np.searchsorted(np.cumsum(counts[order]), allowed, side="right"))
    return float(outer[order[cut]])


def percentile_from_options(options: CalibrateOptions) -> Calibrator:
    """The calibrator a recipe asks for."""
    return PercentileCalibrator(options.percentile, options.bins)
