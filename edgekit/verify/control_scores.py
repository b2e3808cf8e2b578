"""The three controls of a verification: made from what the engine said and from the golden set, and scored.

- "random-weights": the teacher's architecture with random weights, as the golden stage asked it.
- "permuted-maps": the engine's own answers, each with the maps that it gave to another sample, of another class where
  that is possible. Whoever looks at answers alone sees the very engine.
- "centre-prior": the engine's own answers, each with one and the same blob in the middle. A policy may find it hard to
  fail where objects stand in the middle of their images: that is a finding about the data.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet, RandomAnswers
from edgekit.core.mapped import release
from edgekit.metrics.comparisons import MapStack
from edgekit.metrics.localisation import centre_prior
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers
from edgekit.verify.controls import CENTRE_PRIOR, PERMUTED_MAPS, RANDOM_WEIGHTS, StoredControls
from edgekit.verify.score import SCORED_AT_ONCE, ScoreBuilder, Views, Yardstick

__all__ = ["ControlScoring", "controls_of", "make_controls", "other_samples", "stored_side_tables"]

_SEED = 0


class ControlScoring:
    """The two controls that need nothing of the engine but its answers, scored some samples at a time, in order."""

    def __init__(self, golden: GoldenSet) -> None:
        self._golden = golden
        self._builders = {CENTRE_PRIOR: ScoreBuilder()}
        if golden.random is not None:
            self._builders[RANDOM_WEIGHTS] = ScoreBuilder()
        self._blind: tuple[MapStack, ...] = ()

    def add(self, yardstick: Yardstick, start: int, stop: int) -> None:
        """Score the controls of the samples from `start` to before `stop`, whose yardstick this is."""
        blind = self._blind_views(stop - start)
        self._builders[CENTRE_PRIOR].add(yardstick, blind, blind)
        if self._golden.random is not None:
            asked, own = _random_views(self._golden.random, start, stop)
            self._builders[RANDOM_WEIGHTS].add(yardstick, asked, own)

    def _blind_views(self, count: int) -> tuple[MapStack, ...]:
        """One blob for everybody; kept, since what metrics make of it is the same every time."""
        if not self._blind or len(self._blind[0]) != count:
            sizes = [(view.spec.height, view.spec.width) for view in self._golden.map_spec.views]
            self._blind = tuple(MapStack(np.broadcast_to(centre_prior(*size), (count, *size))) for size in sizes)
        return self._blind

    def tables(self, engine_class: npt.NDArray[np.int64]) -> dict[str, ScoreTable]:
        """The tables, once every sample was added; `engine_class` are the answers that the centre prior keeps."""
        golden = self._golden
        classes = {CENTRE_PRIOR: engine_class}
        if golden.random is not None:
            classes[RANDOM_WEIGHTS] = golden.random.classes
        return {name: builder.table(golden, classes[name]) for name, builder in self._builders.items()}


def _random_views(random: RandomAnswers, start: int, stop: int) -> tuple[Views, Views]:
    asked, own = ([maps[side, start:stop].astype(np.float32) for maps in random.maps] for side in (0, 1))
    release(*random.maps)
    return asked, own


def controls_of(golden: GoldenSet, answers: EngineAnswers, table: ScoreTable) -> StoredControls:
    """Every control that can be made of a golden set and what an engine said about it, with the scores of that."""
    return make_controls(golden, answers, table, _scored(golden, table))


def stored_side_tables(golden: GoldenSet, engine: ScoreTable) -> dict[str, ScoreTable]:
    """The tables that follow from a golden set and the engine's scores, as `ControlScoring` makes them."""
    return _scored(golden, engine).tables(engine.engine_class)


def _scored(golden: GoldenSet, engine: ScoreTable) -> ControlScoring:
    scoring = ControlScoring(golden)
    for start in range(0, len(golden), SCORED_AT_ONCE):
        stop = min(start + SCORED_AT_ONCE, len(golden))
        scoring.add(Yardstick.of(golden, start, stop, engine), start, stop)
    return scoring


def make_controls(
    golden: GoldenSet, answers: EngineAnswers, table: ScoreTable, scoring: ControlScoring
) -> StoredControls:
    """Every control that can be made.

    Args:
        golden: The golden set.
        answers: What the engine said about it.
        table: The scores of that.
        scoring: To which every sample was added.
    """
    tables, missing = scoring.tables(table.engine_class), {}
    if len(golden) > 1:
        tables[PERMUTED_MAPS] = _permuted_maps_table(golden, answers, table)
    else:
        missing[PERMUTED_MAPS] = "there is no other sample whose map could be taken"
    if golden.random is None:
        missing[RANDOM_WEIGHTS] = golden.random_absent
    return StoredControls("ran", tables, missing)


def _permuted_maps_table(golden: GoldenSet, answers: EngineAnswers, table: ScoreTable) -> ScoreTable:
    source = other_samples(golden.teacher_class, _SEED)
    builder = ScoreBuilder()
    maps, own = (answers.maps, *answers.further), (answers.own_maps, *answers.own_further)
    for start in range(0, len(golden), SCORED_AT_ONCE):
        taken = source[start : start + SCORED_AT_ONCE]
        yardstick = Yardstick.of(golden, start, start + len(taken), table)
        builder.add(yardstick, [one[taken] for one in maps], [one[taken] for one in own])
        release(*maps, *own, golden.maps, *(item.maps for item in golden.further))
    return builder.table(golden, table.engine_class)


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
