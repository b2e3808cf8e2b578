"""The clauses a policy can be made of. Each is a demand somebody wrote down; none can hold whatever the scores are.

A clause that always passes, or never can, is refused where it is made: `cosine >= -1` and "all of the samples, with
95 % confidence" look like gates and are none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

from edgekit.errors import BadInputError
from edgekit.metrics.agreement import Metric, metric_named

__all__ = [
    "CLAUSES",
    "VIEWS",
    "AccuracyDropClause",
    "AgreementClause",
    "Clause",
    "MeanClause",
    "QuantileClause",
    "ShareClause",
    "UndefinedClause",
]

# Whose class the engine's map explains: the teacher's top-1, so that a moved map is told from a flipped answer, or
# the engine's own top-1, as it explains itself when deployed.
VIEWS = ("teacher-class", "own-class")


def _number(clause: Any, name: str, low: float, high: float) -> None:
    """Store a number as float after checking `low < value < high`; whole numbers come from JSON and YAML as int."""
    value = getattr(clause, name)
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not (good and low < value < high):
        raise BadInputError(
            f"A policy value is out of range: {name} of a {clause.kind!r} clause.",
            expected=f"a number above {low:g} and below {high:g}",
            found=repr(value),
        )
    object.__setattr__(clause, name, float(value))


def _metric_and_view(clause: Any) -> Metric:
    if not isinstance(clause.metric, str):
        raise BadInputError(f"The metric of a {clause.kind!r} clause is not a name.", found=repr(clause.metric))
    if clause.view not in VIEWS:
        raise BadInputError(f"There is no view called {clause.view!r}.", expected="one of " + ", ".join(VIEWS))
    return metric_named(clause.metric)


def _bound(clause: Any, name: str, metric: Metric) -> None:
    """A bound in a metric's range. The worst value demands nothing and is refused, the best one is allowed."""
    value = getattr(clause, name)
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    low, high = sorted((metric.worst, metric.best))
    if not (good and low <= value <= high and value != metric.worst):
        raise BadInputError(
            f"A policy value is out of range: {name} of a {clause.kind!r} clause about {metric.name}.",
            expected=f"{low:g} to {high:g}, and not {metric.worst:g}, which every sample reaches",
            found=repr(value),
        )
    object.__setattr__(clause, name, float(value))


@dataclass(frozen=True)
class ShareClause:
    """The share of samples whose metric is at least as good as `threshold` is at least `at_least`, with confidence.

    Attributes:
        metric: Name of a metric.
        threshold: Of one sample: at least for metrics where higher is better, at most for the others.
        at_least: The share, above 0 and below 1 (a finite sample can never show that all are good).
        view: One of `VIEWS`.
    """

    kind: ClassVar[str] = "share"
    metric: str
    threshold: float
    at_least: float
    view: str = "teacher-class"

    def __post_init__(self) -> None:
        _bound(self, "threshold", _metric_and_view(self))
        _number(self, "at_least", 0, 1)


@dataclass(frozen=True)
class AgreementClause:
    """The share of samples whose top-1 is the teacher's is at least `at_least` (0 to 1, exclusive), with confidence."""

    kind: ClassVar[str] = "agreement"
    at_least: float

    def __post_init__(self) -> None:
        _number(self, "at_least", 0, 1)


@dataclass(frozen=True)
class MeanClause:
    """A metric's mean is at least as good as `bound`: of the samples as they are, without a confidence bound."""

    kind: ClassVar[str] = "mean"
    metric: str
    bound: float
    view: str = "teacher-class"

    def __post_init__(self) -> None:
        _bound(self, "bound", _metric_and_view(self))


@dataclass(frozen=True)
class QuantileClause:
    """A metric's `q`-quantile (0 < q < 1) is at least as good as `bound`, of the samples as they are."""

    kind: ClassVar[str] = "quantile"
    metric: str
    q: float
    bound: float
    view: str = "teacher-class"

    def __post_init__(self) -> None:
        _bound(self, "bound", _metric_and_view(self))
        _number(self, "q", 0, 1)


@dataclass(frozen=True)
class UndefinedClause:
    """The share of samples for which both maps are zero, so that nothing is compared, is at most `at_most`."""

    kind: ClassVar[str] = "undefined"
    at_most: float

    def __post_init__(self) -> None:
        if self.at_most != 0 or isinstance(self.at_most, bool):
            _number(self, "at_most", 0, 1)
        object.__setattr__(self, "at_most", float(self.at_most))


@dataclass(frozen=True)
class AccuracyDropClause:
    """The teacher's accuracy minus the engine's, on the samples with a label, is at most `at_most`.

    Attributes:
        at_most: In shares, not percent; above -1 and below 1.
        required: True makes the clause inconclusive where no sample has a label; False reports it as not measured.
    """

    kind: ClassVar[str] = "accuracy-drop"
    at_most: float
    required: bool = True

    def __post_init__(self) -> None:
        _number(self, "at_most", -1, 1)
        if not isinstance(self.required, bool):
            raise BadInputError(
                f"A policy value has the wrong type: required of a {self.kind!r} clause.",
                expected="true or false",
                found=repr(self.required),
            )


Clause: TypeAlias = "ShareClause | AgreementClause | MeanClause | QuantileClause | UndefinedClause | AccuracyDropClause"

CLAUSES: Mapping[str, type[Clause]] = MappingProxyType(
    {
        cls.kind: cls
        for cls in (
            AccuracyDropClause,
            AgreementClause,
            MeanClause,
            QuantileClause,
            ShareClause,
            UndefinedClause,
        )
    }
)
