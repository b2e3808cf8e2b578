"""Agreement of a teacher's and an engine's maps: the table of metrics, and the rules for degenerate maps.

The rules for degenerate maps
-----------------------------
1. Both maps zero (every cell exactly 0): there is nothing to compare. State "both_zero", NaN for every metric, left
   out of every share and mean and counted apart; a policy bounds how many there may be.
2. Exactly one map zero: evidence vanished or appeared from nowhere. State "one_zero", and every metric takes its worst
   value, so that no average can hide it.
3. The engine's map holds NaN or infinity: state "non_finite", whatever the teacher's map is, and every metric takes
   its worst value. A teacher's map that is not finite is an error: the yardstick is broken.
4. Constant maps that are not zero are compared like any other. The correlations, which have no value there, are 1
   when both maps are constant (both say "everywhere alike") and 0 when exactly one is.
5. Maps of one cell are constant maps: the correlations are 1, SSIM has a window of one cell, the distance of the
   maxima is 0. Ties are settled as each metric's docstring says, never by the order of the cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.errors import BadInputError
from edgekit.metrics import comparisons
from edgekit.metrics.comparisons import Maps, MapStack
from edgekit.metrics.states import map_states

__all__ = ["METRICS", "AgreementScores", "Metric", "metric_named", "score_agreement", "worst_of", "worst_value"]

# Cells compared at a time: 2 MiB for each temporary array, however many maps there are.
_CHUNK_CELLS = 1 << 18


@dataclass(frozen=True)
class Metric:
    """One way to compare two maps.

    Attributes:
        name: As policies, tables and reports call it.
        function: Teacher maps and engine maps, stacks [N, h, w] of finite maps that are not zero, to float64 [N].
        better: Which values are better.
        best: The value for identical maps.
        worst: The far end of the metric's range; given to maps that vanished or are not finite.
        description: One sentence for reports.
    """

    name: str
    function: Callable[[MapStack, MapStack], npt.NDArray[np.float64]]
    better: Literal["higher", "lower"]
    best: float
    worst: float
    description: str

    def reaches(self, values: npt.NDArray[np.float64], bound: float) -> npt.NDArray[np.bool_]:
        """True where a value is at least as good as `bound`; NaN never is."""
        reached: npt.NDArray[np.bool_] = values >= bound if self.better == "higher" else values <= bound
        return reached

    def within_range(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """True where a value lies between worst and best; NaN never does."""
        low, high = sorted((self.worst, self.best))
        within: npt.NDArray[np.bool_] = (values >= low) & (values <= high)
        return within


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric(
                "argmax-distance",
                comparisons.compare_argmax_distance,
                "lower",
                0.0,
                1.0,
                "distance between the strongest cells, in map diagonals",
            ),
            Metric(
                "cosine", comparisons.compare_cosine, "higher", 1.0, -1.0, "cosine of the angle between the two maps"
            ),
            Metric(
                "iou-top20",
                comparisons.compare_iou_top,
                "higher",
                1.0,
                0.0,
                "overlap of the strongest 20 % of the cells, intersection over union",
            ),
            Metric(
                "js-divergence",
                comparisons.compare_js_divergence,
                "lower",
                0.0,
                1.0,
                "Jensen-Shannon divergence of the maps as distributions, in bits",
            ),
            Metric(
                "pearson", comparisons.compare_pearson, "higher", 1.0, -1.0, "linear correlation of the maps' cells"
            ),
            Metric(
                "spearman", comparisons.compare_spearman, "higher", 1.0, -1.0, "rank correlation of the maps' cells"
            ),
            Metric(
                "ssim",
                comparisons.compare_ssim,
                "higher",
                1.0,
                -1.0,
                "structural similarity of the maps scaled to a maximum of 1",
            ),
        )
    }
)


def metric_named(name: str, *, where: str | None = None) -> Metric:
    """The metric called `name`. Raises `BadInputError` listing the known ones where there is none."""
    if name not in METRICS:
        raise BadInputError(
            f"There is no metric called {name!r}.", where=where, expected="one of " + ", ".join(METRICS)
        )
    return METRICS[name]


class AgreementScores(NamedTuple):
    """What `score_agreement` found.

    Attributes:
        states: One of `STATES` a sample, [N].
        metrics: Metric name to float64 [N]; NaN exactly where the state is "both_zero".
    """

    states: tuple[str, ...]
    metrics: Mapping[str, npt.NDArray[np.float64]]


def score_agreement(teacher_maps: Maps, engine_maps: Maps, names: Iterable[str] | None = None) -> AgreementScores:
    """Compare maps by every metric, under the rules for degenerate maps at the top of this module.

    Memory beside the inputs and the result stays flat in the number of maps.

    Args:
        teacher_maps: Floating [N, h, w], raw and finite; a `MapStack` where several engines are held against them.
        engine_maps: Floating [N, h, w], raw; a `MapStack` where they are held against several teachers.
        names: Metrics to compute; all of them unless told otherwise.

    Raises:
        DefectError: The shapes or dtypes do not fit.
        IntegrityError: A teacher's map is not finite.
        BadInputError: A name is unknown.
    """
    metrics = [metric_named(name) for name in (METRICS if names is None else names)]
    ours, theirs = (maps if isinstance(maps, MapStack) else MapStack(maps) for maps in (engine_maps, teacher_maps))
    teacher_maps, engine_maps = theirs.maps, ours.maps
    states = map_states(teacher_maps, engine_maps)
    state = np.array(states, dtype=np.str_)
    values = {metric.name: np.full(len(states), metric.worst, dtype=np.float64) for metric in metrics}
    for result in values.values():
        result[state == "both_zero"] = np.nan
    scored = np.flatnonzero(state == "scored")
    cells = max(1, teacher_maps.shape[1] * teacher_maps.shape[2])
    step = max(1, _CHUNK_CELLS // cells)
    for start in range(0, len(scored), step):
        rows = scored[start : start + step]
        # All of them, which is the rule, need no copy, and what was worked out before is there already.
        whole = len(rows) == len(states)
        teacher = theirs if whole else MapStack(teacher_maps[rows])
        engine = ours if whole else MapStack(engine_maps[rows])
        for metric in metrics:
            values[metric.name][rows] = metric.function(teacher, engine)
    return AgreementScores(states, values)


# From the state that says least to the one that says worst.
_SEVERITY = ("both_zero", "scored", "one_zero", "non_finite")


def worst_of(views: Sequence[AgreementScores]) -> AgreementScores:
    """The scores of samples that have several maps: a sample is as good as its worst map.

    The state is the gravest of the maps', where two zero maps count for nothing beside a pair that was compared. Every
    metric is the worst value over the maps that have one.

    Args:
        views: Scores of the same samples and metrics, at least one.
    """
    states = tuple(max(states, key=_SEVERITY.index) for states in zip(*(view.states for view in views), strict=True))
    values = {name: worst_value(name, [view.metrics[name] for view in views]) for name in views[0].metrics}
    return AgreementScores(states, values)


def worst_value(name: str, columns: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The worst of a metric's values sample by sample, float64 [N]; NaN only where every one is."""
    metric = metric_named(name)
    reduce = np.fmin if metric.better == "higher" else np.fmax
    worst: npt.NDArray[np.float64] = reduce.reduce(np.stack(columns), axis=0)
    return worst
