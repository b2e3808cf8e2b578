"""From answers to the table of scores, some samples at a time: nothing here holds the maps of a whole golden set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.metrics.agreement import AgreementScores, score_agreement, worst_of
from edgekit.metrics.localisation import centre_prior, score_localisation
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers

__all__ = ["ENGINE_SIDE", "SCORED_AT_ONCE", "ScoreBuilder", "Views", "answered_classes", "blind_maps", "score_answers"]

SCORED_AT_ONCE = 256
"""Samples whose maps are worked on together, where the maps of all of them lie ready."""

ENGINE_SIDE = "engine"
"""First half of the names of localisation columns that are about the judged maps, and not about a yardstick."""

# The maps of some samples, float [n, h, w] for every view of the golden set.
Views = Sequence[npt.NDArray[np.floating]]
_Columns = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class _Part:
    """The scores of some samples: what `ScoreTable` calls so."""

    states: tuple[str, ...]
    metrics: _Columns
    own: _Columns
    views: tuple[_Columns, ...]
    localisation: _Columns


class ScoreBuilder:
    """Scores maps some samples at a time, in their order, and joins what was found to a table.

    Args:
        golden: The golden set.
        yardsticks: A table of the same golden set, whose localisation columns of the teacher and of the blind map are
            taken over, since they are not about the judged maps.
    """

    def __init__(self, golden: GoldenSet, yardsticks: ScoreTable | None = None) -> None:
        self._golden = golden
        self._known = {} if yardsticks is None else yardsticks.localisation
        self._parts: list[_Part] = []
        self._done = 0

    def add(self, maps: Views, own_maps: Views) -> None:
        """Score the next samples; of several maps a sample's worst counts.

        Args:
            maps: Of the teacher's class.
            own_maps: Of the judged network's own answer.
        """
        rows = slice(self._done, self._done + len(maps[0]))
        golden = self._golden
        teacher = [np.asarray(one[rows]) for one in (golden.maps, *(item.maps for item in golden.further))]
        views = [score_agreement(theirs, ours) for theirs, ours in zip(teacher, maps, strict=True)]
        asked = worst_of(views)
        self._parts.append(
            _Part(
                states=asked.states,
                metrics=asked.metrics,
                own=_own_metrics(teacher, maps, own_maps, asked),
                views=tuple(view.metrics for view in views) if len(views) > 1 else (),
                localisation=self._localisation(rows, maps[0]),
            )
        )
        self._done = rows.stop

    def _localisation(self, rows: slice, engine: npt.NDArray[np.floating]) -> _Columns:
        """How well maps lie on the object, where there are masks: both networks', and one that is blind."""
        golden = self._golden
        if golden.masks is None:
            return {}
        masks, teacher = np.asarray(golden.masks[rows]), np.asarray(golden.maps[rows])
        sides = {ENGINE_SIDE: engine}
        if not self._known:
            sides |= {"teacher": teacher, "centre-prior": blind_maps(teacher.shape)}
        found = {
            f"{who}/{name}": values
            for who, maps in sides.items()
            for name, values in score_localisation(maps, masks).items()
        }
        return {name: values[rows] for name, values in self._known.items()} | found

    def table(self, engine_class: npt.NDArray[np.int64]) -> ScoreTable:
        """The table of everything that was added, which must be the whole golden set.

        Args:
            engine_class: int64 [N], the judged network's own top-1, -1 where its answer is not finite.
        """
        golden, parts = self._golden, self._parts
        names = [view.name for view in golden.map_spec.views]
        views = zip(*(part.views for part in parts), strict=True)
        return ScoreTable(
            sample=golden.digests,
            label=golden.labels,
            teacher_class=golden.teacher_class,
            engine_class=engine_class,
            state=tuple(state for part in parts for state in part.states),
            metrics=_joined([part.metrics for part in parts]),
            own_class_metrics=_joined([part.own for part in parts]),
            localisation=_joined([part.localisation for part in parts]),
            views={name: _joined(columns) for name, columns in zip(names, views, strict=False)},
        )


def _own_metrics(teacher: Views, maps: Views, own_maps: Views, asked: AgreementScores) -> _Columns:
    """The metrics of the maps of the own answers: where these are the maps that were scored, so are their scores."""
    other = np.zeros(len(maps[0]), dtype=np.bool_)
    for one, own in zip(maps, own_maps, strict=True):
        other |= (one != own).any(axis=(1, 2))
    rows = np.flatnonzero(other)
    if not len(rows):
        return asked.metrics
    found = worst_of(
        [score_agreement(theirs[rows], ours[rows]) for theirs, ours in zip(teacher, own_maps, strict=True)]
    )
    columns = {name: values.copy() for name, values in asked.metrics.items()}
    for name, values in columns.items():
        values[rows] = found.metrics[name]
    return columns


def _joined(parts: Sequence[_Columns]) -> dict[str, npt.NDArray[np.float64]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def blind_maps(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The map of somebody who has not seen the image, for each of [n, h, w]."""
    blind: npt.NDArray[np.float64] = np.broadcast_to(centre_prior(*shape[1:]), shape)
    return blind


def answered_classes(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The top-1 of logits [N, classes], int64 [N]; -1 where they are not finite."""
    finite = np.isfinite(logits).all(axis=1)
    top: npt.NDArray[np.int64] = np.where(finite, np.argmax(np.nan_to_num(logits), axis=1), -1).astype(np.int64)
    return top


def score_answers(golden: GoldenSet, answers: EngineAnswers) -> ScoreTable:
    """Score an engine's answers against the teacher's, sample by sample; of several maps a sample's worst counts."""
    builder = ScoreBuilder(golden)
    maps, own = (answers.maps, *answers.further), (answers.own_maps, *answers.own_further)
    for start in range(0, len(golden), SCORED_AT_ONCE):
        rows = slice(start, start + SCORED_AT_ONCE)
        builder.add([one[rows] for one in maps], [one[rows] for one in own])
    return builder.table(answered_classes(answers.logits))
