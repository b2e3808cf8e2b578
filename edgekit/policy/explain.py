"""What a policy demands and needs, before anything is measured: as data, for `edgekit policy explain`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from edgekit.policy.judging import Rule
from edgekit.policy.needs import ClauseNeeds, needs_of
from edgekit.policy.policy import Policy

__all__ = ["Explanation", "Multiplicity", "explain_policy"]


@dataclass(frozen=True)
class Multiplicity:
    """What several demands at once mean for the risk, and what they do not.

    Attributes:
        risks: One minus the confidence of each bound that decides; a clause over classes has one a class.
        classes: How many classes that counts; None where no clause is over classes.
    """

    risks: tuple[float, ...]
    classes: int | None

    @property
    def false_pass(self) -> float:
        """Most probability with which a release passes that violates any one demand with a bound.

        Passing takes every demand, the violated one among them, and its own bound is wrong no more often than that:
        the intersection-union test (Berger, Technometrics 24, 1982). No correction is needed, however many demands
        there are.
        """
        return max(self.risks, default=0.0)

    @property
    def all_hold(self) -> float:
        """Least probability with which all bounds are right at once, by Bonferroni's inequality."""
        return max(0.0, 1 - math.fsum(self.risks))

    @property
    def false_block(self) -> float:
        """Most probability with which an engine that meets every demand with a bound is said to fail one."""
        return 1 - self.all_hold

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; shares rounded to nine decimals, where the rounding of a difference would show."""
        return {
            "bounds": len(self.risks),
            "classes_counted": self.classes,
            "passes_though_a_demand_is_violated_at_most": round(self.false_pass, 9),
            "all_bounds_hold_at_least": round(self.all_hold, 9),
            "fails_though_every_demand_is_met_at_most": round(self.false_block, 9),
        }


@dataclass(frozen=True)
class Explanation:
    """What a policy demands and needs.

    Attributes:
        policy: The policy.
        clauses: What each clause needs, in its order.
        multiplicity: What its clauses mean together.
        samples: For how many samples it was asked; None for none.
    """

    policy: Policy
    clauses: tuple[ClauseNeeds, ...]
    multiplicity: Multiplicity
    samples: int | None

    @property
    def smallest(self) -> int | None:
        """Golden samples without which the policy cannot pass, however good the engine; None where none suffice.

        Clauses that may be left out do not count. A clause over classes counts with one class: every further one
        needs as many of its own.
        """
        needed = [each.flawless for each in self.clauses if each.required]
        if any(count is None for count in needed):
            return None
        return max([self.policy.min_samples, *(count or 0 for count in needed)])

    @property
    def needs(self) -> tuple[str, ...]:
        """What must be there beside maps and answers for every clause that is required, sorted."""
        return tuple(sorted({need for each in self.clauses if each.required for need in each.needs}))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "policy": self.policy.to_dict(),
            "smallest_number_of_samples": self.smallest,
            "needs": list(self.needs),
            "samples": self.samples,
            "can_pass": None if self.samples is None else all(each.can_pass for each in self.clauses if each.required),
            "multiplicity": self.multiplicity.to_dict(),
            "clauses": [each.to_dict() for each in self.clauses],
        }


def explain_policy(policy: Policy, samples: int | None = None, classes: int = 1) -> Explanation:
    """Explain a policy.

    Args:
        policy: The policy.
        samples: For how many golden samples to say what may fail; at least 1. Of clauses over classes they are
            divided evenly.
        classes: How many classes clauses over classes judge; at least 1.
    """
    over = [each for each in policy.clauses if getattr(each, "over", "all") == "class"]
    needs = tuple(
        needs_of(
            clause,
            Rule(policy.class_confidence(classes if clause in over else 1), policy.min_samples, (), policy.sequential),
            None if samples is None else samples // classes if clause in over else samples,
        )
        for clause in policy.clauses
    )
    risks = [
        1 - each.confidence
        for each in needs
        if each.confidence is not None
        for _ in range(classes if each.per_class else 1)
    ]
    return Explanation(policy, needs, Multiplicity(tuple(risks), classes if over else None), samples)
