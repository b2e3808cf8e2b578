"""Judging solutions by what they do: the quantised graph itself, run on images that they were not learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.attribution.image_split import HeldImages, KeptImages, split_images
from edgekit.calibrate.calibrator import CalibrationContext
from edgekit.calibrate.drift import Drift, drift_of, relative_drift
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import Answers, answers_of, float_answers
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.scale_table import Provenance, ScaleTable, table_from_ranges
from edgekit.calibrate.solution import Solution
from edgekit.errors import BadInputError

__all__ = ["Judge", "table_of"]


class Judge:
    """Compares solutions on a few held-out calibration images.

    Drift is that of maps of the FP32 graph's own top-1. Where every map is zero, and logits are equal, nothing drifts:
    then all solutions are as good as the first.

    Args:
        context: What the solutions are for.
        images: The images to judge by; by default those that `split_images` sets apart, for which a pass is made.
    """

    def __init__(self, context: CalibrationContext, images: HeldImages | None = None) -> None:
        self.context = context
        self._given = images

    @cached_property
    def images(self) -> HeldImages:
        """What is judged by."""
        if self._given is not None:
            return self._given
        judging = split_images(len(self.context.images.digests)).judging
        return KeptImages(self.context.images, judging, self.context.graph.input_shape).held(judging)

    @cached_property
    def reference(self) -> Answers:
        """What the FP32 graph answers.

        Raises:
            BadInputError: An answer is not finite.
        """
        answers = float_answers(self.context.graph, self.images.pixels)
        for name, values in (("logits", answers.logits), *(("map", item) for item in answers.maps)):
            if not bool(abs(values).max(initial=0) < float("inf")):
                raise BadInputError(
                    "The FP32 graph's answers are not finite, so nothing can be compared with them.",
                    where=name,
                    expected="finite values",
                    hint="check the weights for NaN or overflow and the images' normalisation",
                )
        return answers

    def answers(self, solution: Solution) -> Answers:
        """What the quantised graph answers, with the maps of the FP32 graph's top-1."""
        return answers_of(self.model(solution), self.images.pixels, self.reference.classes)

    def model(self, solution: Solution) -> Any:
        """The Q/DQ `onnx.ModelProto` of a solution, as the stage would write it."""
        return write_qdq(self.context.graph, table_of(self.context, solution))

    def drift(self, solution: Solution) -> Drift:
        """How far the quantised graph's answers are from the FP32 graph's.

        Raises:
            EdgekitError: The solution does not fit the graph.
        """
        return drift_of(self.reference, self.answers(solution))

    def best(self, candidates: Mapping[str, Solution], margin: float = 0.0) -> tuple[str, dict[str, Drift]]:
        """The candidate that drifts least, and the drift of each.

        Args:
            candidates: Name to solution. The first is what the others have to beat.
            margin: By which share of the first one's drift they have to be better.

        Returns:
            The name of the best; of equals, and within the margin, the first.
        """
        drifts = {name: self.drift(solution) for name, solution in candidates.items()}
        first, *others = drifts
        best, least = first, 1.0 - margin
        for name in others:
            share = relative_drift(drifts[name], drifts[first])
            if share < least:
                best, least = name, share
        return best, drifts


def table_of(context: CalibrationContext, solution: Solution, graph: ExplainedGraph | None = None) -> ScaleTable:
    """The scale table of a solution, of no provenance but the graph: good for trying, not for keeping.

    Args:
        context: What the solution is for.
        solution: The solution.
        graph: The context's graph adjusted as the solution says, where that is at hand.
    """
    adjusted = apply_adjustments(context.graph, solution.adjustments) if graph is None else graph
    exclude = context.options.exclude
    placement = context.placement
    if adjusted is not context.graph:
        placement = place(adjusted, context.number_format, exclude)
    provenance = Provenance(context.graph.digest, "", "judge", {}, exclude)
    return table_from_ranges(adjusted, placement, context.number_format, solution, provenance)
