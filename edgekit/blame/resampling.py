"""What a few images show about means and ranks: the bootstrap, with the same resamples for every tensor.

Rounding is chaotic: whether a tensor's rounding flips one image's map decides its mean on thirty. Resampling the
images (Efron, Annals of Statistics 7, 1979) shows how far a mean, and a place in the order, hang on which images there
happened to be. All tensors are resampled together, since a difficult image is difficult for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "RankRange", "intervals", "rank_ranges", "resampled_means"]

_DRAWS = 1000
_SEED = 0
# The middle nine tenths: each bound is a one-sided 95 % bound.
_ENDS = (0.05, 0.95)


@dataclass(frozen=True)
class Interval:
    """A mean over images and the ends between which nine tenths of the resampled means lie."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class RankRange:
    """Places in an order, 1 the first, between which nine tenths of the resampled orders have an entry."""

    first: int
    last: int


def resampled_means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means over resamples of the images, float64 [rows, draws]; the same for equal input.

    Args:
        values: float64 [rows, N], N at least 1: rows are whatever was measured on the same N images.
    """
    count = values.shape[1]
    drawn = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), size=_DRAWS)
    means: npt.NDArray[np.float64] = values @ (drawn.T / count)
    return means


def intervals(values: npt.NDArray[np.float64]) -> tuple[Interval, ...]:
    """Mean and interval of each row of float64 [rows, N]."""
    low, high = np.quantile(resampled_means(values), _ENDS, axis=1)
    return tuple(
        Interval(float(mean), float(min(below, mean)), float(max(above, mean)))
        for mean, below, above in zip(values.mean(axis=1), low, high, strict=True)
    )


def rank_ranges(values: npt.NDArray[np.float64]) -> Sequence[RankRange]:
    """Between which places each row of float64 [rows, N] stands when rows are ordered by their mean, largest first."""
    means = resampled_means(values)
    order = np.argsort(-means, axis=0, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, len(values) + 1)[:, None], axis=0)
    first, last = np.quantile(ranks, _ENDS, axis=1, method="nearest")
    return tuple(RankRange(int(a), int(b)) for a, b in zip(first, last, strict=True))
