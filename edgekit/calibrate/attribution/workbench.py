"""What the attribution-aware methods share: one context, adjusted this way or that, and what was learnt of it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import NO_ADJUSTMENTS, Adjustments, InputGrid
from edgekit.calibrate.attribution.image_split import HeldImages, ImageSplit, KeptImages, split_images
from edgekit.calibrate.attribution.live_ranges import live_limits, within
from edgekit.calibrate.attribution.mean_errors import MeanImages
from edgekit.calibrate.attribution.weighted_ranges import (
    WeightedHistogram,
    least_drift_range,
    weighted_histograms,
)
from edgekit.calibrate.calibrator import CalibrationContext, TensorCalibrator
from edgekit.calibrate.formats import Range
from edgekit.calibrate.gradients.stream import GradientStream
from edgekit.calibrate.graph import IMAGE, PIXELS
from edgekit.calibrate.input_grid import grid_of, grid_problem, grid_range, image_range
from edgekit.calibrate.placement import place
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.tensor_stats import TensorStats

__all__ = ["AdjustedView", "Workbench"]


@dataclass(frozen=True)
class AdjustedView:
    """The context's graph after some adjustments, and ranges for it.

    Attributes:
        context: A context whose graph is the adjusted one; statistics are computed once.
        adjustments: What was adjusted.
        training: Images to take gradients on.
        fixed: Ranges that are known beforehand: that of an image on its own grid.
        projections: Random weighings of the outputs an image, for gradients.

    Ranges never reach beyond what a tensor's readers tell apart (`live_ranges`).
    """

    context: CalibrationContext
    adjustments: Adjustments
    training: HeldImages
    fixed: Mapping[str, Range]
    projections: int

    def streamed(self, calibrator: TensorCalibrator) -> Solution:
        """What a method that looks at one tensor at a time chooses here."""
        found = calibrator.solve(self.context)
        return self._solution(found.ranges, found.statistics)

    def weighted(self, widening: float = 0.0) -> Solution:
        """Ranges of least expected drift on the training images.

        Args:
            widening: How far back to go towards what all images reach, 0 to 1: the training images are few, and do not
                show how often the furthest values of the others come.
        """
        extremes, ranges = self.context.extremes, {}
        for name, histogram in self._seen[0].items():
            found, furthest = least_drift_range(histogram, self.context.number_format), extremes[name].extremes
            low = found.low + widening * (furthest.low - found.low)
            high = found.high + widening * (furthest.high - found.high)
            ranges[name] = Range(low, high)
        return self._solution(ranges, extremes)

    @property
    def means(self) -> MeanImages:
        """The mean image of what each layer with weights reads, over the training images."""
        return self._seen[1]

    @cached_property
    def _seen(self) -> tuple[dict[str, WeightedHistogram], MeanImages]:
        """What one pass of gradients over the training images shows."""
        context = self.context
        wanted = tuple(name for name in context.placement.observed if name not in self.fixed)
        means = MeanImages(use.data for use in context.placement.weights)
        others = tuple(sorted(means.tensors - set(wanted)))
        stream = GradientStream(
            context.graph,
            (*wanted, *others),
            self.training,
            context.options.batch_size,
            self.projections,
            observer=context.observer,
        )
        extremes = {name: context.extremes[name] for name in wanted}
        return weighted_histograms(extremes, means.watching(stream.run(), frozenset(wanted))), means

    def _solution(self, ranges: Mapping[str, Range], statistics: Mapping[str, TensorStats]) -> Solution:
        graph = self.context.graph
        live = {name: within(limits, live_limits(graph, name)) for name, limits in ranges.items()}
        return Solution({**live, **self.fixed}, adjustments=self.adjustments, statistics=statistics)


class Workbench:
    """A context as the methods work on it.

    Args:
        context: What is to be calibrated.
        training: Images to learn from at most.
        judging: Images to judge by at most.
        projections: As `AdjustedView` has it.
    """

    def __init__(self, context: CalibrationContext, training: int, judging: int, projections: int = 1) -> None:
        self.projections = projections
        self.split: ImageSplit = split_images(len(context.images.digests), training, judging)
        self.images = KeptImages(
            context.images, tuple({*self.split.training, *self.split.judging}), context.graph.input_shape
        )
        self.context = replace(context, images=self.images)

    @cached_property
    def training(self) -> HeldImages:
        """Images that may be learnt from."""
        return self.images.held(self.split.training)

    @cached_property
    def judging(self) -> HeldImages:
        """Images that judge."""
        return self.images.held(self.split.judging)

    @cached_property
    def grid(self) -> InputGrid | None:
        """The grid of the images, where rounding them on it takes a change of the graph and one is allowed."""
        context = self.context
        if context.input is None or not context.options.adjust or grid_problem(context.graph) is not None:
            return None
        if IMAGE not in context.placement.observed:
            return None
        return grid_of(context.input, context.number_format)

    def view(self, adjustments: Adjustments = NO_ADJUSTMENTS) -> AdjustedView:
        """The context with its graph adjusted."""
        context = self.context
        # Every method needs the extremes, and images are kept while they are found: no pass for the images alone.
        _ = context.extremes
        graph = apply_adjustments(context.graph, adjustments)
        if graph is not context.graph:
            placement = place(graph, context.number_format, context.options.exclude)
            context = replace(context, graph=graph, placement=placement)
        return AdjustedView(context, adjustments, self.training, self._fixed(adjustments), self.projections)

    def _fixed(self, adjustments: Adjustments) -> dict[str, Range]:
        if adjustments.input_grid is not None:
            return {PIXELS: grid_range(self.context.number_format)}
        if self.context.input is None or IMAGE not in self.context.placement.observed:
            return {}
        known = image_range(self.context.input, self.context.number_format)
        return {} if known is None else {IMAGE: known}
