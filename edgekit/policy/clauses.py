"""The clauses a policy can be made of. Each is a demand somebody wrote down; none can hold whatever the scores are.

A clause that always passes, or never can, is refused where it is made: `cosine >= -1` and "all of the samples, with
95 % confidence" look like gates and are none. Here is the table of them; what they say is in `map_clauses` and
`release_clauses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from edgekit.policy.fields import VIEWS, stored_values
from edgekit.policy.map_clauses import (
    AccuracyDropClause,
    AgreementClause,
    MeanClause,
    QuantileClause,
    ShareClause,
    UndefinedClause,
    WrongEvidenceClause,
)
from edgekit.policy.release_clauses import COSTS, BaselineClause, BudgetClause, LocalisationClause

__all__ = [
    "BESIDE_THE_SCORES",
    "CLAUSES",
    "COSTS",
    "VIEWS",
    "AccuracyDropClause",
    "AgreementClause",
    "BaselineClause",
    "BudgetClause",
    "Clause",
    "LocalisationClause",
    "MeanClause",
    "QuantileClause",
    "ShareClause",
    "UndefinedClause",
    "WrongEvidenceClause",
    "clause_to_dict",
    "has_confidence",
    "may_be_watched",
]

Clause: TypeAlias = (
    "ShareClause | AgreementClause | MeanClause | QuantileClause | UndefinedClause | AccuracyDropClause"
    " | WrongEvidenceClause | LocalisationClause | BaselineClause | BudgetClause"
)

CLAUSES: Mapping[str, type[Clause]] = MappingProxyType(
    {
        cls.kind: cls
        for cls in (
            AccuracyDropClause,
            AgreementClause,
            BudgetClause,
            LocalisationClause,
            MeanClause,
            BaselineClause,
            QuantileClause,
            ShareClause,
            UndefinedClause,
            WrongEvidenceClause,
        )
    }
)

BESIDE_THE_SCORES = ("budget", "no-worse-than-baseline")
"""Kinds of clauses that the scores alone say nothing about: they need costs or a baseline."""


def clause_to_dict(clause: Clause) -> dict[str, Any]:
    """JSON-ready form: the kind and the fields, without later keys at their default."""
    return {"kind": clause.kind, **stored_values(clause)}


def has_confidence(clause: Clause) -> bool:
    """Whether the clause is decided by a confidence bound, rather than by what these samples are."""
    if isinstance(clause, (MeanClause, QuantileClause, LocalisationClause)):
        return clause.interval != "none"
    return isinstance(clause, (ShareClause, AgreementClause, WrongEvidenceClause, BaselineClause))


def may_be_watched(clause: Clause) -> bool:
    """Whether the clause has a bound that holds at every number of samples at once, or asks nothing of samples.

    A value of these samples, and a bootstrap bound, would be wrong far more often if looked at until it is favourable.
    """
    if isinstance(clause, (MeanClause, QuantileClause)):
        return clause.interval == "exact"
    return isinstance(clause, (ShareClause, AgreementClause, WrongEvidenceClause, BudgetClause))
