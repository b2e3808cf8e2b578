"""What is known of a tensor's values over all calibration images. Its size does not depend on their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.formats import Range
from edgekit.errors import DefectError

__all__ = ["Histogram", "TensorStats"]


@dataclass(frozen=True)
class Histogram:
    """Counts of a tensor's values in bins of equal width.

    Attributes:
        low: Left edge of the first bin.
        high: Right edge of the last bin, which contains it. Above `low`.
        counts: int64 [bins], values other than zero.
        zeros: How many values are exactly zero. Kept apart because a ReLU makes many of them and every number format
            represents them without error; spread over a bin they would drown what is there to be measured.
    """

    low: float
    high: float
    counts: npt.NDArray[np.int64]
    zeros: int

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Bin edges, [bins + 1]."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def total(self) -> int:
        """Number of values, zeros included."""
        return int(self.counts.sum()) + self.zeros

    def with_zeros(self) -> npt.NDArray[np.int64]:
        """Counts of all values, [bins]: zeros in the bin that contains zero."""
        counts = self.counts.copy()
        if self.zeros:
            position = int((0.0 - self.low) * (len(counts) / (self.high - self.low)))
            counts[min(position, len(counts) - 1)] += self.zeros
        return counts

    def share_outside(self, limits: Range) -> float:
        """The share of values that `limits` clips, to the precision of a bin."""
        centres = (self.edges[:-1] + self.edges[1:]) / 2
        outside = (centres < limits.low) | (centres > limits.high)
        return float(self.counts[outside].sum() / max(self.total, 1))


@dataclass(frozen=True)
class TensorStats:
    """Statistics of one activation tensor.

    Attributes:
        name: The tensor.
        low: Smallest observed value.
        high: Largest observed value.
        count: Number of observed values.
        counted: The histogram, where the method asked for one.
    """

    name: str
    low: float
    high: float
    count: int
    counted: Histogram | None = None

    @property
    def extremes(self) -> Range:
        """The range that clips nothing."""
        return Range(self.low, self.high)

    @property
    def histogram(self) -> Histogram:
        """The histogram. Raises `DefectError` where none was collected."""
        if self.counted is None:
            raise DefectError("A calibrator read a histogram that it had not asked for.", where=self.name)
        return self.counted
