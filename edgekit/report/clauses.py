"""Clauses and their results for people: value, bound, interval and the axis they are drawn on, whatever the kind.

A new kind of clause needs nothing here: what is drawn is read from the result's observed value, bound and interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekit.metrics.agreement import METRICS
from edgekit.policy.result import ClauseResult, GroupResult
from edgekit.report.distributions import nice_ticks

__all__ = ["describe_clause", "interval_axis"]

_SHARES = {"share", "agreement", "undefined", "wrong-evidence"}
_UNIT_ENDINGS = (("-ms", "ms"), ("-bytes", "bytes"), ("-ratio", "ratio"))
# Of an axis, beyond the outermost value; without it a mark would sit on the frame.
_MARGIN = 0.06
_ALIKE, _LEAST_ROOM = 1e-6, 1e-9


def describe_clause(result: ClauseResult, classes: Sequence[str]) -> dict[str, Any]:
    """One clause, JSON-ready.

    Args:
        result: Of any kind.
        classes: Names, for groups that are told by the number of a class.

    Returns:
        `ClauseResult.to_dict` with "text", "explanation", "unit" (a format of `report.numbers`: "share", "points",
        "score", "ms", "bytes", "ratio" or "plain"), "better" ("higher" or "lower"), "axis"
        ("ticks", whose ends are the axis's) and "groups": name, outcome, observed, lower, upper, samples each, the
        worst first; empty where the clause is about all samples together.
    """
    known = result.to_dict()
    unit, better = _unit(result), result.better
    groups = sorted((_group(each, classes) for each in result.groups), key=lambda group: _badness(group, better))
    values = [known[key] for key in ("observed", "lower", "upper", "bound")]
    values += [group[key] for group in groups for key in ("observed", "lower", "upper")]
    return {
        **known,
        "text": result.text,
        "explanation": result.explanation,
        "unit": unit,
        "better": better,
        "axis": {"ticks": interval_axis(values, unit=unit, best=_best(result, unit, better), limits=_limits(result))},
        "groups": groups,
    }


def interval_axis(
    values: Iterable[float | None],
    *,
    unit: str,
    best: float | None = None,
    limits: tuple[float, float] | None = None,
) -> list[float]:
    """Round numbers around all values; the first and the last are the ends of the axis.

    Args:
        values: What has to be on the axis; None and what is not finite is left out.
        unit: Shares are ticked in steps that read well as percent.
        best: The best value there can be, which belongs on the axis: what is far from it must look so.
        limits: The axis does not reach beyond, where nothing can be.
    """
    present = [float(value) for value in (*values, best) if value is not None and math.isfinite(value)]
    if unit == "share" and limits is None:
        limits = (0.0, 1.0)
    low, high = (min(present), max(present)) if present else (0.0, 1.0)
    size = max(abs(low), abs(high))
    # Values that are as good as equal get an axis by their size: ticks between them would all read alike.
    room = _MARGIN * (high - low if high - low > _ALIKE * size else size)
    room = room if room > _LEAST_ROOM else 0.01
    # There is nothing beyond the best.
    low, high = (low if low == best else low - room), (high if high == best else high + room)
    if limits is not None:
        low, high = max(low, limits[0]), min(high, limits[1])
    if not low < high:
        low, high = low - 0.01, high + 0.01
    return list(nice_ticks(low, high))


def _unit(result: ClauseResult) -> str:
    clause = result.clause
    if clause.kind in _SHARES:
        return "share"
    if clause.kind == "accuracy-drop":
        return "points"
    cost = str(getattr(clause, "cost", ""))
    ending = next((unit for end, unit in _UNIT_ENDINGS if cost.endswith(end)), None)
    return ending or ("plain" if cost else "score")


def _limits(result: ClauseResult) -> tuple[float, float] | None:
    """The range of what a clause is about, where it is known: of a metric that is held against its own value."""
    metric = METRICS.get(str(getattr(result.clause, "metric", "")))
    if result.clause.kind not in ("mean", "quantile") or metric is None:
        return None
    low, high = sorted((metric.worst, metric.best))
    return low, high


def _best(result: ClauseResult, unit: str, better: str) -> float | None:
    if unit == "share":
        return 1.0 if better == "higher" else 0.0
    limits = _limits(result)
    if limits is None:
        # A cost is best at nothing, and so is a drop.
        return 0.0 if better == "lower" else None
    return limits[1] if better == "higher" else limits[0]


def _group(each: GroupResult, classes: Sequence[str]) -> dict[str, Any]:
    # Groups are told by the index of their class, as text.
    known = each.name.isdecimal() and int(each.name) < len(classes)
    numbers = {key: getattr(each, key) for key in ("observed", "lower", "upper", "samples", "successes")}
    return {"name": classes[int(each.name)] if known else each.name, "outcome": each.outcome, **numbers}


def _badness(group: Mapping[str, Any], better: str) -> tuple[int, float, str]:
    """Sorts the worst first: what fails before what is open before what holds, then by the value."""
    order = {"fail": 0, "inconclusive": 1, "not-measured": 2}.get(str(group["outcome"]), 3)
    observed = group["observed"]
    value = math.inf if observed is None else float(observed)
    return order, -value if better == "lower" and observed is not None else value, str(group["name"])
