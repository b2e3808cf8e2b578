"""From answers to the table of scores, some samples at a time: nothing here holds the maps of a whole golden set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.attribution.normalise import FloatMaps
from edgekit.bundle.golden import GoldenSet
from edgekit.metrics.agreement import AgreementScores, score_agreement, worst_of
from edgekit.metrics.comparisons import Maps, MapStack
from edgekit.metrics.localisation import centre_prior, score_localisation
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers

__all__ = ["SCORED_AT_ONCE", "ScoreBuilder", "Views", "Yardstick", "answered_classes", "score_answers"]

SCORED_AT_ONCE = 256
"""Samples whose maps are worked on together, where the maps of all of them lie ready."""

# The maps of some samples, [n, h, w] for every view of the golden set.
Views: TypeAlias = Sequence[Maps]
_Columns: TypeAlias = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Yardstick:
    """What maps of some samples are held against, worked out once for all that are.

    Attributes:
        teacher: The teacher's maps, view by view.
        masks: bool [n, height, width], or None where the golden set has none.
        localisation: Columns about the teacher's maps and the blind one, not about those that are held against them.
    """

    teacher: tuple[MapStack, ...]
    masks: npt.NDArray[np.bool_] | None
    localisation: _Columns

    @classmethod
    def of(cls, golden: GoldenSet, start: int, stop: int, known: ScoreTable | None = None) -> Yardstick:
        """That of the samples from `start` to before `stop`; `known` is a table of the same golden set."""
        rows = slice(start, stop)
        views = tuple(MapStack(one[rows]) for one in (golden.maps, *(item.maps for item in golden.further)))
        if golden.masks is None:
            return cls(views, None, {})
        masks, teacher = golden.masks[rows], golden.maps[rows]
        if known is not None:
            columns = {name: values[rows] for name, values in known.localisation.items()}
        else:
            blind = np.broadcast_to(centre_prior(*teacher.shape[1:]), teacher.shape)
            columns = _localised("teacher", teacher, masks) | _localised("centre-prior", blind, masks)
        return cls(views, masks, columns)


def _localised(who: str, maps: FloatMaps, masks: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.float64]]:
    """How well maps lie on the object."""
    return {f"{who}/{name}": values for name, values in score_localisation(maps, masks).items()}


@dataclass(frozen=True)
class _Part:
    """The scores of some samples: what `ScoreTable` calls so."""

    states: tuple[str, ...]
    metrics: _Columns
    own: _Columns
    views: tuple[_Columns, ...]
    localisation: _Columns


class ScoreBuilder:
    """Scores maps some samples at a time, in their order, and joins what was found to a table."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []

    def add(self, yardstick: Yardstick, maps: Views, own_maps: Views) -> None:
        """Score the next samples; of several maps a sample's worst counts.

        Args:
            yardstick: Of these samples.
            maps: Of the teacher's class.
            own_maps: Of the judged network's own answer; `maps` itself where that is all there is.
        """
        views = [score_agreement(theirs, ours) for theirs, ours in zip(yardstick.teacher, maps, strict=True)]
        asked = worst_of(views)
        own = asked.metrics if own_maps is maps else _own_metrics(yardstick.teacher, maps, own_maps, asked)
        localisation = dict(yardstick.localisation)
        if yardstick.masks is not None:
            localisation |= _localised("engine", _array(maps[0]), yardstick.masks)
        several = tuple(view.metrics for view in views) if len(views) > 1 else ()
        self._parts.append(_Part(asked.states, asked.metrics, own, several, localisation))

    def table(
        self, golden: GoldenSet, engine_class: npt.NDArray[np.int64], rows: npt.NDArray[np.intp] | None = None
    ) -> ScoreTable:
        """The table of everything that was added.

        Args:
            golden: The golden set that the samples are of.
            engine_class: int64 [N], the judged network's own top-1, -1 where its answer is not finite.
            rows: Which of its samples were added, in that order; None for all.
        """
        which = np.arange(len(golden)) if rows is None else rows
        parts = self._parts
        names = [view.name for view in golden.map_spec.views]
        views = zip(*(part.views for part in parts), strict=True)
        return ScoreTable(
            sample=tuple(golden.digests[row] for row in which),
            label=golden.labels[which],
            teacher_class=golden.teacher_class[which],
            engine_class=engine_class,
            state=tuple(state for part in parts for state in part.states),
            metrics=_joined([part.metrics for part in parts]),
            own_class_metrics=_joined([part.own for part in parts]),
            localisation=_joined([part.localisation for part in parts]),
            views={name: _joined(columns) for name, columns in zip(names, views, strict=False)},
        )


def _own_metrics(teacher: Sequence[MapStack], maps: Views, own_maps: Views, asked: AgreementScores) -> _Columns:
    """The metrics of the maps of the own answers: where these are the maps that were scored, so are their scores."""
    asked_for, own = [_array(one) for one in maps], [_array(one) for one in own_maps]
    other = np.any([(one != mine).any(axis=(1, 2)) for one, mine in zip(asked_for, own, strict=True)], axis=0)
    rows = np.flatnonzero(other)
    if not len(rows):
        return asked.metrics
    pairs = zip(teacher, own, strict=True)
    # Most of them: no copies, so that what is known of the teacher's maps serves here too.
    if 2 * len(rows) > len(other):
        return worst_of([score_agreement(theirs, ours) for theirs, ours in pairs]).metrics
    found = worst_of([score_agreement(theirs.maps[rows], ours[rows]) for theirs, ours in pairs])
    columns = {name: values.copy() for name, values in asked.metrics.items()}
    for name, values in columns.items():
        values[rows] = found.metrics[name]
    return columns


def _array(maps: Maps) -> FloatMaps:
    return maps.maps if isinstance(maps, MapStack) else maps


def _joined(parts: Sequence[_Columns]) -> dict[str, npt.NDArray[np.float64]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def answered_classes(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The top-1 of logits [N, classes], int64 [N]; -1 where they are not finite."""
    finite = np.isfinite(logits).all(axis=1)
    top: npt.NDArray[np.int64] = np.where(finite, np.argmax(np.nan_to_num(logits), axis=1), -1).astype(np.int64)
    return top


def score_answers(golden: GoldenSet, answers: EngineAnswers) -> ScoreTable:
    """Score an engine's answers against the teacher's, sample by sample; of several maps a sample's worst counts."""
    builder = ScoreBuilder()
    maps, own = (answers.maps, *answers.further), (answers.own_maps, *answers.own_further)
    for start in range(0, len(golden), SCORED_AT_ONCE):
        stop = min(start + SCORED_AT_ONCE, len(golden))
        yardstick = Yardstick.of(golden, start, stop)
        builder.add(yardstick, [one[start:stop] for one in maps], [one[start:stop] for one in own])
    return builder.table(golden, answered_classes(answers.logits))
