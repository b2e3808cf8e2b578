"""Clauses about answers and maps beside the teacher's: shares, means and quantiles, of all samples or of each class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgekit.errors import BadInputError
from edgekit.policy.fields import (
    VIEWS,
    Choice,
    Count,
    Flag,
    MetricBound,
    MetricName,
    Number,
    check_fields,
    described,
    left_out,
    metric_of,
)

__all__ = [
    "AccuracyDropClause",
    "AgreementClause",
    "MeanClause",
    "PerClass",
    "QuantileClause",
    "ShareClause",
    "UndefinedClause",
    "WrongEvidenceClause",
]

_VIEW = Choice(VIEWS, "view")


@dataclass(frozen=True, kw_only=True)
class PerClass:
    """What a clause may say to be held by every class and not by the average over all.

    The clause holds when it holds for each class by itself; it fails when one class is shown to fail. A class that the
    golden set has no sample of is not judged: nothing there speaks of it.

    Every class has a bound of its own at the policy's confidence. That one violating class slips through is no likelier
    for there being many, since all have to pass; that one good class is said to fail is, and may happen as often as the
    risks of all add up to. The policy's family_confidence divides the risk among the classes instead.

    Attributes:
        over: "all" samples together, or each "class" by itself.
        class_of: Whose class a sample belongs to: the "teacher" (its top-1), or the "label", in which case samples
            without one do not count.
        min_class_samples: With fewer samples a class passes nothing; 0 takes the policy's min_samples.
        small_classes: What such a class makes of the clause: "inconclusive", or "skip" to leave it out and tell so.
    """

    over: str = field(default="all", metadata=left_out(Choice(("all", "class"), "group of samples")))
    class_of: str = field(default="teacher", metadata=left_out(Choice(("teacher", "label"), "source of classes")))
    min_class_samples: int = field(default=0, metadata=left_out(Count(0)))
    small_classes: str = field(
        default="inconclusive", metadata=left_out(Choice(("inconclusive", "skip"), "way with small classes"))
    )

    def __post_init__(self) -> None:
        check_fields(self)
        idle = [name for name in ("class_of", "min_class_samples", "small_classes") if not self._at_default(name)]
        if self.over == "all" and idle:
            raise BadInputError(
                f"A clause says how to treat classes and is not over them: {', '.join(idle)}.",
                expected="over: class beside it",
                found="over: all",
            )

    def _at_default(self, name: str) -> bool:
        return bool(getattr(self, name) == getattr(PerClass, name))

    @property
    def per_class(self) -> bool:
        """Whether each class is judged by itself."""
        return self.over == "class"


@dataclass(frozen=True)
class ShareClause(PerClass):
    """The share of samples whose metric is at least as good as `threshold` is at least `at_least`, with confidence.

    Attributes:
        metric: Name of a metric.
        threshold: Of one sample: at least for metrics where higher is better, at most for the others.
        at_least: The share, above 0 and below 1 (a finite sample can never show that all are good).
        view: One of `VIEWS`.
    """

    kind: ClassVar[str] = "share"
    better: ClassVar[str] = "higher"
    metric: str = field(metadata=described(MetricName()))
    threshold: float = field(metadata=described(MetricBound()))
    at_least: float = field(metadata=described(Number(0, 1)))
    view: str = field(default="teacher-class", metadata=described(_VIEW))

    @property
    def limit(self) -> float:
        """What the share is held against."""
        return self.at_least


@dataclass(frozen=True)
class AgreementClause(PerClass):
    """The share of samples whose top-1 is the teacher's is at least `at_least`, with confidence.

    Attributes:
        at_least: The share, above 0 and below 1.
    """

    kind: ClassVar[str] = "agreement"
    better: ClassVar[str] = "higher"
    at_least: float = field(metadata=described(Number(0, 1)))

    @property
    def limit(self) -> float:
        """What the share is held against."""
        return self.at_least


@dataclass(frozen=True)
class MeanClause(PerClass):
    """A metric's mean is at least as good as `bound`: of the samples as they are, or with confidence.

    Attributes:
        metric: Name of a metric.
        bound: What the mean is held against: at least for metrics where higher is better, at most for the others.
        view: One of `VIEWS`.
        interval: "none" judges the mean of these samples and claims nothing about others. "bootstrap" judges by a BCa
            bound: good where the samples show how the metric scatters, too narrow where rare disasters are not among
            them. "exact" judges by an empirical Bernstein bound, which holds whatever the metric's distribution
            within its range, and asks for more samples.
    """

    kind: ClassVar[str] = "mean"
    metric: str = field(metadata=described(MetricName()))
    bound: float = field(metadata=described(MetricBound()))
    view: str = field(default="teacher-class", metadata=described(_VIEW))
    interval: str = field(default="none", metadata=left_out(Choice(("none", "bootstrap", "exact"), "interval")))

    @property
    def limit(self) -> float:
        """What the mean is held against."""
        return self.bound

    @property
    def better(self) -> str:
        """Which means are better, "higher" or "lower"."""
        return metric_of(self).better


@dataclass(frozen=True)
class QuantileClause(PerClass):
    """A metric's `q`-quantile is at least as good as `bound`: of the samples as they are, or with confidence.

    Attributes:
        metric: Name of a metric.
        q: Above 0 and below 1.
        bound: What the quantile is held against.
        view: One of `VIEWS`.
        interval: "none" judges the quantile of these samples. "exact" judges by order statistics, whose confidence is
            a binomial tail whatever the distribution: the sound choice. "bootstrap" judges by the percentile bootstrap
            without acceleration, since the jackknife that BCa takes it from does not work for quantiles. It is too
            narrow on the side of the near end: simulated, a bound at 95 % on the 5 % quantile was wrong in 9 % of the
            cases with 500 samples, in 11 % with 100, and in 24 % with 30 (`benchmarks/policy_coverage.py`).
    """

    kind: ClassVar[str] = "quantile"
    metric: str = field(metadata=described(MetricName()))
    q: float = field(metadata=described(Number(0, 1)))
    bound: float = field(metadata=described(MetricBound()))
    view: str = field(default="teacher-class", metadata=described(_VIEW))
    interval: str = field(default="none", metadata=left_out(Choice(("none", "bootstrap", "exact"), "interval")))

    @property
    def limit(self) -> float:
        """What the quantile is held against."""
        return self.bound

    @property
    def better(self) -> str:
        """Which quantiles are better, "higher" or "lower"."""
        return metric_of(self).better


@dataclass(frozen=True)
class UndefinedClause:
    """The share of samples for which both maps are zero, so that nothing is compared, is at most `at_most`.

    Attributes:
        at_most: The share, from 0 and below 1, of the samples as they are.
    """

    kind: ClassVar[str] = "undefined"
    better: ClassVar[str] = "lower"
    at_most: float = field(metadata=described(Number(0, 1, with_low=True)))

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def limit(self) -> float:
        """What the share is held against."""
        return self.at_most


@dataclass(frozen=True)
class AccuracyDropClause:
    """The teacher's accuracy minus the engine's, on the samples with a label, is at most `at_most`.

    Attributes:
        at_most: In shares, not percent; above -1 and below 1.
        required: True makes the clause inconclusive where no sample has a label; False reports it as not measured.
    """

    kind: ClassVar[str] = "accuracy-drop"
    better: ClassVar[str] = "lower"
    at_most: float = field(metadata=described(Number(-1, 1)))
    required: bool = field(default=True, metadata=described(Flag()))

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def limit(self) -> float:
        """What the drop is held against."""
        return self.at_most


@dataclass(frozen=True)
class WrongEvidenceClause:
    """Of the samples answered rightly, the share whose map misses `threshold` is at most `at_most`, with confidence.

    A right answer for other reasons is what no accuracy shows. Samples whose two maps are both zero do not count.

    Attributes:
        metric: Name of a metric.
        threshold: Of one sample, as in `ShareClause`; a lost map misses it.
        at_most: The share, above 0 and below 1.
        right: What a right answer is: the "teacher"'s top-1, or the "label", in which case samples without one do
            not count.
        view: One of `VIEWS`.
        required: Where `right` is "label" and no sample has one: True makes the clause inconclusive, False not
            measured.
    """

    kind: ClassVar[str] = "wrong-evidence"
    better: ClassVar[str] = "lower"
    metric: str = field(metadata=described(MetricName()))
    threshold: float = field(metadata=described(MetricBound()))
    at_most: float = field(metadata=described(Number(0, 1)))
    right: str = field(default="teacher", metadata=described(Choice(("teacher", "label"), "source of right answers")))
    view: str = field(default="teacher-class", metadata=described(_VIEW))
    required: bool = field(default=True, metadata=described(Flag()))

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def limit(self) -> float:
        """What the share is held against."""
        return self.at_most
