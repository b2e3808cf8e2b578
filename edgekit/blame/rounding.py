"""Running a graph with some of its tensors rounded and the others not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import NO_CLASS, OWN_CLASS
from edgekit.blame.units import Unit, units_of
from edgekit.calibrate.drift import sample_drift
from edgekit.calibrate.graph import CLASS_INDEX, ExplainedGraph
from edgekit.calibrate.placement import Placement, place
from edgekit.calibrate.probe import Answers, Probe, ProbeSetting, answers_of
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.errors import BadInputError, IntegrityError

__all__ = ["RoundingBench", "SampleDrift", "own_classes"]

SampleDrift: TypeAlias = Mapping[str, npt.NDArray[np.float64]]
"""Each of `options.METRICS` for every image, float64 [N]."""


class RoundingBench:
    """One scale table's graph over fixed images, with any of its tensors rounded.

    Args:
        graph: The FP32 graph, before adjustment.
        table: The scale table made for it.
        images: float32 [N, 3, H, W], prepared, N at least 1.
        classes: Whose maps are looked at, int32 [N, k], k the maps that the graph gives at each tap.
        threads: Of the runtime, 0 for its choice.

    Attributes:
        probe: The graph with switches.
        placement: What is rounded in it.
        units: The same, by what is rounded together.
        reference: What the FP32 graph answers.
        unrounded: What the adjusted graph answers while nothing is rounded: the FP32 graph's answers up to float
            arithmetic, but where the table corrects biases.

    Raises:
        IntegrityError: The table belongs to another graph.
        BadInputError: There is no image, or the FP32 graph's answers to them are not finite.
    """

    def __init__(
        self,
        graph: ExplainedGraph,
        table: ScaleTable,
        images: npt.NDArray[np.float32],
        classes: npt.NDArray[np.int32],
        *,
        threads: int = 0,
    ) -> None:
        if not len(images):
            raise BadInputError("There are no images to measure drift on.", expected="at least one image")
        self.probe = Probe(graph, table, threads=threads)
        self.placement = place(self.probe.graph, self.probe.fmt, table.provenance.exclude)
        self.units = units_of(self.probe.graph, self.placement)
        self._images = images
        self._classes = classes if _takes_columns(graph) else classes[:, 0]
        self._none = self.probe.setting((), ())
        self._all = self.probe.setting()
        self.reference = _by_view(answers_of(graph.model, images, self._classes, threads=threads))
        _require_finite(self.reference)
        self.unrounded = self._run(self._none, "the adjusted graph")

    def __len__(self) -> int:
        return len(self._images)

    def only(self, *units: Unit) -> SampleDrift:
        """What rounding one unit, or a few, does to the unrounded graph."""
        setting = self._none
        for unit in units:
            if unit.kind == "weight":
                setting = _with_weights_of(setting, unit, self._all)
            else:
                setting = replace(setting, rounded=setting.rounded.union(unit.tensors))
        return sample_drift(self.unrounded, self._run(setting, ", ".join(unit.name for unit in units)))

    def all_but(self, unit: Unit) -> SampleDrift:
        """What is left, against the FP32 graph, when everything but one unit is rounded."""
        setting = replace(self._all, rounded=self._all.rounded.difference(unit.tensors))
        if unit.kind == "weight":
            setting = _with_weights_of(self._all, unit, self._none)
        return self._against_reference(setting, f"all but {unit.name}")

    def together(self) -> SampleDrift:
        """What rounding everything does, against the FP32 graph."""
        return self._against_reference(self._all, "everything together")

    def adjusted(self) -> SampleDrift:
        """What adjusting the graph does while nothing is rounded, against the FP32 graph."""
        return sample_drift(self.reference, self.unrounded)

    def placed(self, placement: Placement) -> SampleDrift:
        """What rounding no more than `placement` does, by this table's scales, against the FP32 graph.

        Tensors that the table has no scale for stay as they are. Where rounding stops, what corrects its mean error in
        a bias stops too.
        """
        rounded = frozenset(placement.activations).intersection(self.probe.activations)
        setting = self.probe.setting(rounded, {use.weight for use in placement.weights})
        corrected = {use.bias for use in placement.weights}
        for bias, shift in self.probe.table.adjustments.bias_shifts.items():
            if bias in setting.biases and bias not in corrected:
                setting = setting.with_bias(bias, setting.biases[bias] - np.asarray(shift, dtype=np.float32))
        return self._against_reference(setting, "what is left")

    def _against_reference(self, setting: ProbeSetting, what: str) -> SampleDrift:
        return sample_drift(self.reference, self._run(setting, what))

    def _run(self, setting: ProbeSetting, what: str) -> Answers:
        found = _by_view(self.probe.run(self._images, self._classes, setting))
        if not np.isfinite(found.logits).all():
            raise IntegrityError(
                "Rounded by the bundle's scale table, the network's answers are not finite.",
                where=what,
                hint="calibrate again: a number in the table is far out of range",
            )
        return found


def own_classes(
    graph: ExplainedGraph, images: npt.NDArray[np.float32], columns: int, *, only_positive: bool = False
) -> npt.NDArray[np.int32]:
    """The graph's own best answers to prepared images, int32 [N, columns], best first.

    Of equal logits the first is the better answer; where only positive classes count, the others are `NO_CLASS`.
    """
    asked = np.full((len(images), columns), OWN_CLASS, dtype=np.int32)
    logits = answers_of(graph.model, images, asked if _takes_columns(graph) else asked[:, 0]).logits
    ranked = np.argsort(-logits, axis=1, kind="stable")[:, :columns]
    if only_positive:
        ranked = np.where(np.take_along_axis(logits, ranked, axis=1) > 0, ranked, NO_CLASS)
    return ranked.astype(np.int32)


def _takes_columns(graph: ExplainedGraph) -> bool:
    """True for graphs with maps of several classes: their `class_index` is [N, k]."""
    asked = next(value for value in graph.model.graph.input if value.name == CLASS_INDEX)
    return len(asked.type.tensor_type.shape.dim) == 2


def _by_view(answers: Answers) -> Answers:
    """Maps of several classes, [N, k, h, w] a tap, as one array [N, h, w] for each class."""
    views = [
        maps if maps.ndim == 3 else maps[:, column]
        for maps in answers.maps
        for column in range(1 if maps.ndim == 3 else maps.shape[1])
    ]
    return Answers(answers.logits, tuple(views))


def _with_weights_of(setting: ProbeSetting, unit: Unit, source: ProbeSetting) -> ProbeSetting:
    weights = {name: source.weights[name] for name in unit.tensors}
    biases = {name: source.biases[name] for name in unit.biases}
    return replace(setting, weights={**setting.weights, **weights}, biases={**setting.biases, **biases})


def _require_finite(answers: Answers) -> None:
    if not all(np.isfinite(array).all() for array in (answers.logits, *answers.maps)):
        raise BadInputError("The FP32 graph's answers to these images are not finite.")
