"""From answers to the table of scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.attribution.upsample import upsample_bilinear
from edgekit.bundle.golden import GoldenSet
from edgekit.metrics.agreement import score_agreement
from edgekit.metrics.localisation import LOCALISATION
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers

__all__ = ["score_answers"]

_BATCH = 256


def score_answers(golden: GoldenSet, answers: EngineAnswers) -> ScoreTable:
    """Score an engine's answers against the teacher's, sample by sample."""
    states, metrics = score_agreement(golden.maps, answers.maps)
    _, own_metrics = score_agreement(golden.maps, answers.own_maps)
    finite = np.isfinite(answers.logits).all(axis=1)
    top = np.where(finite, np.argmax(np.nan_to_num(answers.logits), axis=1), -1)
    return ScoreTable(
        sample=golden.digests,
        label=golden.labels,
        teacher_class=golden.teacher_class,
        engine_class=top.astype(np.int64),
        state=states,
        metrics=metrics,
        own_class_metrics=own_metrics,
        localisation=_localisation(golden, answers),
    )


def _localisation(golden: GoldenSet, answers: EngineAnswers) -> dict[str, npt.NDArray[np.float64]]:
    """How well each network's map lies on the object, where the golden set has masks; the centre prior beside them."""
    if golden.masks is None:
        return {}
    height, width = golden.masks.shape[1:]
    scores: dict[str, npt.NDArray[np.float64]] = {}
    for who, maps in (("teacher", golden.maps), ("engine", np.nan_to_num(answers.maps))):
        for name, metric in LOCALISATION.items():
            parts = [
                metric(upsample_bilinear(maps[at : at + _BATCH], height, width), golden.masks[at : at + _BATCH])
                for at in range(0, len(maps), _BATCH)
            ]
            scores[f"{who}/{name}"] = np.concatenate(parts)
    return scores
