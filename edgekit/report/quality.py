"""How good the answers and maps are, in tables: by class, against masks, by state, and seen from the own class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.metrics.classification import Tally, accuracy, agreement
from edgekit.metrics.localisation import LOCALISATION, centre_prior, score_localisation
from edgekit.metrics.scores import STATES, ScoreTable

__all__ = [
    "describe_answers",
    "describe_localisation",
    "describe_own_class",
    "describe_states",
    "describe_views",
]

_SIDES = ("teacher", "engine", "centre")


def _tally(tally: Tally) -> dict[str, Any]:
    return {"successes": tally.successes, "total": tally.total, "share": tally.share}


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else None


def describe_answers(table: ScoreTable) -> dict[str, Any]:
    """Agreement of the predictions and both accuracies, each as successes, total and share (None of no samples)."""
    return {
        "samples": len(table),
        "agreement": _tally(agreement(table.teacher_class, table.engine_class)),
        "teacher_accuracy": _tally(accuracy(table.label, table.teacher_class)),
        "engine_accuracy": _tally(accuracy(table.label, table.engine_class)),
    }


def describe_localisation(golden: GoldenSet, table: ScoreTable) -> dict[str, Any] | None:
    """How well the maps lie on the objects: teacher, engine, and the centre prior that knows no image.

    Returns:
        "masked" (samples with a mask) and "rows": name, teacher, engine, centre (means over the samples that have a
        value) and change, which is the engine's minus the teacher's. None where no sample has a mask.
    """
    if golden.masks is None or not golden.masks.any():
        return None
    scores = dict(table.localisation)
    if not any(name.startswith("centre/") for name in scores):
        height, width = golden.maps.shape[1:]
        prior = np.repeat(centre_prior(height, width)[None], len(golden), axis=0)
        scores |= {f"centre/{name}": values for name, values in score_localisation(prior, golden.masks).items()}
    rows = []
    for name in LOCALISATION:
        means = {side: _mean(scores[key]) if (key := f"{side}/{name}") in scores else None for side in _SIDES}
        teacher, engine = means["teacher"], means["engine"]
        change = None if teacher is None or engine is None else engine - teacher
        rows.append({"name": name, **means, "change": change})
    return {"masked": int(golden.masks.any(axis=(1, 2)).sum()), "rows": rows}


def describe_states(table: ScoreTable) -> list[dict[str, Any]]:
    """How many samples are in each state: "state", "count" and "share" (None of no samples)."""
    return [
        {"state": state, "count": table.state.count(state), "share": Tally(table.state.count(state), len(table)).share}
        for state in STATES
    ]


def describe_views(table: ScoreTable) -> dict[str, Any] | None:
    """The means of every metric for each of an image's maps; None where an image has one.

    Returns:
        "maps" (how many an image has), "metrics" (their names) and "rows": name and means of each map.
    """
    if not table.views:
        return None
    rows = [
        {"name": name, "means": {metric: _mean(columns[metric]) for metric in sorted(columns)}}
        for name, columns in table.views.items()
    ]
    return {"maps": len(rows), "metrics": sorted(table.metrics), "rows": rows}


def describe_own_class(table: ScoreTable) -> dict[str, Any]:
    """The means of every metric in both views, and how many predictions flipped, which is where the views differ."""
    rows = []
    for name in sorted(table.metrics):
        same = _mean(table.metrics[name])
        own = _mean(table.own_class_metrics[name]) if name in table.own_class_metrics else None
        rows.append({"name": name, "same_class": same, "own_class": own})
    return {"flipped": int((~table.agrees).sum()), "rows": rows}
