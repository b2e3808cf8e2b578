"""Clauses about more than the teacher beside the engine: masks of the object, an older release, and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from edgekit.errors import BadInputError
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.localisation import LOCALISATION
from edgekit.policy.fields import (
    VIEWS,
    Choice,
    Flag,
    MetricMargin,
    MetricName,
    Number,
    check_fields,
    described,
    left_out,
)

__all__ = ["ANSWERS", "COSTS", "BaselineClause", "BudgetClause", "Cost", "LocalisationClause"]

ANSWERS = ("agreement", "accuracy")
"""What can be compared with a baseline beside the metrics of maps."""

_DEMANDS = ("bound", "drop", "above_centre_prior")


class Cost(NamedTuple):
    """What an engine can cost: its unit, and in words what is measured."""

    unit: str
    description: str


COSTS: Mapping[str, Cost] = MappingProxyType(
    {
        "artifact-bytes": Cost("bytes", "size of the file that ships"),
        "bundle-bytes": Cost("bytes", "size of the bundle's files without its evidence and report"),
        "energy-mj": Cost("mJ", "energy for one image"),
        "latency-p50-ms": Cost("ms", "median latency at batch 1"),
        "latency-p99-ms": Cost("ms", "99th percentile of the latency at batch 1"),
        "latency-ratio": Cost("times", "latency over that of FP32 on the same engine, median over rounds"),
        "peak-memory-bytes": Cost("bytes", "most memory that the engine's process held"),
        "power-w": Cost("W", "mean power while the engine runs"),
    }
)


@dataclass(frozen=True)
class LocalisationClause:
    """The engine's map lies on the object: one demand about masks, on the samples that have one.

    Exactly one of `bound`, `drop` and `above_centre_prior` is given; several demands are several clauses.

    Attributes:
        metric: "pixel-auc", "pointing" or "energy-inside"; of all, more is better.
        bound: The engine's mean is at least this; above 0 and at most 1.
        drop: The teacher's mean minus the engine's, sample by sample, is at most this; from 0 and below 1.
        above_centre_prior: The engine's mean exceeds that of a map that only knows the middle of the image by at
            least this; from 0 and below 1.
        interval: "bootstrap" judges by a BCa bound, "none" the samples as they are.
        required: Where no sample has a mask: True makes the clause inconclusive, False not measured.
    """

    kind: ClassVar[str] = "localisation"
    metric: str = field(metadata=described(Choice(tuple(LOCALISATION), "measure of localisation")))
    bound: float | None = field(default=None, metadata=left_out(Number(0, 1, with_high=True, optional=True)))
    drop: float | None = field(default=None, metadata=left_out(Number(0, 1, with_low=True, optional=True)))
    above_centre_prior: float | None = field(
        default=None, metadata=left_out(Number(0, 1, with_low=True, optional=True))
    )
    interval: str = field(default="bootstrap", metadata=described(Choice(("none", "bootstrap"), "interval")))
    required: bool = field(default=True, metadata=described(Flag()))

    def __post_init__(self) -> None:
        check_fields(self)
        given = [name for name in _DEMANDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise BadInputError(
                "A 'localisation' clause makes exactly one demand.",
                expected="one of " + ", ".join(_DEMANDS),
                found=", ".join(given) or "none",
                hint="write a clause for each demand" if given else None,
            )

    @property
    def demand(self) -> str:
        """Which of the three is demanded, by the name of its key."""
        return next(name for name in _DEMANDS if getattr(self, name) is not None)

    @property
    def limit(self) -> float:
        """What the mean or the mean difference is held against."""
        return float(getattr(self, self.demand))

    @property
    def better(self) -> str:
        """Which values are better, "higher" or "lower"."""
        return "lower" if self.drop is not None else "higher"


@dataclass(frozen=True)
class BaselineClause:
    """The engine is no worse than an older release, on the samples that both were verified on.

    Samples are paired by their digests, so that what the two releases share does not count as noise. A metric's mean
    difference is judged by a BCa bootstrap bound. Agreement and accuracy are judged exactly: samples that only the new
    engine gets right and those that only the old one does are counted, each count has a Clopper-Pearson bound with
    half of the risk, and the difference of the two bounds holds whatever the two have to do with each other.

    Attributes:
        of: Name of a metric of maps, "agreement" with the teacher, or "accuracy" on the labels.
        margin: By how much the mean or share may be worse; 0 demands that it is shown not to be worse at all, which
            takes an engine that is better.
        view: One of `VIEWS`, for a metric.
        required: Where there is no baseline: True makes the clause inconclusive, False not measured.
    """

    kind: ClassVar[str] = "no-worse-than-baseline"
    better: ClassVar[str] = "higher"
    of: str = field(metadata=described(MetricName(ANSWERS)))
    margin: float = field(metadata=described(MetricMargin()))
    view: str = field(default="teacher-class", metadata=described(Choice(VIEWS, "view")))
    required: bool = field(default=True, metadata=described(Flag()))

    def __post_init__(self) -> None:
        check_fields(self)
        if self.of not in METRICS and self.view != VIEWS[0]:
            raise BadInputError(
                f"A view is of maps, and {self.of} is of answers.", expected=f"view: {VIEWS[0]}", found=self.view
            )

    @property
    def limit(self) -> float:
        """What the gain over the baseline is held against: minus the margin."""
        return -self.margin if self.margin else 0.0


@dataclass(frozen=True)
class BudgetClause:
    """What the engine costs is at most `at_most`, as it was measured where it was built or verified.

    Attributes:
        cost: Name of a cost, one of `COSTS`.
        at_most: In the cost's unit; above 0.
        required: Where the cost was not measured: True makes the clause inconclusive, False not measured.
    """

    kind: ClassVar[str] = "budget"
    better: ClassVar[str] = "lower"
    cost: str = field(metadata=described(Choice(tuple(COSTS), "cost")))
    at_most: float = field(metadata=described(Number(0, math.inf)))
    required: bool = field(default=True, metadata=described(Flag()))

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def limit(self) -> float:
        """What the cost is held against."""
        return self.at_most
