"""The seam of calibration methods: from images and a graph to the numbers that it is quantised with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from edgekit.calibrate.formats import NumberFormat, Range
from edgekit.calibrate.images import CalibrationImages
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.tensor_stats import TensorStats
from edgekit.core.canonical import JsonValue
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.core.registry import Registry
from edgekit.interface.card import InputSpec

if TYPE_CHECKING:
    # Recipes are checked against the table below, on machines and at moments without onnx.
    from edgekit.calibrate.graph import ExplainedGraph
    from edgekit.calibrate.observers import ActivationStream
    from edgekit.calibrate.placement import Placement

__all__ = ["CALIBRATORS", "CalibrationContext", "Calibrator", "CalibratorFactory", "TensorCalibrator"]


@dataclass(frozen=True)
class CalibrationContext:
    """All that a calibrator may draw on. What costs a pass over the images happens on first use and is kept.

    Attributes:
        graph: The FP32 graph, for methods that judge a range by what it does to logits and map.
        placement: What is to be quantised.
        number_format: The target's.
        images: The calibration images; any number of passes.
        options: Bins, batch size and parameters of methods.
        observer: Told of the progress.
        input: How images became the network's input, where that is known.
        workplace: A folder, perhaps not there yet, for work that should survive a kill; None keeps nothing.
    """

    graph: ExplainedGraph
    placement: Placement
    number_format: NumberFormat
    images: CalibrationImages
    options: CalibrateOptions
    observer: Observer = NULL_OBSERVER
    input: InputSpec | None = None
    workplace: Path | None = None

    @cached_property
    def extremes(self) -> Mapping[str, TensorStats]:
        """Extremes of every observed tensor: one pass."""
        return self._stream.extremes()

    @cached_property
    def histograms(self) -> Mapping[str, TensorStats]:
        """Extremes and a histogram over [low, high] of every observed tensor: a second pass."""
        return self._stream.histograms(self.extremes, self.options.bins, centred=False)

    @cached_property
    def centred_histograms(self) -> Mapping[str, TensorStats]:
        """Extremes and a histogram over [-amax, amax] of every observed tensor: a second pass."""
        return self._stream.histograms(self.extremes, self.options.bins, centred=True)

    @property
    def _stream(self) -> ActivationStream:
        from edgekit.calibrate.observers import ActivationStream

        return ActivationStream(
            self.graph, self.placement.observed, self.images, self.options.batch_size, self.observer
        )


class Calibrator(Protocol):
    """One method, with its parameters. Equal inputs give equal solutions, bit for bit."""

    @property
    def name(self) -> str:
        """Registry name."""

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        """Every parameter that changes the solution."""

    def solve(self, context: CalibrationContext) -> Solution:
        """Choose how the context's graph is quantised.

        Raises:
            BadInputError: An activation is not finite, or the images cannot be used.
        """


CalibratorFactory: TypeAlias = Callable[[CalibrateOptions], Calibrator]


class TensorCalibrator(ABC):
    """A method that looks at one tensor at a time.

    Attributes:
        name: Registry name.
        needs_histogram: False where the extremes suffice, which saves a pass.
        centred: The histogram is to span [-amax, amax].
    """

    name: ClassVar[str]
    needs_histogram: ClassVar[bool] = True
    centred: ClassVar[bool] = False

    @property
    @abstractmethod
    def parameters(self) -> Mapping[str, JsonValue]:
        """Every parameter that changes the ranges."""

    @abstractmethod
    def choose_range(self, stats: TensorStats, number_format: NumberFormat) -> Range:
        """The range for a tensor with these statistics."""

    def statistics(self, context: CalibrationContext) -> Mapping[str, TensorStats]:
        """The statistics the ranges are chosen from."""
        if not self.needs_histogram:
            return context.extremes
        return context.centred_histograms if self.centred else context.histograms

    def solve(self, context: CalibrationContext) -> Solution:
        """Choose each tensor's range by itself."""
        statistics = self.statistics(context)
        names = track(context.placement.observed, "calibrate: ranges", context.observer)
        ranges = {name: self.choose_range(statistics[name], context.number_format) for name in names}
        return Solution(ranges, statistics=statistics)


CALIBRATORS: Registry[CalibratorFactory] = Registry(
    "calibrator",
    {
        "attribution": "edgekit.calibrate.attribution.thorough:thorough_from_options",
        "attribution-quick": "edgekit.calibrate.attribution.quick:quick_from_options",
        "entropy": "edgekit.calibrate.entropy:entropy_from_options",
        "minmax": "edgekit.calibrate.minmax:minmax_from_options",
        "moving-average": "edgekit.calibrate.moving_average:moving_average_from_options",
        "mse": "edgekit.calibrate.mse:mse_from_options",
        "percentile": "edgekit.calibrate.percentile:percentile_from_options",
    },
)
