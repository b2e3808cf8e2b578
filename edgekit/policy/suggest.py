"""From measured floors and controls to a policy: every tolerance lies between two things that were measured.

Let F be how far maps are from a metric's best through noise alone, and P how near to it maps come that have nothing to
do with the image. The threshold stands at `F + margin * (P - F)`: the margin is the share of the way from the same map
to somebody else's. A multiple of F would be no tolerance: float32 leaves less than a millionth, and ten times that is
a demand which only another run in float32 meets.

Some metrics count cells and cannot move by less than one (`edgekit.metrics.resolution`): there the threshold leaves
room for one cell beyond the floor, since less would be no tolerance at all.

F and P are order statistics under the exact bounds that will judge, so nothing is left to luck on the samples that
were measured: each floor passes every clause, each control fails every clause about maps. That is checked at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.errors import DefectError, EvidenceNeededError
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.intervals import outwards
from edgekit.metrics.resolution import one_cell
from edgekit.metrics.statistics import clopper_pearson, samples_to_decide
from edgekit.policy.floors import Measurement
from edgekit.policy.policy import Policy
from edgekit.policy.suggested_clauses import (
    Asked,
    Sides,
    SuggestedClause,
    SuggestOptions,
    agreement,
    largest,
    share_clause,
    undefined,
)
from edgekit.policy.verdict import judge

__all__ = ["LEAST_SHARE", "SHARES", "Suggestion", "suggest"]

SHARES = (0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)
"""Shares of samples that a clause about maps may ask for."""

LEAST_SHARE = SHARES[0]
"""Where not even this can be shown, the set is too small: a gate that every fifth map may miss is none."""


@dataclass(frozen=True)
class Suggestion:
    """A policy, where each of its numbers comes from, and what could not be demanded.

    Attributes:
        policy: The policy.
        clauses: One for each of its clauses, in their order.
        left_out: What there is no clause about, such as a metric, to the reason in words.
        samples: Samples whose maps could be compared in every measurement.
        misses: How many of so many may miss a threshold in a clause that still holds.
    """

    policy: Policy
    clauses: tuple[SuggestedClause, ...]
    left_out: Mapping[str, str]
    samples: int
    misses: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "policy": self.policy.to_dict(),
            "clauses": [each.to_dict() for each in self.clauses],
            "left_out": dict(self.left_out),
            "samples": self.samples,
            "misses": self.misses,
        }


def suggest(
    measurements: Sequence[Measurement], options: SuggestOptions, grids: Sequence[tuple[int, int]] = ()
) -> Suggestion:
    """Make a policy of what was measured.

    Args:
        measurements: At least one floor and one control, of one golden set. Those with the role "reached" are not
            looked at: what an engine reached must not decide what is demanded of it.
        options: How.
        grids: Height and width of the maps, of each that a sample has; with none, no metric is taken to count cells.

    Raises:
        EvidenceNeededError: The golden set is too small to show anything, or its controls come as near as noise does:
            its maps cannot be told apart.
        BadInputError: An option is out of range.
    """
    sides = Sides(
        tuple(each for each in measurements if each.role == "floor"),
        tuple(each for each in measurements if each.role == "control"),
    )
    if not all(sides):
        raise DefectError("A policy was asked of measurements without a floor or without a control.")
    asked = _asked(sides, options)
    found, left_out = _map_clauses(sides, asked, options, grids)
    if not found:
        raise _indistinguishable(left_out)
    for clause, kind in ((agreement(sides, options), "agreement"), (undefined(sides, options), "undefined")):
        if isinstance(clause, str):
            left_out[kind] = clause
        else:
            found.append(clause)
    policy = Policy(
        name=options.name,
        confidence=options.confidence,
        clauses=tuple(each.clause for each in found),
        min_samples=_flawless(asked.share, options.confidence),
    )
    _check(policy, sides)
    return Suggestion(policy, tuple(found), left_out, asked.samples, asked.misses)


def _asked(sides: Sides, options: SuggestOptions) -> Asked:
    """The largest share that a flawless engine shows with these samples."""
    samples = min(int(each.table.compared.sum()) for each in (*sides.floors, *sides.controls))
    shown = [share for share in SHARES if _flawless(share, options.confidence) <= samples]
    if not shown:
        raise EvidenceNeededError(
            "The golden set is too small to support any bound.",
            expected=f"at least {_flawless(LEAST_SHARE, options.confidence)} samples whose maps can be compared: with "
            f"fewer, not even a flawless engine shows with {100 * options.confidence:g} % confidence that "
            f"{100 * LEAST_SHARE:g} % of the maps hold",
            found=f"{samples}",
            hint="build with more golden samples (golden: samples in the recipe), or ask for less --confidence",
        )
    share = shown[-1]
    misses = largest(
        lambda bad: outwards(clopper_pearson(samples - bad, samples, options.confidence)).lower >= share, samples
    )
    return Asked(share, samples, misses)


def _flawless(share: float, confidence: float) -> int:
    needed = samples_to_decide(1.0, share, confidence)
    if needed is None:
        raise DefectError("No sample shows what a flawless engine reaches.", found=f"{share} at {confidence}")
    return needed


def _map_clauses(
    sides: Sides, asked: Asked, options: SuggestOptions, grids: Sequence[tuple[int, int]]
) -> tuple[list[SuggestedClause], dict[str, str]]:
    found: list[SuggestedClause] = []
    left_out: dict[str, str] = {}
    for name in METRICS:
        if any(name not in each.table.metrics for each in (*sides.floors, *sides.controls)):
            continue
        step = max((one_cell(name, *grid) for grid in grids), default=0.0)
        clause = share_clause(name, sides, asked, options, step)
        if isinstance(clause, str):
            left_out[name] = clause
        else:
            found.append(clause)
    return found, left_out


def _indistinguishable(left_out: Mapping[str, str]) -> EvidenceNeededError:
    return EvidenceNeededError(
        "The maps of this network cannot be told apart on this golden set: a policy about them would mean nothing.",
        expected="a metric on which noise stays nearer to the map than maps of other images, shuffled maps and a blob "
        "in the middle come",
        found="; ".join(f"{name}: {reason}" for name, reason in left_out.items()),
        hint="look at the maps in the report; a finer tap, another method or more varied golden images may tell apart",
    )


def _check(policy: Policy, sides: Sides) -> None:
    """Hold the policy against what it was made of.

    Raises:
        DefectError: A floor does not pass it, or a control does not fail it.
    """
    for each, wanted in (*((one, "pass") for one in sides.floors), *((one, "fail") for one in sides.controls)):
        verdict = judge(policy, each.table)
        if verdict.outcome != wanted:
            raise DefectError(
                "A suggested policy does not part noise from nonsense.",
                where=each.name,
                expected=wanted,
                found="; ".join(f"{one.text}: {one.explanation}" for one in verdict.clauses if one.outcome != wanted),
            )
