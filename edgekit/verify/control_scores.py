"""The three controls of a verification: made from what the engine said and from the golden set, and scored.

- "random-weights": the teacher's architecture with random weights, as the golden stage asked it.
- "permuted-maps": the engine's own answers, each with the maps that it gave to another sample, of another class where
  that is possible. Whoever looks at answers alone sees the very engine.
- "centre-prior": the engine's own answers, each with one and the same blob in the middle. A policy may find it hard to
  fail where objects stand in the middle of their images: that is a finding about the data.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet, RandomAnswers
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers
from edgekit.verify.controls import CENTRE_PRIOR, PERMUTED_MAPS, RANDOM_WEIGHTS, StoredControls
from edgekit.verify.score import SCORED_AT_ONCE, ScoreBuilder, Views, blind_maps

__all__ = ["centre_prior_table", "make_controls", "other_samples", "random_weights_table"]

_SEED = 0


def make_controls(golden: GoldenSet, answers: EngineAnswers, table: ScoreTable) -> StoredControls:
    """Score every control that can be made.

    Args:
        golden: The golden set.
        answers: What the engine said about it.
        table: The scores of that.
    """
    tables, missing = {CENTRE_PRIOR: centre_prior_table(golden, table)}, {}
    if len(golden) > 1:
        tables[PERMUTED_MAPS] = _permuted_maps_table(golden, answers, table)
    else:
        missing[PERMUTED_MAPS] = "there is no other sample whose map could be taken"
    if golden.random is not None:
        tables[RANDOM_WEIGHTS] = random_weights_table(golden, golden.random, table)
    else:
        missing[RANDOM_WEIGHTS] = golden.random_absent
    return StoredControls("ran", tables, missing)


def _scored(
    golden: GoldenSet,
    engine_class: npt.NDArray[np.int64],
    maps_of: Callable[[npt.NDArray[np.intp]], tuple[Views, Views]],
    yardsticks: ScoreTable,
) -> ScoreTable:
    builder = ScoreBuilder(golden, yardsticks)
    for start in range(0, len(golden), SCORED_AT_ONCE):
        builder.add(*maps_of(np.arange(start, min(start + SCORED_AT_ONCE, len(golden)))))
    return builder.table(engine_class)


def centre_prior_table(golden: GoldenSet, engine: ScoreTable) -> ScoreTable:
    """The scores of a blob in the middle for every map; `engine` is the table whose answers are kept."""
    sizes = [(view.spec.height, view.spec.width) for view in golden.map_spec.views]

    def maps_of(rows: npt.NDArray[np.intp]) -> tuple[Views, Views]:
        blind = [blind_maps((len(rows), *size)) for size in sizes]
        return blind, blind

    return _scored(golden, engine.engine_class, maps_of, engine)


def random_weights_table(golden: GoldenSet, random: RandomAnswers, yardsticks: ScoreTable) -> ScoreTable:
    """The scores of the teacher's architecture with random weights."""

    def maps_of(rows: npt.NDArray[np.intp]) -> tuple[Views, Views]:
        asked, own = ([maps[side, rows].astype(np.float32) for maps in random.maps] for side in (0, 1))
        return asked, own

    return _scored(golden, random.classes, maps_of, yardsticks)


def _permuted_maps_table(golden: GoldenSet, answers: EngineAnswers, table: ScoreTable) -> ScoreTable:
    source = other_samples(golden.teacher_class, _SEED)

    def maps_of(rows: npt.NDArray[np.intp]) -> tuple[Views, Views]:
        taken = source[rows]
        return (
            [maps[taken] for maps in (answers.maps, *answers.further)],
            [maps[taken] for maps in (answers.own_maps, *answers.own_further)],
        )

    return _scored(golden, table.engine_class, maps_of, table)


def other_samples(classes: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.intp]:
    """For every sample another one, no two the same, and of another class wherever the classes' sizes allow it.

    Args:
        classes: int64 [N], N at least 2.
        seed: Of the order of the samples of a class.

    Returns:
        intp [N]: a permutation without a fixed point.
    """
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(classes))
    # Class by class in a row, moved on by the size of the largest class: nobody meets their own.
    ordered = shuffled[np.argsort(classes[shuffled], kind="stable")]
    step = int(np.unique(classes, return_counts=True)[1].max()) % len(classes) or 1
    source = np.empty(len(classes), dtype=np.intp)
    source[ordered] = np.roll(ordered, -step)
    return source
