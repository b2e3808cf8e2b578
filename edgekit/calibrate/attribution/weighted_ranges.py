"""Ranges by what errors do to the answers: squared errors weighed by the squared gradients of map and logits.

To second order the drift that an error e of an activation causes is the mean of (gradient * e)^2 over random weighings
of the outputs. So a bin of a histogram counts by the squared gradients of its values, and the range of least expected
drift follows in closed form, as the range of least squared error does (`mse`).

A few images show a gradient here and there by chance, and none of a value that they lack. So half of the weight is that
of an even spread: each value counts by the tensor's mean squared gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.formats import NumberFormat, Range
from edgekit.calibrate.gradients.stream import TensorGradient
from edgekit.calibrate.mse import squared_error
from edgekit.calibrate.tensor_stats import TensorStats

__all__ = ["WeightedHistogram", "least_drift_range", "weighted_histograms"]

_BINS = 1024
# A range is searched in sixteenths, and around the best of them in quarters of those.
_COARSE, _FINE = 16, 4
# Values of a tensor that a batch contributes at most, evenly spaced. More say no more about where its values lie.
_VALUES = 1 << 15
# The share of an even spread in the weights.
_EVEN = 0.5


@dataclass(frozen=True)
class WeightedHistogram:
    """How much errors of a tensor's values matter, by value.

    Attributes:
        limits: The extremes over all calibration images.
        edges: float64 [bins + 1], over the extremes.
        weights: float64 [bins]; values that are exactly zero have no error and are left out.
    """

    limits: Range
    edges: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


def weighted_histograms(
    extremes: Mapping[str, TensorStats], batches: Iterable[dict[str, TensorGradient]]
) -> dict[str, WeightedHistogram]:
    """Histograms over the extremes, from values and gradients of some images; memory does not grow with the images.

    Args:
        extremes: Of the tensors wanted, over all images.
        batches: As `GradientStream.run` gives them; emptied on the way.
    """
    limits = {name: stats.extremes for name, stats in extremes.items()}
    squares = {name: np.zeros(_BINS) for name in limits}
    counts = {name: np.zeros(_BINS) for name in limits}
    for batch in batches:
        for name in tuple(batch):
            item = batch.pop(name)
            values = item.values.reshape(-1)
            gradients = item.gradient.reshape(-1, len(values))
            # An odd stride, so that it does not keep step with the rows of an image.
            stride = (len(values) // _VALUES) | 1
            values, gradients = values[::stride], gradients[:, ::stride]
            kept = np.flatnonzero(values)
            bins = _bins_of(values[kept], limits[name])
            squared = np.square(gradients).sum(axis=0)[kept]
            squares[name] += np.bincount(bins, squared, _BINS)
            counts[name] += np.bincount(bins, minlength=_BINS)
    return {name: _mixed(limits[name], squares[name], counts[name]) for name in limits}


def _bins_of(values: npt.NDArray[np.float32], limits: Range) -> npt.NDArray[np.intp]:
    width = (limits.high - limits.low) or 1.0
    position = (values - np.float32(limits.low)) * np.float32(_BINS / width)
    bins: npt.NDArray[np.intp] = np.clip(position.astype(np.intp), 0, _BINS - 1)
    return bins


def _mixed(limits: Range, squares: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> WeightedHistogram:
    mean = squares.sum() / max(counts.sum(), 1.0)
    # Where no gradient came through, every value counts alike: the answers do not tell.
    even = counts * (mean or 1.0)
    high = limits.high if limits.amax > 0 else 1.0
    return WeightedHistogram(limits, np.linspace(limits.low, high, _BINS + 1), (1 - _EVEN) * squares + _EVEN * even)


def least_drift_range(histogram: WeightedHistogram, fmt: NumberFormat) -> Range:
    """The range of least expected drift within the extremes.

    Both ends shrink together first, and then, in an asymmetric format, each by itself. The cost has one broad valley
    with ripples, so it is looked at in coarse steps and then, around the best of them, in fine ones.
    """
    limits = histogram.limits

    def searched(made: Callable[[float], Range], start: Range | None = None) -> Range:
        def cost(limits: Range) -> float:
            return squared_error(histogram.edges, histogram.weights, limits, fmt)

        coarse = [step / _COARSE for step in range(_COARSE, 0, -1)]
        best = coarse[int(np.argmin([cost(made(fraction)) for fraction in coarse]))]
        fine = [best + step / (_COARSE * _FINE) for step in range(_FINE - 1, -_FINE, -1)]
        tried = [made(fraction) for fraction in fine if 0 < fraction <= 1]
        tried = tried if start is None else [start, *tried]
        return tried[int(np.argmin([cost(item) for item in tried]))]

    if fmt.symmetric:

        def both(fraction: float) -> Range:
            end = limits.amax * fraction
            return Range(max(limits.low, -end), min(limits.high, end))

        return searched(both)
    found = searched(lambda fraction: Range(limits.low * fraction, limits.high * fraction))
    if limits.low < 0 < limits.high:
        high = found.high
        found = searched(lambda fraction: Range(limits.low * fraction, high), found)
        low = found.low
        found = searched(lambda fraction: Range(low, limits.high * fraction), found)
    return found
