"""The thorough attribution-aware method: several ways to round, each kept only if maps and answers hold better by it.

    forms        the graph as it is; with images on their own grid; and with channels of like size besides
    ranges       of each form: the best of min-max, percentile, MSE and least expected drift
    weights      of each form: integers, scales and biases settled layer by layer
    descent      of the best: ranges tried on the map itself

Every step is judged on images that no gradient and no weight was learnt from, through the quantised graph as it would
ship. Where there are too few images for that, integers are not learnt and ranges not tried. What does not show there is not done: a plain min-max solution can win, and the facts say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from edgekit.calibrate.adjustments import Adjustments
from edgekit.calibrate.attribution.channel_evidence import collect_evidence, evidence_tensors
from edgekit.calibrate.attribution.descent import descend
from edgekit.calibrate.attribution.equalise import choose_factors
from edgekit.calibrate.attribution.equality import proven_groups
from edgekit.calibrate.attribution.judge import Judge, table_of
from edgekit.calibrate.attribution.learned_rounding import learn_weights
from edgekit.calibrate.attribution.scale_groups import find_groups
from edgekit.calibrate.attribution.workbench import AdjustedView, Workbench
from edgekit.calibrate.calibrator import CalibrationContext, Calibrator
from edgekit.calibrate.drift import Drift, relative_drift
from edgekit.calibrate.gradients.stream import GradientStream
from edgekit.calibrate.minmax import MinMaxCalibrator
from edgekit.calibrate.mse import MseCalibrator
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.percentile import PercentileCalibrator
from edgekit.calibrate.probe import float_answers
from edgekit.calibrate.solution import Solution
from edgekit.core.canonical import JsonValue

__all__ = ["ThoroughCalibrator", "thorough_from_options"]

_TRAINING, _JUDGING = 128, 128
_PROJECTIONS = 4
_WIDENING = 0.25
_PROOF_IMAGES = 4


@dataclass(frozen=True)
class _Judged:
    """A solution and what it did.

    Attributes:
        name: What made it, step by step.
        solution: The solution.
        drift: Its drift on the judging images.
        fixed: Tensors whose ranges are known and not searched.
    """

    name: str
    solution: Solution
    drift: Drift
    fixed: frozenset[str]


class ThoroughCalibrator:
    """Ranges, channels, weights and biases with the map in the objective.

    Args:
        options: The recipe's.
    """

    name: ClassVar[str] = "attribution"

    def __init__(self, options: CalibrateOptions) -> None:
        self.options = options

    @property
    def parameters(self) -> Mapping[str, JsonValue]:
        """All that changes the solution."""
        options = self.options
        return {
            "adjust": options.adjust,
            "rounding": options.rounding,
            "bias_correction": options.bias_correction,
            "sweeps": options.sweeps,
            "percentile": options.percentile,
            "bins": options.bins,
            "batch_size": options.batch_size,
            "training": _TRAINING,
            "judging": _JUDGING,
        }

    def solve(self, context: CalibrationContext) -> Solution:
        """The best of everything that was tried.

        Raises:
            BadInputError: An activation or answer is not finite, or an operator has no gradient rule.
        """
        return _Solving(context, self.options).result()


class _Solving:
    """One graph being calibrated."""

    def __init__(self, context: CalibrationContext, options: CalibrateOptions) -> None:
        self.options = options
        self.bench = Workbench(context, _TRAINING, _JUDGING, _PROJECTIONS)
        self.context = self.bench.context
        self.judge = Judge(self.context, self.bench.judging.jittered())
        plain = self.bench.view()
        solution = plain.streamed(MinMaxCalibrator())
        self.baseline = self.judge.drift(solution)
        self.first = self.best = _Judged("minmax", solution, self.baseline, frozenset(plain.fixed))
        self.steps: list[JsonValue] = []
        self._note("minmax", self.baseline, kept=True)
        self.plain = plain

    def result(self) -> Solution:
        """Take all steps."""
        self._form(self.plain, "")
        if self.bench.grid is not None:
            self._form(self.bench.view(Adjustments(input_grid=self.bench.grid)), "grid, ")
        if self.options.adjust:
            self._equalise()
        self._descent()
        solution = self.best.solution
        facts: dict[str, JsonValue] = {
            "chosen": self.best.name,
            "steps": self.steps,
            "relative_drift": relative_drift(self.best.drift, self.baseline),
            "training_images": len(self.bench.split.training),
            "judging_images": len(self.bench.split.judging),
            "judged_on_images_apart": self.bench.split.apart,
        }
        return replace(solution, facts=facts)

    def _note(self, name: str, drift: Drift, *, kept: bool) -> None:
        relative = relative_drift(drift, self.baseline)
        self.steps.append({"step": name, "drift": drift.to_dict(), "relative_drift": relative, "kept": kept})

    def _offer(self, name: str, solution: Solution, fixed: frozenset[str]) -> _Judged:
        """Judge a solution, and keep it if it is better than the best so far."""
        offered = _Judged(name, solution, self.judge.drift(solution), fixed)
        kept = relative_drift(offered.drift, self.best.drift) < 1
        self._note(name, offered.drift, kept=kept)
        if kept:
            self.best = offered
        return offered

    def _form(self, view: AdjustedView, prefix: str) -> None:
        """Ranges of one form of the graph, and the weights with the best of them."""
        options, fixed = self.options, frozenset(view.fixed)
        offers: dict[str, Callable[[], Solution]] = {
            "minmax": lambda: view.streamed(MinMaxCalibrator()),
            "percentile": lambda: view.streamed(PercentileCalibrator(options.percentile, options.bins)),
            "mse": lambda: view.streamed(MseCalibrator(options.bins)),
            "least expected drift": view.weighted,
            "least expected drift, widened": lambda: view.weighted(_WIDENING),
        }
        if not view.adjustments:
            # That is the baseline, which was judged already.
            del offers["minmax"]
        offered = [self._offer(f"{prefix}{name}", make(), fixed) for name, make in offers.items()]
        if not view.adjustments:
            offered.append(self.first)
        self._settle(min(offered, key=lambda item: relative_drift(item.drift, self.baseline)))

    def _equalise(self) -> None:
        context = self.context
        groups = find_groups(context.graph, context.placement)
        groups, notes = proven_groups(context.graph, groups, self.bench.training.pixels[:_PROOF_IMAGES])
        for note in notes:
            context.observer.noted(f"calibrate: {note}")
        if not groups:
            return
        stream = GradientStream(
            context.graph,
            evidence_tensors(groups),
            self.bench.training,
            context.options.batch_size,
            _PROJECTIONS,
            observer=context.observer,
        )
        factors = choose_factors(
            context.graph, groups, collect_evidence(context.graph, groups, stream.run()), context.number_format
        )
        if factors:
            adjustments = Adjustments(input_grid=self.bench.grid, factors=factors)
            self._form(self.bench.view(adjustments), "grid, equalised, " if self.bench.grid else "equalised, ")

    def _settle(self, start: _Judged) -> None:
        """Weights and biases for some ranges; where learned integers do not pay, shifted biases may."""
        options = self.options
        # Integers fit the few images there are, and the same images would praise them for it.
        rounding = options.rounding == "learned" and self.bench.split.apart
        bias_correction = options.bias_correction
        if rounding:
            name = "learned rounding, bias correction" if bias_correction else "learned rounding"
            settled = self._learned(start, name, rounding=True, bias_correction=bias_correction)
            if relative_drift(settled.drift, start.drift) < 1:
                return
        if bias_correction:
            self._learned(start, "bias correction", rounding=False, bias_correction=True)

    def _learned(self, start: _Judged, name: str, *, rounding: bool, bias_correction: bool) -> _Judged:
        context = self.context
        found = learn_weights(
            context.graph,
            table_of(context, start.solution),
            self.bench.training.pixels,
            rounding=rounding,
            bias_correction=bias_correction,
            observer=context.observer,
        )
        adjustments = replace(start.solution.adjustments, bias_shifts=found.bias_shifts, rounding=found.rounding)
        solution = replace(start.solution, adjustments=adjustments, weight_scales=found.scales)
        return self._offer(f"{start.name}, {name}", solution, start.fixed)

    def _descent(self) -> None:
        if not self.bench.split.apart:
            return
        start = self.best
        images = self.bench.training.jittered().pixels
        reference = float_answers(self.context.graph, images)
        solution = descend(
            self.context, start.solution, images, reference, frozen=start.fixed, sweeps=self.options.sweeps
        )
        if solution is not start.solution:
            self._offer(f"{start.name}, descent", solution, start.fixed)


def thorough_from_options(options: CalibrateOptions) -> Calibrator:
    """The calibrator a recipe asks for."""
    return ThoroughCalibrator(options)
