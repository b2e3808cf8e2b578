"""One suggested clause: a limit between what noise makes of a value and what nonsense makes of it.

Both are order statistics under the exact bounds that will judge. What cannot be told apart is no clause, but a reason
in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.errors import BadInputError
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.intervals import outwards
from edgekit.metrics.statistics import clopper_pearson
from edgekit.policy.clauses import AgreementClause, Clause, ShareClause, UndefinedClause, clause_to_dict
from edgekit.policy.floors import Measurement, gaps
from edgekit.policy.written import written_gap, written_share, written_value

__all__ = ["Asked", "Sides", "SuggestOptions", "SuggestedClause", "agreement", "largest", "share_clause", "undefined"]

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


class Sides(NamedTuple):
    """The measurements by their role."""

    floors: tuple[Measurement, ...]
    controls: tuple[Measurement, ...]


class Asked(NamedTuple):
    """What share of how many samples is asked for, and how many may miss."""

    share: float
    samples: int
    misses: int


def largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest of 0 to `most` that holds, of a condition that gets no easier and holds at 0."""
    good, bad = 0, most + 1
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def share_clause(name: str, sides: Sides, asked: Asked, options: SuggestOptions, step: float) -> SuggestedClause | str:
    """A clause about one metric, or in words why there is none.

    Args:
        name: Of the metric.
        sides: What was measured.
        asked: What share of the samples is asked for.
        options: How.
        step: The least by which the metric moves, 0 where there is none.
    """
    worst = np.fmax.reduce([gaps(name, each.table.metrics[name]) for each in sides.floors])
    floor = _worst_but(worst, asked.misses)
    widest = max(sides.floors, key=lambda each: _worst_but(gaps(name, each.table.metrics[name]), asked.misses))
    reached = {
        each.name: _nearest(gaps(name, each.table.metrics[name]), asked.share, options.confidence)
        for each in sides.controls
    }
    nearest = min(reached, key=lambda control: reached[control])
    ceiling = reached[nearest]
    exact, least = floor + options.margin * (ceiling - floor), floor + step
    told = (
        f"noise leaves {written_value(name, floor)} ({_blamed(widest, floor)}), "
        f"{nearest} reach {written_value(name, ceiling)}"
    ) + (f", one cell makes {written_value(name, step)}" if step else "")
    gap = written_gap(max(exact, least), least, ceiling) if least < ceiling else None
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
    near = largest(lambda good: outwards(clopper_pearson(good, count, confidence)).upper < share, count - 1)
    return float(present[near])


def agreement(sides: Sides, options: SuggestOptions) -> SuggestedClause | str:
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


def undefined(sides: Sides, options: SuggestOptions) -> SuggestedClause | str:
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
