"""A policy: the demands a release must meet, all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edgekit.errors import BadInputError
from edgekit.policy.clauses import BESIDE_THE_SCORES, Clause, clause_to_dict, has_confidence, may_be_watched

__all__ = ["POLICY_FORMAT", "Policy"]

POLICY_FORMAT = "edgekit.policy/1"


@dataclass(frozen=True)
class Policy:
    """What is demanded of an engine's answers and maps.

    Attributes:
        name: For reports.
        confidence: Of every confidence bound, at least; 0.5 or more, below 1.
        clauses: At least one about answers or maps, no two alike. All must hold.
        min_samples: With fewer samples than this no clause passes, however good they look; at least 1.
        family_confidence: With which all bounds hold at once: the risk is divided evenly among the clauses that have
            one (Bonferroni), and within a clause over classes among those. At least 0.5, below 1; None makes no such
            demand.
        sequential: The verification looks at the samples in a random order, part by part, and stops as soon as every
            clause is decided. All bounds then hold at every number of samples at once (`edgekit.metrics.anytime`),
            and only clauses with such bounds are allowed.
    """

    name: str
    confidence: float
    clauses: tuple[Clause, ...]
    min_samples: int
    family_confidence: float | None = None
    sequential: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "clauses", tuple(self.clauses))
        whole = isinstance(self.min_samples, int) and not isinstance(self.min_samples, bool)
        for holds, what, expected, found in (
            (isinstance(self.name, str) and self.name.strip() != "", "name", "a name", self.name),
            (_is_confidence(self.confidence), "confidence", "0.5 <= confidence < 1", self.confidence),
            (
                self.family_confidence is None or _is_confidence(self.family_confidence),
                "family_confidence",
                "0.5 <= family_confidence < 1",
                self.family_confidence,
            ),
            (isinstance(self.sequential, bool), "sequential", "true or false", self.sequential),
            (whole and self.min_samples >= 1, "min_samples", "a whole number of at least 1", self.min_samples),
            (len(self.clauses) > 0, "clauses", "at least one: a policy without demands judges nothing", "none"),
        ):
            if not holds:
                raise BadInputError(f"A policy value is out of range: {what}.", expected=expected, found=repr(found))
        if all(clause.kind in BESIDE_THE_SCORES for clause in self.clauses):
            raise BadInputError(
                "A policy demands nothing of the engine's answers or maps: clauses.",
                expected="at least one clause of another kind",
                found=", ".join(clause.kind for clause in self.clauses),
            )
        repeated = next((clause for place, clause in enumerate(self.clauses) if clause in self.clauses[:place]), None)
        if repeated is not None:
            raise BadInputError("A policy makes the same demand twice.", found=repr(repeated))
        self._check_sequential()

    def _check_sequential(self) -> None:
        unfit = next((clause for clause in self.clauses if not may_be_watched(clause)), None)
        if self.sequential and unfit is not None:
            raise BadInputError(
                f"A sequential policy holds a clause that nobody may watch until it holds: {unfit.kind!r}.",
                expected="share, agreement, wrong-evidence, budget, or a mean or quantile with interval: exact",
                found=repr(unfit),
                hint="judge such a demand without 'sequential', on the whole golden set",
            )

    @property
    def bounded(self) -> int:
        """How many clauses are decided by confidence bounds."""
        return sum(has_confidence(clause) for clause in self.clauses)

    @property
    def bound_confidence(self) -> float:
        """Confidence of the bounds of each clause that is not over classes."""
        return self.class_confidence(1)

    def class_confidence(self, classes: int) -> float:
        """Confidence of each bound of a clause that judges so many classes."""
        if self.family_confidence is None:
            return self.confidence
        return max(self.confidence, 1 - (1 - self.family_confidence) / (max(self.bounded, 1) * max(classes, 1)))

    def of_scores(self) -> Policy:
        """The policy without what scores alone say nothing about: budgets, and the comparison with a baseline.

        For where neither is known yet, such as the verification. What remains is as strict as it was: bounds keep
        the confidence that they have among all clauses.
        """
        kept = tuple(clause for clause in self.clauses if clause.kind not in BESIDE_THE_SCORES)
        if len(kept) == len(self.clauses):
            return self
        rest = replace(self, clauses=kept)
        if self.family_confidence is None or rest.bounded == 0:
            return rest
        # The others' part of the risk is not theirs to spend.
        part = (1 - self.family_confidence) * rest.bounded / self.bounded
        return replace(rest, family_confidence=1 - part)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `edgekit.policy.document.policy_from_dict`."""
        later: dict[str, Any] = {} if self.family_confidence is None else {"family_confidence": self.family_confidence}
        if self.sequential:
            later["sequential"] = True
        return {
            "format": POLICY_FORMAT,
            "name": self.name,
            "confidence": float(self.confidence),
            "min_samples": self.min_samples,
            "clauses": [clause_to_dict(clause) for clause in self.clauses],
            **later,
        }


def _is_confidence(value: object) -> bool:
    return isinstance(value, float) and 0.5 <= value < 1
