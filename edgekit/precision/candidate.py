"""A measured assignment: what it lifts, how far its maps and answers are from the teacher's, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from edgekit.bundle.golden import GoldenSet
from edgekit.calibrate.drift import drift_of
from edgekit.calibrate.probe import Answers
from edgekit.core.canonical import JsonValue
from edgekit.errors import IntegrityError
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers

__all__ = ["Candidate", "measured_drift", "top1_accuracy"]


@dataclass(frozen=True)
class Candidate:
    """A measured assignment.

    Attributes:
        lifted: Names of the operations left in float that the recipe would quantise, sorted.
        is_fp32: Nothing is in INT8: it is the FP32 graph.
        outcome: Of its verdict: "pass", "fail" or "inconclusive".
        reasons: Clauses that do not pass, in words.
        drift: `edgekit.calibrate.drift.Drift` by name, None where an engine's answers are not finite.
        agreement: Share of images with the teacher's top-1.
        accuracy: On labelled images, None where there are none.
        bytes: Size of the artifact.
        int8: Names of the nodes that compute in INT8, in graph order.
        recalibrated: Its ranges are its own, since it rounds a tensor that the full INT8 graph does not.
        model: SHA-256 of its graph.
        fp16_types: What became of its graph with FP16 types, as `calibrate.half_copy` tells it; None where there was to
            be none.
    """

    lifted: tuple[str, ...]
    is_fp32: bool
    outcome: str
    reasons: tuple[str, ...]
    drift: Mapping[str, float | None]
    agreement: float
    accuracy: float | None
    bytes: int
    int8: tuple[str, ...]
    recalibrated: bool
    model: str
    fp16_types: JsonValue = None

    @property
    def holds(self) -> bool:
        """The policy passes. What could not be shown does not hold."""
        return self.outcome == "pass"

    @property
    def map_drift(self) -> float:
        """Mean 1 - cosine; infinite where the maps are not finite."""
        found = self.drift["cosine"]
        return math.inf if found is None else found

    @property
    def quality(self) -> float:
        """Accuracy where there are labels, else agreement."""
        return self.agreement if self.accuracy is None else self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `from_dict`."""
        return {
            **vars(self),
            "lifted": list(self.lifted),
            "reasons": list(self.reasons),
            "drift": dict(self.drift),
            "int8": list(self.int8),
        }

    @classmethod
    def from_dict(cls, raw: object, *, where: str) -> Candidate:
        """Read what a killed process stored. Raises `IntegrityError` when it is malformed."""
        try:
            values = dict(cast(Mapping[str, Any], raw))
            for key in ("lifted", "reasons", "int8"):
                values[key] = tuple(map(str, values[key]))
            return cls(**values)
        except (KeyError, TypeError, ValueError) as cause:
            raise IntegrityError("A measured candidate is malformed.", where=where, found=repr(cause)) from cause


def measured_drift(golden: GoldenSet, answers: EngineAnswers) -> dict[str, float | None]:
    """The drift of an engine's answers to a golden set, mean over images, with maps of the teacher's classes."""
    reference = Answers(golden.logits, (golden.maps, *(item.maps for item in golden.further)))
    with np.errstate(invalid="ignore", over="ignore"):
        found = drift_of(reference, Answers(answers.logits, (answers.maps, *answers.further)))
    return {name: value if math.isfinite(value) else None for name, value in found.to_dict().items()}


def top1_accuracy(table: ScoreTable) -> float | None:
    """Share of right answers among the labelled samples, None where no sample has a label."""
    labelled = table.label >= 0
    return float(np.mean(table.engine_class[labelled] == table.label[labelled])) if labelled.any() else None
