"""Moving average: extremes averaged over batches, so that no single image decides a range.

A batch is `CalibrateOptions.batch_size` images wherever memory cuts the runs: extremes of batches depend on what a
batch is, and the result must not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.calibrator import Calibrator, TensorCalibrator
from edgekit.calibrate.formats import NumberFormat, Range
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.tensor_stats import TensorStats
from edgekit.core.canonical import JsonValue
from edgekit.errors import BadInputError, DefectError

if TYPE_CHECKING:
    # A registry's table is checked where there is no onnx.
    from edgekit.calibrate.calibrator import CalibrationContext

__all__ = ["MovingAverageCalibrator", "MovingAverageObserver", "moving_average_from_options"]

# ONNX Runtime's `averaging_constant`, and that of torch's MovingAverageMinMaxObserver.
_SMOOTHING = 0.01


class MovingAverageObserver:
    """Average of the smallest and of the largest value of one tensor over batches.

    The n-th batch enters with the weight max(smoothing, 1 / n): a plain mean of the first 1 / smoothing batches, and
    from there on the exponential average `mean + smoothing * (batch - mean)`. ONNX Runtime has either form, the mean
    within one call of `collect_data` (so `quantize_static`) and the exponential one from call to call; by itself the
    latter would leave the very first batch 86 % of the weight after sixteen.

    Args:
        name: The tensor, for errors.
        batch_size: Images a batch. The last one may have fewer and counts as much as the others.
        smoothing: Weight of a new batch at least, above 0 and at most 1.
    """

    def __init__(self, name: str, batch_size: int, smoothing: float = _SMOOTHING) -> None:
        self.name = name
        self._batch_size, self._smoothing = batch_size, smoothing
        self._mean = np.zeros(2)
        self._batches, self._count = 0, 0
        self._extremes, self._filled = np.zeros(2), 0

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Take the next images into account, float32 [n, ...], any number of them.

        Raises:
            BadInputError: A value is NaN or infinite.
        """
        start = 0
        while start < len(values):
            part = values[start : start + self._batch_size - self._filled]
            self._widen(part)
            start += len(part)
            if self._filled == self._batch_size:
                self._close()

    def _widen(self, part: npt.NDArray[np.float32]) -> None:
        found = np.array([part.min(), part.max()], dtype=np.float64)
        if not np.isfinite(found).all():
            raise BadInputError(
                "An activation is not finite, so no range covers it.",
                where=f"tensor {self.name!r}",
                expected="finite values",
                found=f"values from {found[0]} to {found[1]}",
                hint="check the weights for NaN or overflow and the images' normalisation",
            )
        if self._filled:
            found = np.array([min(self._extremes[0], found[0]), max(self._extremes[1], found[1])])
        self._extremes = found
        self._filled += len(part)
        self._count += part.size

    def _close(self) -> None:
        self._batches += 1
        self._mean += max(self._smoothing, 1 / self._batches) * (self._extremes - self._mean)
        self._filled = 0

    def result(self) -> TensorStats:
        """The averages as extremes. Ends the batch that is not full yet."""
        if self._filled:
            self._close()
        if self._batches == 0:
            raise DefectError("A tensor was never observed.", where=self.name)
        return TensorStats(self.name, float(self._mean[0]), float(self._mean[1]), self._count)


class MovingAverageCalibrator(TensorCalibrator):
    """Keeps the averages of the batches' extremes. What lies beyond is clipped; ONNX Runtime: `CalibMovingAverage`.

    Args:
        batch_size: Images a batch.
        smoothing: As `MovingAverageObserver`.
    """

    name: ClassVar[str] = "moving-average"
    needs_histogram: ClassVar[bool] = False

    def __init__(self, batch_size: int, smoothing: float = _SMOOTHING) -> None:
        self.batch_size = batch_size
        self.smoothing = smoothing

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        """What a batch is, and the weight of a new one."""
        return {"batch_size": self.batch_size, "smoothing": self.smoothing}

    def statistics(self, context: CalibrationContext) -> Mapping[str, TensorStats]:
        """Averages over batches: one pass."""
        from edgekit.calibrate.observers import ActivationStream

        tensors = context.placement.observed
        stream = ActivationStream(context.graph, tensors, context.images, self.batch_size, context.observer)
        observers = {name: MovingAverageObserver(name, self.batch_size, self.smoothing) for name in tensors}
        for activations in stream.run("calibrate: averages"):
            # Let go one by one: a loop's variable would hold a whole run while the next one is computed.
            for name in tuple(activations):
                observers[name].update(activations.pop(name))
        return {name: item.result() for name, item in observers.items()}

    def choose_range(self, stats: TensorStats, number_format: NumberFormat) -> Range:  # noqa: ARG002
        """The averages, with zero."""
        return stats.extremes


def moving_average_from_options(options: CalibrateOptions) -> Calibrator:
    """The calibrator a recipe asks for."""
    return MovingAverageCalibrator(options.batch_size)
