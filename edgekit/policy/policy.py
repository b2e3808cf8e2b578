"""A policy: the demands a release must meet, all of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.errors import BadInputError
from edgekit.policy.clauses import Clause

__all__ = ["POLICY_FORMAT", "Policy"]

POLICY_FORMAT = "edgekit.policy/1"


@dataclass(frozen=True)
class Policy:
    """What is demanded of an engine's answers and maps.

    Attributes:
        name: For reports.
        confidence: Of every confidence bound; at least 0.5, below 1.
        clauses: At least one, no two alike. All must hold.
        min_samples: With fewer samples than this no clause passes, however good they look; at least 1.
    """

    name: str
    confidence: float
    clauses: tuple[Clause, ...]
    min_samples: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "clauses", tuple(self.clauses))
        whole = isinstance(self.min_samples, int) and not isinstance(self.min_samples, bool)
        for holds, what, expected, found in (
            (isinstance(self.name, str) and self.name.strip() != "", "name", "a name", self.name),
            (_is_confidence(self.confidence), "confidence", "0.5 <= confidence < 1", self.confidence),
            (whole and self.min_samples >= 1, "min_samples", "a whole number of at least 1", self.min_samples),
            (len(self.clauses) > 0, "clauses", "at least one: a policy without demands judges nothing", "none"),
        ):
            if not holds:
                raise BadInputError(f"A policy value is out of range: {what}.", expected=expected, found=repr(found))
        repeated = next((clause for place, clause in enumerate(self.clauses) if clause in self.clauses[:place]), None)
        if repeated is not None:
            raise BadInputError("A policy makes the same demand twice.", found=repr(repeated))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, read back by `edgekit.policy.document.policy_from_dict`."""
        return {
            "format": POLICY_FORMAT,
            "name": self.name,
            "confidence": float(self.confidence),
            "min_samples": self.min_samples,
            "clauses": [{"kind": clause.kind, **asdict(clause)} for clause in self.clauses],
        }


def _is_confidence(value: object) -> bool:
    return isinstance(value, float) and 0.5 <= value < 1
