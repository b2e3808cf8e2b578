"""From two sets of answers to a value an image, and from those to the numbers of a row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from calibration.answers import Answers
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
        "divergence": _divergence(reference.logits, found.logits),
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


def _divergence(reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Kullback-Leibler divergence of the softmax answers, nats."""
    ours, theirs = _log_softmax(reference), _log_softmax(found)
    divergence: npt.NDArray[np.float64] = (np.exp(ours) * (ours - theirs)).sum(axis=1)
    return divergence


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
