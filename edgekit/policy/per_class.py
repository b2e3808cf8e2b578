"""A clause that every class has to hold by itself: the classes judged one by one, and what they make of the clause."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt

from edgekit.metrics.intervals import Seed
from edgekit.policy.assembled import in_full, not_measured
from edgekit.policy.clauses import Clause
from edgekit.policy.judging import Rule
from edgekit.policy.map_clauses import AgreementClause, MeanClause, QuantileClause, ShareClause
from edgekit.policy.policy import Policy
from edgekit.policy.result import ClauseResult, GroupResult, Judged

__all__ = ["combined_classes", "judge_classes"]

_Places = npt.NDArray[np.intp]
_GRAVEST = ("fail", "inconclusive", "pass", "not-measured")


def judge_classes(
    clause: ShareClause | MeanClause | QuantileClause | AgreementClause,
    policy: Policy,
    classes: npt.NDArray[np.int64],
    samples: tuple[_Places, _Places],
    judge: Callable[[_Places, Rule], Judged],
    seed: Seed,
) -> ClauseResult:
    """Judge every class that the table has a sample of.

    Args:
        clause: A clause over classes.
        policy: It belongs to.
        classes: int64 [N], class of each sample; -1 where it has none.
        samples: Indices of the samples that count; and those that speak against the clause, worst first.
        judge: What a set of samples says.
        seed: Of every resampling.
    """
    present, worst = samples
    least = clause.min_class_samples or policy.min_samples
    places = {int(name): present[classes[present] == name] for name in np.unique(classes[classes >= 0])}
    if not places:
        return not_measured(clause)
    skipped = {name for name, found in places.items() if clause.small_classes == "skip" and len(found) < least}
    rule = Rule(policy.class_confidence(len(places) - len(skipped)), least, seed, policy.sequential)
    groups = tuple(
        GroupResult("not-measured", samples=len(found), name=str(name))
        if name in skipped
        else GroupResult(**asdict(judge(found, rule)), name=str(name))
        for name, found in places.items()
    )
    decisive = combined_classes(clause, groups)
    of_it = worst[classes[worst] == int(decisive.name)]
    outcome = "inconclusive" if decisive.outcome == "not-measured" else decisive.outcome
    needed = _samples_in_all(groups) if outcome == "inconclusive" else None
    result = in_full(clause, replace(decisive, outcome=outcome, samples_needed=needed), of_it)
    return replace(result, groups=groups)


def combined_classes(clause: Clause, groups: Sequence[GroupResult]) -> GroupResult:
    """The class that decides: of the gravest outcome, the one whose bound, or value, is worst."""

    def badness(group: GroupResult) -> tuple[int, float]:
        sides = (group.lower, group.observed) if clause.better == "higher" else (group.upper, group.observed)
        value = next((side for side in sides if side is not None), -math.inf)
        return _GRAVEST.index(group.outcome), value if clause.better == "higher" else -value

    return min(groups, key=badness)


def _samples_in_all(groups: Sequence[GroupResult]) -> int | None:
    """Samples of all classes that would decide the undecided ones, if classes keep their shares; None if unknown."""
    total = sum(group.samples for group in groups)
    undecided = [group for group in groups if group.outcome == "inconclusive"]
    if not undecided or any(group.samples_needed is None or group.samples == 0 for group in undecided):
        return None
    return max(math.ceil(total * (group.samples_needed or 0) / group.samples) for group in undecided)
