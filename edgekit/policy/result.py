"""What a table of scores says about one clause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from edgekit.policy.clauses import Clause

__all__ = ["CLAUSE_OUTCOMES", "ClauseOutcome", "ClauseResult"]

# "not-measured": the clause allows for data that do not speak about it, and these do not. It neither holds nor fails.
ClauseOutcome: TypeAlias = Literal["pass", "fail", "inconclusive", "not-measured"]
CLAUSE_OUTCOMES: tuple[ClauseOutcome, ...] = get_args(ClauseOutcome)


@dataclass(frozen=True)
class ClauseResult:
    """One clause, judged.

    Attributes:
        clause: What was demanded.
        text: The demand in words.
        explanation: What was found, in words.
        outcome: One of `CLAUSE_OUTCOMES`.
        observed: The share, mean, quantile or drop that was found; None where there was nothing to find it in.
        lower: One-sided lower confidence bound of a share, rounded down to nine decimals; None for other clauses.
        upper: The upper one, rounded up.
        samples: Samples the clause is about: those compared, all, or those with a label.
        successes: How many of them are good (of an "undefined" clause: undefined); None where nothing is counted.
        samples_needed: Of an inconclusive clause, how many such samples would decide, None where no practical number
            does. None for other outcomes.
        worst: Indices of the samples that speak against the clause most, worst first, a few.
        measured: False where the scores do not hold what the clause is about.
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

    @property
    def bound(self) -> float:
        """What the observed value is held against."""
        for name in ("at_least", "bound", "at_most"):
            if hasattr(self.clause, name):
                return float(getattr(self.clause, name))
        raise AttributeError(f"a {self.clause.kind!r} clause has no bound")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form without the words, which follow from the numbers and may be put better tomorrow."""
        return {
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
