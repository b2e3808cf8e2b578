"""Answers, not maps: top-1 classes, probabilities, accuracy, agreement, and the table per class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.attribution.normalise import FloatMaps
from edgekit.errors import DefectError
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.statistics import mean

__all__ = ["ClassRow", "Tally", "accuracy", "agreement", "class_table", "sigmoid", "softmax", "top_class"]


@dataclass(frozen=True)
class Tally:
    """A count of successes among `total` samples; without samples there is no share, and not a share of zero."""

    successes: int
    total: int

    @property
    def share(self) -> float | None:
        """Successes over total, None where total is 0."""
        return self.successes / self.total if self.total else None


def softmax(logits: FloatMaps) -> npt.NDArray[np.float64]:
    """Probabilities float64 [N, K] of floating logits [N, K]; a row that is not finite yields NaN."""
    wide = logits.astype(np.float64)
    finite = np.isfinite(wide).all(axis=1, keepdims=True)
    sound = np.where(finite, wide, 0.0)
    raised = np.exp(sound - sound.max(axis=1, keepdims=True))
    return np.where(finite, raised / raised.sum(axis=1, keepdims=True), np.nan)


def sigmoid(logits: FloatMaps) -> npt.NDArray[np.float64]:
    """Independent probabilities float64 [N, K] of floating logits [N, K]; a row that is not finite yields NaN."""
    wide = logits.astype(np.float64)
    finite = np.isfinite(wide).all(axis=1, keepdims=True)
    sound = np.where(finite, wide, 0.0)
    # exp only of what is not positive, which cannot overflow: 1 / (1 + e^-x) = e^x / (1 + e^x).
    small = np.exp(-np.abs(sound))
    return np.where(finite, np.where(sound >= 0, 1.0, small) / (1.0 + small), np.nan)


def top_class(logits: FloatMaps) -> npt.NDArray[np.int64]:
    """Index of the largest logit, int64 [N], the lower one of a tie; -1 where any logit of the row is not finite."""
    finite = np.isfinite(logits).all(axis=1, keepdims=True)
    top = np.argmax(np.where(finite, logits, 0.0), axis=1)
    return np.where(np.ravel(finite), top, -1).astype(np.int64)


def accuracy(label: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> Tally:
    """How many of the samples whose label is known (not -1) were predicted right."""
    known = label >= 0
    return Tally(int((predicted == label)[known].sum()), int(known.sum()))


def agreement(teacher: npt.NDArray[np.int64], engine: npt.NDArray[np.int64]) -> Tally:
    """How many samples both give the same top-1; an engine without an answer (-1) disagrees."""
    return Tally(int(((teacher == engine) & (engine >= 0)).sum()), len(teacher))


@dataclass(frozen=True)
class ClassRow:
    """One class of the table.

    Attributes:
        index: Class index.
        support: Samples of the class.
        teacher: Of the labelled ones among them, how many the teacher has right.
        engine: The same for the engine.
        agreement: How many get the same top-1 from both.
        compared: How many have a map metric, that is, are not "both_zero".
        metrics: Metric name to its mean over those, None where there are none.
    """

    index: int
    support: int
    teacher: Tally
    engine: Tally
    agreement: Tally
    compared: int
    metrics: Mapping[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "index": self.index,
            "support": self.support,
            "teacher_accuracy": self.teacher.share,
            "engine_accuracy": self.engine.share,
            "agreement": self.agreement.share,
            "compared": self.compared,
            "metrics": dict(self.metrics),
        }


def class_table(
    table: ScoreTable, classes: int, *, by: Literal["label", "teacher-class"] = "label"
) -> tuple[ClassRow, ...]:
    """Accuracy, agreement and mean map metrics of every class.

    Args:
        table: The scores.
        classes: Number of classes; a row is made for each, with support 0 where the set has none of it.
        by: What decides a sample's class. Under "label", samples without a label are in no row.

    Raises:
        DefectError: `by` is unknown.
    """
    if by not in ("label", "teacher-class"):
        raise DefectError("A class table was asked for by an unknown key.", expected="label or teacher-class", found=by)
    group = table.label if by == "label" else table.teacher_class
    return tuple(_class_row(table, index, group == index) for index in range(classes))


def _class_row(table: ScoreTable, index: int, member: npt.NDArray[np.bool_]) -> ClassRow:
    compared = member & table.compared
    means = {name: mean(values[compared]) if compared.any() else None for name, values in table.metrics.items()}
    return ClassRow(
        index=index,
        support=int(member.sum()),
        teacher=accuracy(table.label[member], table.teacher_class[member]),
        engine=accuracy(table.label[member], table.engine_class[member]),
        agreement=agreement(table.teacher_class[member], table.engine_class[member]),
        compared=int(compared.sum()),
        metrics=means,
    )
