"""Min-max: the range that clips nothing that was seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgekit.calibrate.calibrator import Calibrator, TensorCalibrator
from edgekit.calibrate.formats import NumberFormat, Range
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.tensor_stats import TensorStats
from edgekit.core.canonical import JsonValue

__all__ = ["MinMaxCalibrator", "minmax_from_options"]


class MinMaxCalibrator(TensorCalibrator):
    """Keeps every observed value."""

    name: ClassVar[str] = "minmax"
    needs_histogram: ClassVar[bool] = False

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        """None."""
        return {}

    def choose_range(self, stats: TensorStats, number_format: NumberFormat) -> Range:  # noqa: ARG002
        """The extremes, with zero."""
        return stats.extremes


def minmax_from_options(options: CalibrateOptions) -> Calibrator:  # noqa: ARG001
    """The calibrator a recipe asks for."""
    return MinMaxCalibrator()
