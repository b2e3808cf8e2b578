"""How good answers and maps are class by class, with what so few samples can show, the worst first."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.classification import ClassRow, class_table
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.statistics import Bounds, clopper_pearson
from edgekit.policy.clauses import ShareClause
from edgekit.policy.policy import Policy

__all__ = ["describe_classes"]

_Flags = npt.NDArray[np.bool_]


def describe_classes(golden: GoldenSet, table: ScoreTable, policy: Policy, metric: str | None) -> dict[str, Any]:
    """The table per class, JSON-ready.

    Classes are told by their label; by the teacher's answer where no sample has a label. A class is as bad as the worse
    of its places by agreement and by the ranked metric's mean; the rows stand in that order.

    Args:
        golden: Gives the classes their names.
        table: The scores.
        policy: Its confidence is that of the bounds, and its share clauses say when a single map is good.
        metric: The metric that ranks; None ranks by agreement alone.

    Returns:
        "by", "confidence", "unlabelled" (samples that are in no row), "empty" (classes without samples), "ranked_by",
        "good_maps" (in words, when a map is good; None where the policy asks nothing of single maps) and "rows": those
        of `ClassRow.to_dict` with the class's name, "agreement_bounds" and "good" (observed, lower, upper, successes
        and samples; None without `good_maps`).
    """
    labelled = bool((table.label >= 0).any())
    rows = class_table(table, len(golden.card.classes), by="label" if labelled else "teacher-class")
    present = [row for row in rows if row.support]
    group = table.label if labelled else table.teacher_class
    good = _good_maps(policy, table)
    bounds = lru_cache(maxsize=None)(lambda successes, total: clopper_pearson(successes, total, policy.confidence))
    described = []
    for row in present:
        agreed: Bounds = bounds(row.agreement.successes, row.agreement.total)
        member = (group == row.index) & table.compared
        described.append(
            {
                "name": golden.card.classes[row.index],
                **row.to_dict(),
                "agreement_bounds": {"observed": row.agreement.share, "lower": agreed.lower, "upper": agreed.upper},
                "good": None if good is None else _share(int(good[member].sum()), int(member.sum()), bounds),
            }
        )
    return {
        "by": "label" if labelled else "teacher-class",
        "confidence": policy.confidence,
        "unlabelled": int((table.label < 0).sum()) if labelled else 0,
        "empty": len(rows) - len(present),
        "ranked_by": metric,
        "good_maps": _in_words(policy, table),
        "rows": [described[place] for place in _worst_first(present, metric)],
    }


def _share(successes: int, total: int, bounds: Any) -> dict[str, Any]:
    found: Bounds = bounds(successes, total)
    share = successes / total if total else None
    return {
        "observed": share,
        "lower": found.lower if total else None,
        "upper": found.upper if total else None,
        "successes": successes,
        "samples": total,
    }


def _demanding(policy: Policy, table: ScoreTable) -> list[ShareClause]:
    """The clauses that say of a single map of the teacher's class whether it is good."""
    return [
        clause
        for clause in policy.clauses
        if isinstance(clause, ShareClause) and clause.view == "teacher-class" and clause.metric in table.metrics
    ]


def _good_maps(policy: Policy, table: ScoreTable) -> _Flags | None:
    clauses = _demanding(policy, table)
    if not clauses:
        return None
    good: _Flags = np.ones(len(table), dtype=np.bool_)
    for clause in clauses:
        good &= METRICS[clause.metric].reaches(table.metrics[clause.metric], clause.threshold)
    return good


def _in_words(policy: Policy, table: ScoreTable) -> str | None:
    clauses = _demanding(policy, table)
    signs = {"higher": "at least", "lower": "at most"}
    told = [f"{clause.metric} {signs[METRICS[clause.metric].better]} {clause.threshold:.6g}" for clause in clauses]
    return " and ".join(dict.fromkeys(told)) or None


def _worst_first(rows: list[ClassRow], metric: str | None) -> list[int]:
    """Places of the rows, the worst first: a class is as bad as the worse of its two places says."""
    agreed = [row.agreement.share for row in rows]
    orders = [_ranks([1.0 if share is None else share for share in agreed])]
    if metric is not None:
        sign = 1.0 if METRICS[metric].better == "higher" else -1.0
        # A class whose maps could not be compared has no place by them.
        means = [row.metrics.get(metric) for row in rows]
        orders.append(_ranks([math.inf if mean is None else sign * mean for mean in means]))
    return sorted(
        range(len(rows)),
        key=lambda place: (min(order[place] for order in orders), sum(order[place] for order in orders), place),
    )


def _ranks(values: list[float]) -> list[int]:
    """How many values are below each: equal ones share a place."""
    ordered = sorted(values)
    places: dict[float, int] = {}
    for place, value in enumerate(ordered):
        places.setdefault(value, place)
    return [places[value] for value in values]
