"""From measured floors and controls to a policy: every tolerance lies between two things that were measured.

Let F be how far maps are from a metric's best through noise alone, and P how near to it maps come that have nothing to
do with the image. The threshold stands at `F + margin * (P - F)`: the margin is the share of the way from the same map
to somebody else's. A multiple of F would be no tolerance: noise of float32 is a millionth, and ten times that is a
demand which only another run in float32 meets.

F and P are order statistics under the exact bounds that will judge, so nothing is left to luck on the samples that
were measured: each floor passes every clause, each control fails every clause about maps. That is checked at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.errors import BadInputError, DefectError, EvidenceNeededError
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.intervals import outwards
from edgekit.metrics.statistics import clopper_pearson, samples_to_decide
from edgekit.policy.clauses import AgreementClause, Clause, ShareClause, UndefinedClause, clause_to_dict
from edgekit.policy.floors import Measurement, gaps
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge
from edgekit.policy.written import written_gap, written_share, written_value

__all__ = ["LEAST_SHARE", "SHARES", "SuggestOptions", "SuggestedClause", "Suggestion", "suggest"]

SHARES = (0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)
"""Shares of samples that a clause about maps may ask for."""

LEAST_SHARE = SHARES[0]
"""Where not even this can be shown, the set is too small: a gate that every fifth map may miss is none."""

_UNDEFINED = (0.01, 0.02, 0.05, *(tenths / 20 for tenths in range(2, 20)))

_Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SuggestOptions:
    """How a policy is made of measurements.

    Attributes:
        margin: Share of the way from the floor to the controls, above 0 and below 1.
        confidence: Of every bound; at least 0.5, below 1.
        name: Of the policy.
    """

    margin: float = 0.1
    confidence: float = 0.95
    name: str = "suggested"

    def __post_init__(self) -> None:
        for holds, what, expected, found in (
            (0 < self.margin < 1, "margin", "above 0 and below 1", self.margin),
            (0.5 <= self.confidence < 1, "confidence", "0.5 or more and below 1", self.confidence),
        ):
            if not holds:
                raise BadInputError(
                    f"A policy cannot be suggested: {what} is out of range.", expected=expected, found=repr(found)
                )


@dataclass(frozen=True)
class SuggestedClause:
    """A clause and what it was made of.

    Attributes:
        clause: The demand.
        floor: What noise alone makes of the value: the metric's value that the demanded share of the samples reaches
            in every floor, or the lower bound on the share that does.
        floor_from: Name of the measurement that decided it.
        control: What the nearest control reaches; None where there is none.
        control_from: Its name; empty where there is none.
        exact: Where the margin put the limit, before it was rounded.
        comment: All of that in words, one line.
    """

    clause: Clause
    floor: float
    floor_from: str
    control: float | None
    control_from: str
    exact: float
    comment: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "clause": clause_to_dict(self.clause),
            "floor": self.floor,
            "floor_from": self.floor_from,
            "control": self.control,
            "control_from": self.control_from,
            "exact": self.exact,
            "comment": self.comment,
        }


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


class _Sides(NamedTuple):
    """The measurements by their role."""

    floors: tuple[Measurement, ...]
    controls: tuple[Measurement, ...]


class _Asked(NamedTuple):
    """What share of how many samples is asked for, and how many may miss."""

    share: float
    samples: int
    misses: int


def suggest(measurements: Sequence[Measurement], options: SuggestOptions) -> Suggestion:
    """Make a policy of what was measured.

    Args:
        measurements: At least one floor and one control, of one golden set. Those with the role "reached" are not
            looked at: what an engine reached must not decide what is demanded of it.
        options: How.

    Raises:
        EvidenceNeededError: The golden set is too small to show anything, or its controls come as near as noise does:
            its maps cannot be told apart.
        BadInputError: An option is out of range.
    """
    sides = _Sides(
        tuple(each for each in measurements if each.role == "floor"),
        tuple(each for each in measurements if each.role == "control"),
    )
    if not all(sides):
        raise DefectError("A policy was asked of measurements without a floor or without a control.")
    asked = _asked(sides, options)
    found, left_out = _map_clauses(sides, asked, options)
    if not found:
        raise _indistinguishable(left_out)
    agreement = _agreement(sides, options)
    if isinstance(agreement, str):
        left_out["agreement"] = agreement
    else:
        found.append(agreement)
    undefined = _undefined(sides, options)
    if isinstance(undefined, str):
        left_out["undefined"] = undefined
    else:
        found.append(undefined)
    policy = Policy(
        name=options.name,
        confidence=options.confidence,
        clauses=tuple(each.clause for each in found),
        min_samples=_flawless(asked.share, options.confidence),
    )
    _check(policy, sides)
    return Suggestion(policy, tuple(found), left_out, asked.samples, asked.misses)


def _asked(sides: _Sides, options: SuggestOptions) -> _Asked:
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
    misses = _largest(
        lambda bad: outwards(clopper_pearson(samples - bad, samples, options.confidence)).lower >= share, samples
    )
    return _Asked(share, samples, misses)


def _flawless(share: float, confidence: float) -> int:
    needed = samples_to_decide(1.0, share, confidence)
    if needed is None:
        raise DefectError("No sample shows what a flawless engine reaches.", found=f"{share} at {confidence}")
    return needed


def _largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest of 0 to `most` that holds, of a condition that gets no easier and holds at 0."""
    good, bad = 0, most + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def _map_clauses(sides: _Sides, asked: _Asked, options: SuggestOptions) -> tuple[list[SuggestedClause], dict[str, str]]:
    found: list[SuggestedClause] = []
    left_out: dict[str, str] = {}
    for name in METRICS:
        if any(name not in each.table.metrics for each in (*sides.floors, *sides.controls)):
            continue
        clause = _share_clause(name, sides, asked, options)
        if isinstance(clause, str):
            left_out[name] = clause
        else:
            found.append(clause)
    return found, left_out


def _share_clause(name: str, sides: _Sides, asked: _Asked, options: SuggestOptions) -> SuggestedClause | str:
    """A clause about one metric, or in words why there is none."""
    worst = np.fmax.reduce([gaps(name, each.table.metrics[name]) for each in sides.floors])
    floor = _worst_but(worst, asked.misses)
    widest = max(sides.floors, key=lambda each: _worst_but(gaps(name, each.table.metrics[name]), asked.misses))
    reached = {
        each.name: _nearest(gaps(name, each.table.metrics[name]), asked.share, options.confidence)
        for each in sides.controls
    }
    nearest = min(reached, key=lambda control: reached[control])
    ceiling = reached[nearest]
    told = (
        f"noise leaves {written_value(name, floor)} ({_blamed(widest, floor)}), "
        f"{nearest} reach {written_value(name, ceiling)}"
    )
    gap = None
    if floor < ceiling:
        exact = floor + options.margin * (ceiling - floor)
        gap = written_gap(exact, floor, ceiling)
    if gap is None:
        return f"the two cannot be told apart: {told}"
    metric = METRICS[name]
    sign = -1 if metric.better == "higher" else 1
    return SuggestedClause(
        clause=ShareClause(name, round(metric.best + sign * gap, 12), asked.share),
        floor=metric.best + sign * floor,
        floor_from=widest.name,
        control=metric.best + sign * ceiling,
        control_from=nearest,
        exact=metric.best + sign * exact,
        comment=f"{told}; {100 * options.margin:g} % of the way is {written_value(name, exact)}",
    )


def _blamed(worst: Measurement, amount: float) -> str:
    """Which measurement a floor comes from, in words; none stands out where all are perfect."""
    beside = {"teacher": "the teacher", "first-run": "its first run"}[worst.against]
    return f"{worst.name}, beside {beside}" if amount else "in every run"


def _worst_but(distances: _Values, misses: int) -> float:
    """The gap that all samples but `misses` keep within."""
    present = np.sort(distances[~np.isnan(distances)])
    return float(present[len(present) - 1 - misses])


def _nearest(distances: _Values, share: float, confidence: float) -> float:
    """The gap below which a control fails: where so few of its samples are nearer that the share is refuted."""
    present = np.sort(distances[~np.isnan(distances)])
    count = len(present)
    near = _largest(lambda good: outwards(clopper_pearson(good, count, confidence)).upper < share, count - 1)
    return float(present[near])


def _agreement(sides: _Sides, options: SuggestOptions) -> SuggestedClause | str:
    """A clause about answers: between what noise flips and what whoever always says the commonest class gets right."""
    agrees = np.logical_and.reduce([each.table.agrees for each in sides.floors])
    widest = min(sides.floors, key=lambda each: int(each.table.agrees.sum()))
    count, same = len(agrees), int(agrees.sum())
    floor = outwards(clopper_pearson(same, count, options.confidence)).lower
    commonest = int(np.unique(sides.controls[0].table.teacher_class, return_counts=True)[1].max())
    ceiling = outwards(clopper_pearson(commonest, count, options.confidence)).upper
    told = (
        f"{same} of {count} answers survive noise ({_blamed(widest, count - same)}), "
        f"which shows {math.floor(1000 * floor) / 1000:g}; "
        f"always saying the commonest class agrees in {commonest}, at most {math.ceil(1000 * ceiling) / 1000:g}"
    )
    exact = floor - options.margin * (floor - ceiling)
    share = written_share(exact, ceiling) if ceiling < floor else None
    if share is None:
        return f"the two cannot be told apart: {told}"
    return SuggestedClause(
        clause=AgreementClause(share),
        floor=floor,
        floor_from=widest.name,
        control=ceiling,
        control_from="the commonest class",
        exact=exact,
        comment=f"{told}; {100 * options.margin:g} % of the way is {exact:.3f}",
    )


def _undefined(sides: _Sides, options: SuggestOptions) -> SuggestedClause | str:
    """How many pairs of maps may both be zero: what is found without compression, at the end of its bound."""
    widest = max(sides.floors, key=lambda each: int((~each.table.compared).sum()))
    count, zero = len(widest.table), int((~widest.table.compared).sum())
    upper = outwards(clopper_pearson(zero, count, options.confidence)).upper
    allowed = [share for share in _UNDEFINED if share >= upper]
    told = (
        f"{zero} of {count} pairs of maps are both zero without compression ({_blamed(widest, zero)}), "
        f"at most {upper:.3f}"
    )
    if not allowed:
        return f"no share could be demanded: {told}"
    return SuggestedClause(UndefinedClause(allowed[0]), zero / count, widest.name, None, "", upper, told)


def _indistinguishable(left_out: Mapping[str, str]) -> EvidenceNeededError:
    return EvidenceNeededError(
        "The maps of this network cannot be told apart on this golden set: a policy about them would mean nothing.",
        expected="a metric on which noise stays nearer to the map than maps of other images, shuffled maps and a blob "
        "in the middle come",
        found="; ".join(f"{name}: {reason}" for name, reason in left_out.items()),
        hint="look at the maps in the report; a finer tap, another method or more varied golden images may tell apart",
    )


def _check(policy: Policy, sides: _Sides) -> None:
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
