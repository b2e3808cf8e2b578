"""What a table of scores says about one clause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from edgekit.policy.clauses import Clause

__all__ = ["CLAUSE_OUTCOMES", "ClauseOutcome", "ClauseResult", "GroupResult", "Judged"]

# "not-measured": the clause allows for data that do not speak about it, and these do not. It neither holds nor fails.
ClauseOutcome: TypeAlias = Literal["pass", "fail", "inconclusive", "not-measured"]
CLAUSE_OUTCOMES: tuple[ClauseOutcome, ...] = get_args(ClauseOutcome)


@dataclass(frozen=True)
class Judged:
    """What some samples say about a demand.

    Attributes:
        outcome: One of `CLAUSE_OUTCOMES`.
        observed: The share, mean, quantile, drop, gain or cost that was found; None where there was nothing to find
            it in.
        lower: One-sided lower confidence bound of it, rounded down to nine decimals; None without a bound.
        upper: The upper one, rounded up.
        samples: Samples it was found in: those compared, all, or those with a label, a mask or a partner.
        successes: How many of them are good (of an "undefined" clause: undefined; of "wrong-evidence": wrong); None
            where nothing is counted.
        samples_needed: Of an inconclusive outcome, how many such samples would decide, None where no practical number
            does or nobody can say. None for other outcomes.
    """

    outcome: ClauseOutcome
    observed: float | None = None
    lower: float | None = None
    upper: float | None = None
    samples: int = 0
    successes: int | None = None
    samples_needed: int | None = None


@dataclass(frozen=True)
class GroupResult(Judged):
    """One class of a clause that every class has to hold; "not-measured" where it was too small and is skipped.

    Attributes:
        name: Index of the class, as text.
    """

    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {key: getattr(self, key) for key in ("name", *Judged.__dataclass_fields__)}


@dataclass(frozen=True)
class ClauseResult:
    """One clause, judged.

    Attributes:
        clause: What was demanded.
        text: The demand in words.
        explanation: What was found, in words.
        outcome: One of `CLAUSE_OUTCOMES`.
        observed: As in `Judged`; of a clause over classes, that of the class that decides: the worst one.
        lower: The lower confidence bound of `observed`; None for clauses that are judged without one.
        upper: The upper one.
        samples: Samples that `observed` was found in.
        successes: How many of them are good; see `Judged`.
        samples_needed: See `Judged`. Of a clause over classes: in all, if classes keep their shares.
        worst: Indices of the samples that speak against the clause most, worst first, a few.
        measured: False where there is nothing to judge the clause by: the scores do not hold what it is about, no
            sample has the label or mask it needs, there is no baseline, or the cost was not measured.
        groups: Of a clause over classes, each class, in increasing order; empty for other clauses.
    """

    clause: Clause
    text: str
    explanation: str
    outcome: ClauseOutcome
    observed: float | None
    lower: float | None
    upper: float | None
    samples: int
    successes: int | None
    samples_needed: int | None
    worst: tuple[int, ...]
    measured: bool = True
    groups: tuple[GroupResult, ...] = ()

    @property
    def bound(self) -> float:
        """What the observed value is held against."""
        return self.clause.limit

    @property
    def better(self) -> str:
        """On which side of `bound` the good values are: "higher" or "lower"."""
        return self.clause.better

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form without the words, which follow from the numbers and may be put better tomorrow."""
        document: dict[str, Any] = {
            "kind": self.clause.kind,
            "outcome": self.outcome,
            "observed": self.observed,
            "bound": self.bound,
            "lower": self.lower,
            "upper": self.upper,
            "samples": self.samples,
            "successes": self.successes,
            "samples_needed": self.samples_needed,
            "worst": list(self.worst),
            "measured": self.measured,
        }
        if self.groups:
            document["groups"] = [group.to_dict() for group in self.groups]
        return document
