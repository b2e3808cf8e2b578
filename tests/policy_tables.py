"""Tables of scores for tests of policies, and one case a kind of clause: what it passes, fails and leaves open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgekit.metrics.agreement import METRICS
from edgekit.metrics.localisation import LOCALISATION
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.clauses import (
    AccuracyDropClause,
    AgreementClause,
    BaselineClause,
    BudgetClause,
    Clause,
    LocalisationClause,
    MeanClause,
    QuantileClause,
    ShareClause,
    UndefinedClause,
    WrongEvidenceClause,
)
from edgekit.policy.context import NOTHING_BESIDE, Baseline, Context

__all__ = ["CASES", "Case", "scores", "with_masks"]


def scores(
    values: Any,
    *,
    label: Any = None,
    teacher: Any = None,
    engine: Any = None,
    first: int = 0,
) -> ScoreTable:
    """Scores in which every metric is as good as cosine `values`; NaN: two zero maps, -1: one was lost."""
    cosine = np.asarray(values, dtype=np.float64)
    count = len(cosine)
    lost, absent = cosine == -1, np.isnan(cosine)
    state = np.where(absent, "both_zero", np.where(lost, "one_zero", "scored"))
    columns = {
        name: np.where(lost, metric.worst, cosine if metric.better == "higher" else 1 - cosine)
        for name, metric in METRICS.items()
    }
    top = np.zeros(count, np.int64) if teacher is None else np.asarray(teacher, np.int64)
    return ScoreTable(
        sample=tuple(f"{index:064x}" for index in range(first, first + count)),
        label=np.full(count, -1, np.int64) if label is None else np.asarray(label, np.int64),
        teacher_class=top,
        engine_class=top.copy() if engine is None else np.asarray(engine, np.int64),
        state=tuple(state.tolist()),
        metrics=columns,
        own_class_metrics={name: column.copy() for name, column in columns.items()},
        localisation={},
    )


def with_masks(table: ScoreTable, engine: Any, teacher: Any, centre: Any = 0.2) -> ScoreTable:
    """The same with every measure of localisation; NaN where there is no mask."""
    columns = {}
    for side, values in (("engine", engine), ("teacher", teacher), ("centre-prior", centre)):
        for name in LOCALISATION:
            columns[f"{side}/{name}"] = np.broadcast_to(np.asarray(values, np.float64), (len(table),)).copy()
    absent = np.isnan(columns["engine/pointing"])
    return replace(table, localisation={name: np.where(absent, np.nan, row) for name, row in columns.items()})


@dataclass(frozen=True)
class Case:
    """A clause with scores (and what stands beside them) that it passes, fails, and leaves open.

    `bad` are values it may not have.
    """

    clause: Clause
    passes: ScoreTable
    fails: ScoreTable
    open: ScoreTable
    bad: tuple[dict[str, Any], ...]
    beside_pass: Context = NOTHING_BESIDE
    beside_fail: Context = NOTHING_BESIDE
    beside_open: Context = field(default=NOTHING_BESIDE)


_RNG = np.random.RandomState(7)
_GOOD, _POOR = _RNG.uniform(0.93, 0.99, 200), _RNG.uniform(0.2, 0.6, 200)
_WRONG = np.where(np.arange(200) < 60, 1, 0)
_BASELINE = Context(Baseline("0" * 64, scores(np.full(200, 0.9))))

CASES: dict[str, Case] = {
    "share": Case(
        ShareClause("cosine", 0.9, 0.95),
        scores(_GOOD),
        scores(_POOR),
        scores(_GOOD[:20]),
        ({"at_least": 1}, {"threshold": -1}, {"metric": "cosin"}, {"view": "both"}, {"over": "label"}),
    ),
    "agreement": Case(
        AgreementClause(0.9),
        scores(_GOOD),
        scores(_GOOD, engine=_WRONG),
        scores(_GOOD[:20]),
        ({"at_least": 0}, {"at_least": True}, {"min_class_samples": 5}, {"small_classes": "skip"}),
    ),
    "mean": Case(
        MeanClause("spearman", 0.9, interval="bootstrap"),
        scores(_GOOD),
        scores(_POOR),
        scores(np.concatenate([_GOOD[:100], _POOR[:12]])),
        ({"bound": 1.5}, {"interval": "bayes"}, {"interval": None}, {"class_of": "label"}),
    ),
    "quantile": Case(
        QuantileClause("ssim", 0.1, 0.9, interval="exact"),
        scores(_GOOD),
        scores(_POOR),
        scores(np.concatenate([_GOOD[:92], _POOR[:8]])),
        ({"q": 1}, {"bound": -1}, {"interval": "jackknife"}),
    ),
    "undefined": Case(
        UndefinedClause(0.05),
        scores(_GOOD),
        scores(np.where(np.arange(200) < 50, np.nan, _GOOD)),
        scores(_GOOD[:20]),
        ({"at_most": 1}, {"at_most": -0.1}),
    ),
    "accuracy-drop": Case(
        AccuracyDropClause(0.02),
        scores(_GOOD, label=np.zeros(200)),
        scores(_GOOD, label=np.zeros(200), engine=_WRONG),
        scores(_GOOD),
        ({"at_most": 1}, {"required": "no"}),
    ),
    "wrong-evidence": Case(
        WrongEvidenceClause("cosine", 0.9, 0.05),
        scores(_GOOD),
        scores(_POOR),
        scores(_GOOD[:20]),
        ({"at_most": 0}, {"right": "engine"}, {"threshold": 2}, {"required": 1}),
    ),
    "localisation": Case(
        LocalisationClause("energy-inside", drop=0.05),
        with_masks(scores(_GOOD), _GOOD - 0.2, _GOOD - 0.2),
        with_masks(scores(_GOOD), _GOOD - 0.4, _GOOD - 0.2),
        scores(_GOOD),
        ({"bound": 0.5}, {"drop": None}, {"drop": 1}, {"metric": "cosine"}, {"interval": "exact"}),
    ),
    "no-worse-than-baseline": Case(
        BaselineClause("cosine", 0.05),
        scores(_GOOD),
        scores(_POOR),
        scores(_GOOD),
        ({"margin": -0.1}, {"margin": 2}, {"of": "localisation"}, {"required": 0}),
        beside_pass=_BASELINE,
        beside_fail=_BASELINE,
    ),
    "budget": Case(
        BudgetClause("latency-p99-ms", 10),
        scores(_GOOD),
        scores(_GOOD),
        scores(_GOOD),
        ({"cost": "price"}, {"at_most": 0}, {"at_most": float("inf")}, {"required": None}),
        beside_pass=Context(costs={"latency-p99-ms": 10.0}),
        beside_fail=Context(costs={"latency-p99-ms": 10.000001}),
        beside_open=Context(costs={"latency-p50-ms": 1.0}),
    ),
}
