"""How far answers moved: the numbers that candidates of a calibration are judged by."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.probe import Answers
from edgekit.metrics.agreement import score_agreement, worst_of

__all__ = ["Drift", "divergence_of", "drift_of", "relative_drift", "sample_drift"]

_MAP_METRICS = ("cosine", "spearman", "iou-top20")
# Below these a number is float32's, or the luck of few images: one cell of one map among hundreds. Without them, none in
# place of one would outweigh all else.
_FLOORS = (1e-7, 1e-5, 1e-3, 1e-7)


@dataclass(frozen=True)
class Drift:
    """Mean differences over images; 0 is no drift.

    Attributes:
        cosine: 1 - cosine of the maps of the reference's class.
        spearman: 1 - rank correlation of the same.
        iou: 1 - overlap of the strongest 20 % of the same.
        logits: Kullback-Leibler divergence of the answers, in nats.
        flips: Share of images with another top-1.
    """

    cosine: float
    spearman: float
    iou: float
    logits: float
    flips: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return asdict(self)


def sample_drift(reference: Answers, found: Answers) -> dict[str, npt.NDArray[np.float64]]:
    """Every field of `Drift` for each image, float64 [N]; a sample with several maps counts by its worst.

    Maps that are zero on both sides did not move.
    """
    views = [
        score_agreement(ours, theirs, _MAP_METRICS) for ours, theirs in zip(reference.maps, found.maps, strict=True)
    ]
    metrics = (views[0] if len(views) == 1 else worst_of(views)).metrics
    cosine, spearman, iou = (np.nan_to_num(1.0 - metrics[name], nan=0.0) for name in _MAP_METRICS)
    return {
        "cosine": cosine,
        "spearman": spearman,
        "iou": iou,
        "logits": divergence_of(reference.logits, found.logits),
        "flips": (reference.classes != found.classes).astype(np.float64),
    }


def drift_of(reference: Answers, found: Answers) -> Drift:
    """Means of `sample_drift`. Both were asked for the maps of the same classes."""
    return Drift(**{name: float(values.mean()) for name, values in sample_drift(reference, found).items()})


def relative_drift(candidate: Drift, baseline: Drift) -> float:
    """How much of the baseline's drift a candidate has: below 1 it is better.

    The geometric mean over maps (cosine, ranks, overlap) and logits, so that no unit outweighs another. Flips are left
    out: on the few images of a calibration set their number says less than the divergence that causes them.
    """
    pairs = (
        (candidate.cosine, baseline.cosine),
        (candidate.spearman, baseline.spearman),
        (candidate.iou, baseline.iou),
        (candidate.logits, baseline.logits),
    )
    ratios = [
        math.log((max(ours, 0) + floor) / (max(theirs, 0) + floor))
        for (ours, theirs), floor in zip(pairs, _FLOORS, strict=True)
    ]
    return math.exp(sum(ratios) / len(ratios))


def divergence_of(reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Kullback-Leibler divergence of the softmax answers, nats: logits [N, K] each, to float64 [N]."""
    ours, theirs = _log_softmax(reference), _log_softmax(found)
    divergence: npt.NDArray[np.float64] = (np.exp(ours) * (ours - theirs)).sum(axis=1)
    return divergence


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
