"""Clauses that compare two values of the same sample: the map on its mask beside another's, the engine beside an older.

What two sides share, such as hard images, is in both and falls out of the difference: so pairs show with fewer samples
what two averages would not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import METRICS
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.assembled import in_full, not_measured
from edgekit.policy.context import Baseline
from edgekit.policy.judging import Rule, Scale, judge_gain, judge_mean
from edgekit.policy.release_clauses import BaselineClause, LocalisationClause
from edgekit.policy.result import ClauseResult

__all__ = ["evaluate_baseline", "evaluate_localisation"]

_Flags = npt.NDArray[np.bool_]
_Places = npt.NDArray[np.intp]
_BESIDE = {"drop": "teacher", "above_centre_prior": "centre-prior"}


def evaluate_localisation(clause: LocalisationClause, table: ScoreTable, rule: Rule) -> ClauseResult:
    """Judge where the engine's map lies, by itself or beside the teacher's or the middle of the image."""
    engine = table.localisation.get(f"engine/{clause.metric}")
    beside = table.localisation.get(f"{_BESIDE.get(clause.demand, 'engine')}/{clause.metric}")
    if engine is None or beside is None or not (~np.isnan(engine) & ~np.isnan(beside)).any():
        return not_measured(clause, required=clause.required)
    counted = np.flatnonzero(~np.isnan(engine) & ~np.isnan(beside))
    values = engine[counted]
    if clause.demand == "drop":
        values = beside[counted] - values
    elif clause.demand == "above_centre_prior":
        values = values - beside[counted]
    scale = Scale(clause.limit, clause.better, 0.0 if clause.demand == "bound" else -1.0, 1.0)
    worst = np.argsort(values if clause.better == "higher" else -values, kind="stable")
    return in_full(clause, judge_mean(values, scale, clause.interval, rule), counted[worst])


def evaluate_baseline(clause: BaselineClause, table: ScoreTable, baseline: Baseline | None, rule: Rule) -> ClauseResult:
    """Judge an engine beside an older release on the samples that both have."""
    if baseline is None:
        return not_measured(clause, required=clause.required)
    ours, theirs = _pairs(table, baseline.table)
    if clause.of in METRICS:
        return _metric_gain(clause, (table, baseline.table), (ours, theirs), rule)
    right, was_right = _right(clause.of, table)[ours], _right(clause.of, baseline.table)[theirs]
    if clause.of == "accuracy":
        known = (table.label[ours] >= 0) & (baseline.table.label[theirs] >= 0)
        ours, right, was_right = ours[known], right[known], was_right[known]
    if len(ours) == 0:
        return not_measured(clause, required=clause.required)
    won, lost = int((right & ~was_right).sum()), int((~right & was_right).sum())
    judged = judge_gain(won, lost, len(ours), Scale(clause.limit, clause.better, -1.0, 1.0), rule)
    return in_full(clause, judged, ours[~right & was_right])


def _metric_gain(
    clause: BaselineClause, tables: tuple[ScoreTable, ScoreTable], pairs: tuple[_Places, _Places], rule: Rule
) -> ClauseResult:
    columns = [
        (table.metrics if clause.view == "teacher-class" else table.own_class_metrics).get(clause.of)
        for table in tables
    ]
    if columns[0] is None or columns[1] is None:
        return not_measured(clause, required=clause.required)
    ours, theirs = columns[0][pairs[0]], columns[1][pairs[1]]
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    if not both.any():
        return not_measured(clause, required=clause.required)
    metric = METRICS[clause.of]
    gain = (ours - theirs if metric.better == "higher" else theirs - ours)[both]
    width = abs(metric.best - metric.worst)
    judged = judge_mean(gain, Scale(clause.limit, clause.better, -width, width), "bootstrap", rule)
    return in_full(clause, judged, pairs[0][both][np.argsort(gain, kind="stable")])


def _pairs(table: ScoreTable, other: ScoreTable) -> tuple[_Places, _Places]:
    """Indices of the samples that both tables have, by digest; of a sample that one has twice, the first of each."""
    places: dict[str, int] = {}
    for place, digest in enumerate(other.sample):
        places.setdefault(digest, place)
    first: dict[str, int] = {}
    for place, digest in enumerate(table.sample):
        first.setdefault(digest, place)
    shared = [(place, places[digest]) for digest, place in first.items() if digest in places]
    both = np.array(shared, dtype=np.intp).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _right(of: str, table: ScoreTable) -> _Flags:
    right: _Flags = table.agrees if of == "agreement" else np.equal(table.engine_class, table.label)
    return right
