"""The quick attribution-aware method: a pass for extremes, gradients of a few images, ranges in closed form.

Images are rounded on their own grid where the graph allows it, ranges are those of least expected drift of map and
logits, and biases take up what rounding the weights does to means. What comes of it is compared with min-max on images
held out, through the quantised graph itself, and kept only where it is better there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from edgekit.calibrate.adjustments import Adjustments
from edgekit.calibrate.attribution.judge import Judge, table_of
from edgekit.calibrate.attribution.mean_errors import mean_shifts
from edgekit.calibrate.attribution.workbench import AdjustedView, Workbench
from edgekit.calibrate.calibrator import CalibrationContext, Calibrator
from edgekit.calibrate.drift import relative_drift
from edgekit.calibrate.minmax import MinMaxCalibrator
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.solution import Solution
from edgekit.core.canonical import JsonValue

__all__ = ["QuickCalibrator", "quick_from_options", "with_mean_shifts"]

_TRAINING, _JUDGING = 16, 32
# With ranges as the few training images have them, networks of residual blocks lost up to a third more.
_WIDENING = 0.25


class QuickCalibrator:
    """Ranges weighed by gradients.

    Args:
        adjust: Images may be rounded on their own grid, by a change of the graph.
        bias_correction: Biases may be shifted.
        batch_size: Images a run; gradients depend on it through the order of random numbers.
    """

    name: ClassVar[str] = "attribution-quick"

    def __init__(self, *, adjust: bool, bias_correction: bool, batch_size: int) -> None:
        self.adjust = adjust
        self.bias_correction = bias_correction
        self.batch_size = batch_size

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        """All that changes the solution."""
        return {
            "adjust": self.adjust,
            "bias_correction": self.bias_correction,
            "batch_size": self.batch_size,
            "training": _TRAINING,
            "judging": _JUDGING,
        }

    def solve(self, context: CalibrationContext) -> Solution:
        """The better of the weighted ranges and min-max.

        Raises:
            BadInputError: An activation or answer is not finite, or an operator has no gradient rule.
        """
        bench = Workbench(context, _TRAINING, _JUDGING)
        plain = bench.view()
        minmax = plain.streamed(MinMaxCalibrator())
        view = plain if bench.grid is None else bench.view(Adjustments(input_grid=bench.grid))
        if view is not plain:
            # Only the image changed its form: what was seen of the other tensors holds.
            view.context.__dict__["extremes"] = plain.context.extremes
        candidates = {"minmax": minmax, "weighted": self._weighted(bench, view)}
        chosen, drifts = Judge(bench.context, bench.judging.jittered(_JUDGING)).best(candidates)
        facts: dict[str, JsonValue] = {
            "chosen": chosen,
            "drift": {name: drift.to_dict() for name, drift in drifts.items()},
            "relative_drift": relative_drift(drifts[chosen], drifts["minmax"]),
            "input_grid": candidates[chosen].adjustments.input_grid is not None,
            "training_images": len(bench.split.training),
            "judging_images": len(bench.split.judging),
            "judged_on_images_apart": bench.split.apart,
        }
        return replace(candidates[chosen], facts=facts)

    def _weighted(self, bench: Workbench, view: AdjustedView) -> Solution:
        solution = view.weighted(_WIDENING)
        return with_mean_shifts(bench.context, view, solution) if self.bias_correction else solution


def with_mean_shifts(context: CalibrationContext, view: AdjustedView, solution: Solution) -> Solution:
    """A solution whose biases take up what rounding the weights does to the means.

    Args:
        context: Its graph is the one before adjustments.
        view: The form of the graph that the solution is for.
        solution: Without shifted biases.
    """
    adjusted = view.context
    shifts = mean_shifts(adjusted.graph, adjusted.placement, table_of(context, solution, adjusted.graph), view.means)
    # A bias that the change of the graph brought in is not in the graph that shifts are applied to.
    kept = {name: values for name, values in shifts.items() if context.graph.is_constant(name)}
    return replace(solution, adjustments=replace(solution.adjustments, bias_shifts=kept))


def quick_from_options(options: CalibrateOptions) -> Calibrator:
    """The calibrator a recipe asks for."""
    return QuickCalibrator(
        adjust=options.adjust, bias_correction=options.bias_correction, batch_size=options.batch_size
    )
