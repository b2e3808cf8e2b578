"""Blame: every tensor that is rounded, alone and left out, ordered by what its rounding does to maps and logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.blame.options import METRICS, ORDERS
from edgekit.blame.resampling import Interval, RankRange, intervals, rank_ranges
from edgekit.blame.rounding import RoundingBench, SampleDrift
from edgekit.blame.units import Unit
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.errors import BadInputError

__all__ = ["Blame", "BlamedUnit", "ClassBlame", "Interaction", "blame_tensors"]

# Tensors that are looked at class by class: the worst ones, since a table of all by all would not be read.
_BY_CLASS = 8


@dataclass(frozen=True)
class BlamedUnit:
    """One unit and what its rounding does.

    Attributes:
        unit: What is rounded.
        rank: Its place, 1 the worst: by the lower end of `score`, so that no tensor is put first by a single image.
        ranks: Between which places it stands when other images might have been drawn.
        score: What it is ordered by.
        only: Each of `METRICS` when nothing but it is rounded, against the unrounded graph.
        all_but: The same when everything but it is rounded, against the FP32 graph.
    """

    unit: Unit
    rank: int
    ranks: RankRange
    score: Interval
    only: Mapping[str, Interval]
    all_but: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return self.unit.to_dict() | {
            "rank": self.rank,
            "ranks": [self.ranks.first, self.ranks.last],
            "score": self.score.to_dict(),
            "only": _to_dict(self.only),
            "all_but": _to_dict(self.all_but),
        }


@dataclass(frozen=True)
class Interaction:
    """Whether roundings add up.

    Attributes:
        summed: Sum over the units of the mean drift of each alone.
        together: Mean drift of all of them together, against the unrounded or FP32 graph.
    """

    summed: float
    together: float

    @property
    def ratio(self) -> float | None:
        """`together / summed`: 1 where errors add up, less where they cancel or saturate; None without drift."""
        return self.together / self.summed if self.summed > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"summed": self.summed, "together": self.together, "ratio": self.ratio}


@dataclass(frozen=True)
class ClassBlame:
    """The images of one class.

    Attributes:
        index: The class.
        samples: How many images there are.
        together: Mean of each of `METRICS` with everything rounded.
        only: Names of the worst units, worst first over all images, to the means with only that unit rounded.
    """

    index: int
    samples: int
    together: Mapping[str, float]
    only: Mapping[str, Mapping[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "index": self.index,
            "samples": self.samples,
            "together": dict(self.together),
            "only": {name: dict(means) for name, means in self.only.items()},
        }


@dataclass(frozen=True)
class Blame:
    """What rounding does to one quantised graph, tensor by tensor.

    Attributes:
        number_format: Of the scale table.
        samples: Images it was measured on.
        order: One of `ORDERS`.
        units: Everything that is rounded, worst first.
        depth: Operations on the way to the logits.
        together: Each of `METRICS` with everything rounded, against the FP32 graph.
        adjusted: Means of the same with nothing rounded: what adjusting the graph does by itself.
        interactions: Each of `METRICS` but flips, as a sum over the units and together.
        classes: The classes that images are of, by index.
    """

    number_format: str
    samples: int
    order: str
    units: tuple[BlamedUnit, ...]
    depth: int
    together: Mapping[str, Interval]
    adjusted: Mapping[str, float]
    interactions: Mapping[str, Interaction]
    classes: tuple[ClassBlame, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "number_format": self.number_format,
            "samples": self.samples,
            "order": self.order,
            "depth": self.depth,
            "together": _to_dict(self.together),
            "adjusted": dict(self.adjusted),
            "interactions": {name: item.to_dict() for name, item in self.interactions.items()},
            "tensors": [item.to_dict() for item in self.units],
            "classes": [item.to_dict() for item in self.classes],
        }


def blame_tensors(
    bench: RoundingBench,
    image_classes: npt.NDArray[np.int64],
    *,
    order: str = ORDERS[0],
    observer: Observer = NULL_OBSERVER,
) -> Blame:
    """Round every unit of a bench alone, and everything but it.

    Args:
        bench: Graph, table and images. It is run twice for each of its units.
        image_classes: int64 [N]: which class's image each is, for the view by class.
        order: One of `ORDERS`.
        observer: Told of the progress.

    Raises:
        BadInputError: The order is unknown.
        IntegrityError: Rounded, the network's answers are not finite.
    """
    if order not in ORDERS:
        raise BadInputError("Tensors cannot be ordered by that.", expected="one of " + ", ".join(ORDERS), found=order)
    together = bench.together()
    only, all_but = [], []
    for unit in track(bench.units, "rounding one tensor, and all but one", observer):
        only.append(bench.only(unit))
        all_but.append(bench.all_but(unit))
    scores = _scores(only, together, order)
    places = _by_lower_end(intervals(scores))
    ranks = rank_ranges(scores)
    score_intervals = intervals(scores)
    only_intervals, but_intervals = _intervals_of(only), _intervals_of(all_but)
    units = tuple(
        BlamedUnit(bench.units[at], rank, ranks[at], score_intervals[at], only_intervals[at], but_intervals[at])
        for rank, at in enumerate(places, 1)
    )
    worst = [(bench.units[at].name, only[at]) for at in places[:_BY_CLASS]]
    return Blame(
        number_format=bench.probe.table.number_format,
        samples=len(bench),
        order=order,
        units=units,
        depth=max(unit.depth for unit in bench.units),
        together=_intervals_of([together])[0],
        adjusted={name: float(values.mean()) for name, values in bench.adjusted().items()},
        interactions={
            name: Interaction(float(sum(item[name].mean() for item in only)), float(together[name].mean()))
            for name in METRICS
            if name != "flips"
        },
        classes=_by_class(image_classes, together, worst),
    )


def _scores(only: Sequence[SampleDrift], together: SampleDrift, order: str) -> npt.NDArray[np.float64]:
    """What units are ordered by, float64 [units, N]."""
    if order != ORDERS[0]:
        return np.stack([item[order] for item in only])
    shares = []
    for name in ORDERS[1:]:
        values = np.stack([item[name] for item in only])
        # One tensor can do more harm than all together, where another's rounding hides it.
        largest = max(float(together[name].mean()), float(values.mean(axis=1).max()))
        shares.append(values / largest if largest > 0 else values)
    scores: npt.NDArray[np.float64] = np.mean(shares, axis=0)
    return scores


def _by_lower_end(scores: Sequence[Interval]) -> list[int]:
    return sorted(range(len(scores)), key=lambda at: (-scores[at].low, -scores[at].mean, at))


def _intervals_of(drifts: Sequence[SampleDrift]) -> list[dict[str, Interval]]:
    columns = {name: intervals(np.stack([item[name] for item in drifts])) for name in METRICS}
    return [{name: columns[name][row] for name in METRICS} for row in range(len(drifts))]


def _by_class(
    image_classes: npt.NDArray[np.int64], together: SampleDrift, worst: Sequence[tuple[str, SampleDrift]]
) -> tuple[ClassBlame, ...]:
    def means(drift: SampleDrift, rows: npt.NDArray[np.bool_]) -> dict[str, float]:
        return {name: float(drift[name][rows].mean()) for name in METRICS}

    found = []
    for index in np.unique(image_classes).tolist():
        rows = image_classes == index
        only = {name: means(drift, rows) for name, drift in worst}
        found.append(ClassBlame(index, int(rows.sum()), means(together, rows), only))
    return tuple(found)


def _to_dict(values: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: interval.to_dict() for name, interval in values.items()}
