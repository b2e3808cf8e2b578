"""MSE: the range with the smallest expected squared quantisation error on the histogram.

Values count as spread evenly within their bin and zeros as exact, so the expectation is an integral with a closed
form: with u = x / scale, n(u) the nearest level within the grid and F(u) = n / 12 + (u - n)^3 / 3, the integral of the
squared error from a to b is scale^3 * (F(b / scale) - F(a / scale)). Beyond the grid's ends the same F is the clipping
error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.calibrator import Calibrator, TensorCalibrator
from edgekit.calibrate.formats import NumberFormat, Range, activation_params
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.tensor_stats import Histogram, TensorStats
from edgekit.core.canonical import JsonValue

__all__ = ["MseCalibrator", "candidate_ranges", "expected_squared_error", "mse_from_options", "squared_error"]

_STEPS = 80


class MseCalibrator(TensorCalibrator):
    """Searches ranges on a grid of fractions of the extremes.

    Args:
        bins: Histogram bins.
        steps: Candidates where one end is searched: the extreme times 1/steps, 2/steps, ... 1. Where both ends are,
            half as many for each.
    """

    name: ClassVar[str] = "mse"

    def __init__(self, bins: int, steps: int = _STEPS) -> None:
        self.bins = bins
        self.steps = steps

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        """Resolution of the histogram and of the search."""
        return {"bins": self.bins, "steps": self.steps}

    def choose_range(self, stats: TensorStats, number_format: NumberFormat) -> Range:
        """The best candidate, the widest of those in a tie."""
        candidates = candidate_ranges(stats, number_format, self.steps)
        errors = [expected_squared_error(stats.histogram, limits, number_format) for limits in candidates]
        return candidates[int(np.argmin(errors))]


def candidate_ranges(stats: TensorStats, number_format: NumberFormat, steps: int) -> list[Range]:
    """The ranges that are tried, widest first.

    In a symmetric format both ends shrink together, since the larger decides. In an asymmetric one they shrink
    independently, as far as the tensor has values on that side.
    """
    limits = stats.extremes
    if not number_format.symmetric and limits.low < 0 < limits.high:
        steps //= 2
    fractions = [step / steps for step in range(steps, 0, -1)]
    if number_format.symmetric:
        ends = (limits.amax * fraction for fraction in fractions)
        return [Range(max(limits.low, -end), min(limits.high, end)) for end in ends]
    lows = [limits.low * fraction for fraction in fractions] if limits.low < 0 else [0.0]
    highs = [limits.high * fraction for fraction in fractions] if limits.high > 0 else [0.0]
    return [Range(low, high) for low in lows for high in highs]


def expected_squared_error(histogram: Histogram, limits: Range, number_format: NumberFormat) -> float:
    """Mean squared error of one tensor quantised with range `limits`, over all its values.

    Args:
        histogram: The tensor's values.
        limits: Range to judge; scale and zero point are those it gets in `number_format`, rounding included.
        number_format: The target's.
    """
    return squared_error(histogram.edges, histogram.counts, limits, number_format) / max(histogram.total, 1)


def squared_error(
    edges: npt.NDArray[np.float64], weights: npt.NDArray[Any], limits: Range, number_format: NumberFormat
) -> float:
    """Weighted sum of squared errors of values that are spread evenly within bins of equal width.

    Args:
        edges: [bins + 1].
        weights: [bins], what the values of a bin weigh together: their number, or how much their errors matter.
        limits: Range to judge.
        number_format: The target's.
    """
    params = activation_params(limits, number_format)
    lowest, highest = number_format.qmin - params.zero_point, number_format.qmax - params.zero_point
    width = (edges[-1] - edges[0]) / len(weights)
    integral = _antiderivative(edges / params.scale, lowest, highest)
    total = float(weights @ np.diff(integral))
    return float(params.scale**3 / width * total)


def _antiderivative(u: npt.NDArray[np.float64], lowest: int, highest: int) -> npt.NDArray[np.float64]:
    nearest = np.clip(np.rint(u), lowest, highest)
    # Not `** 3`: numpy's general power takes several times as long as everything else here.
    beside = u - nearest
    result: npt.NDArray[np.float64] = nearest / 12 + beside * beside * beside / 3
    return result


def mse_from_options(options: CalibrateOptions) -> Calibrator:
    """The calibrator a recipe asks for."""
    return MseCalibrator(options.bins)
