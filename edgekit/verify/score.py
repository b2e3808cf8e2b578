"""From answers to the table of scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.metrics.agreement import AgreementScores, score_agreement, worst_of
from edgekit.metrics.localisation import centre_prior, score_localisation
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers

__all__ = ["score_answers"]


def score_answers(golden: GoldenSet, answers: EngineAnswers) -> ScoreTable:
    """Score an engine's answers against the teacher's, sample by sample; of several maps a sample's worst counts."""
    views = _scored(golden, (answers.maps, *answers.further))
    states, metrics = worst_of(views)
    _, own_metrics = worst_of(_scored(golden, (answers.own_maps, *answers.own_further)))
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
        views={view.name: scores.metrics for view, scores in zip(golden.map_spec.views, views, strict=True)}
        if len(views) > 1
        else {},
    )


def _scored(golden: GoldenSet, engine: tuple[npt.NDArray[np.float32], ...]) -> list[AgreementScores]:
    teacher = (golden.maps, *(item.maps for item in golden.further))
    return [score_agreement(theirs, ours) for theirs, ours in zip(teacher, engine, strict=True)]


def _localisation(golden: GoldenSet, answers: EngineAnswers) -> dict[str, npt.NDArray[np.float64]]:
    """How well maps lie on the object, where the golden set has masks: both networks', and one that is blind."""
    if golden.masks is None:
        return {}
    height, width = golden.maps.shape[1:]
    blind = np.broadcast_to(centre_prior(height, width), golden.maps.shape)
    return {
        f"{who}/{name}": values
        for who, maps in (("teacher", golden.maps), ("engine", answers.maps), ("centre-prior", blind))
        for name, values in score_localisation(maps, golden.masks).items()
    }
