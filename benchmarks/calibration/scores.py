"""From two sets of answers to a value an image, and from those to the numbers of a row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from calibration.answers import Answers
from edgekit.calibrate.drift import divergence_of
from edgekit.metrics.agreement import score_agreement

__all__ = ["COLUMNS", "numbers_of", "score"]

_MAPS = ("cosine", "spearman", "iou-top20")
COLUMNS = (*_MAPS, "own-cosine", "divergence", "agrees", "correct")

_Columns = Mapping[str, npt.NDArray[np.float64]]


def score(reference: Answers, found: Answers, labels: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.float64]]:
    """`COLUMNS`, float64 [N] each.

    Maps are those of the reference's class; "own-cosine" compares what each graph says of its own answer. NaN where
    both maps are zero: there is nothing to compare.
    """
    asked = score_agreement(reference.asked, found.asked, _MAPS).metrics
    own = score_agreement(reference.own, found.own, ("cosine",)).metrics["cosine"]
    return {
        **{name: asked[name] for name in _MAPS},
        "own-cosine": own,
        "divergence": divergence_of(reference.logits, found.logits),
        "agrees": (reference.classes == found.classes).astype(np.float64),
        "correct": (found.classes == labels).astype(np.float64),
    }


def numbers_of(columns: _Columns) -> dict[str, float]:
    """Means of all columns, the fifth and first percentile of those that compare maps, and how many had a map."""
    found: dict[str, float] = {}
    for name in COLUMNS:
        values = columns[name][~np.isnan(columns[name])]
        found[name] = float(values.mean()) if len(values) else float("nan")
        if name in (*_MAPS, "own-cosine") and len(values):
            found[f"{name}/p5"], found[f"{name}/p1"] = (float(np.percentile(values, share)) for share in (5, 1))
    found["images"] = len(columns["agrees"])
    found["compared"] = int((~np.isnan(columns["cosine"])).sum())
    return found
