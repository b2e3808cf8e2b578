"""The three controls of a verification: made from what the engine said and from the golden set, and scored.

- "random-weights": the teacher's architecture with random weights, as the golden stage asked it.
- "permuted-maps": the engine's own answers, each with the maps that it gave to another sample, of another class where
  that is possible. Whoever looks at answers alone sees the very engine.
- "centre-prior": the engine's own answers, each with one and the same blob in the middle. A policy may find it hard to
  fail where objects stand in the middle of their images: that is a finding about the data.
"""

from __future__ import annotations

from collections.abc import Iterator

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
from edgekit.verify.sequence import verification_order

__all__ = ["CONTROLLED", "controlled_rows", "make_controls", "other_samples", "side_tables"]

CONTROLLED = 1024
"""Most samples that controls are scored on."""

_SEED = 0


def controlled_rows(golden: GoldenSet) -> npt.NDArray[np.intp]:
    """The samples that controls are scored on, by index, ascending: all of them, of many 1,024 drawn by their digests.

    A control is there to fail, and what is far from a bound needs few samples for that.
    """
    return np.sort(verification_order(golden)[:CONTROLLED])


def make_controls(golden: GoldenSet, answers: EngineAnswers, table: ScoreTable) -> StoredControls:
    """Every control that can be made.

    Args:
        golden: The golden set.
        answers: What the engine said about it.
        table: The scores of that.
    """
    rows, missing = controlled_rows(golden), {}
    tables = side_tables(golden, table, rows)
    if len(rows) > 1:
        tables[PERMUTED_MAPS] = _permuted_maps_table(golden, answers, table, rows)
    else:
        missing[PERMUTED_MAPS] = "there is no other sample whose map could be taken"
    if golden.random is None:
        missing[RANDOM_WEIGHTS] = golden.random_absent
    return StoredControls("ran", tables, missing)


def side_tables(golden: GoldenSet, engine: ScoreTable, rows: npt.NDArray[np.intp]) -> dict[str, ScoreTable]:
    """The controls that need nothing of the engine but its answers, and so follow from what is stored.

    Args:
        golden: The golden set.
        engine: The scores of the engine's answers about all of it.
        rows: The samples that controls are scored on.
    """
    blind, random = ScoreBuilder(), ScoreBuilder()
    sizes = [(view.spec.height, view.spec.width) for view in golden.map_spec.views]
    for part, yardstick, _ in _parts(golden, engine, rows):
        blobs = tuple(MapStack(np.broadcast_to(centre_prior(*size), (len(part), *size))) for size in sizes)
        blind.add(yardstick, blobs, blobs)
        if part.random is not None:
            random.add(yardstick, *_random_views(part.random))
    tables = {CENTRE_PRIOR: blind.table(golden, engine.engine_class[rows], rows)}
    if golden.random is not None:
        tables[RANDOM_WEIGHTS] = random.table(golden, golden.random.classes[rows], rows)
    return tables


def _parts(
    golden: GoldenSet, engine: ScoreTable, rows: npt.NDArray[np.intp]
) -> Iterator[tuple[GoldenSet, Yardstick, slice]]:
    """The samples `rows`, some at a time, so that no more of them lie in memory: what of them there is, and which."""
    for start in range(0, len(rows), SCORED_AT_ONCE):
        places = slice(start, start + SCORED_AT_ONCE)
        part = golden.part(rows[places])
        yield part, Yardstick.of(part, 0, len(part), engine.part(rows[places])), places


def _random_views(random: RandomAnswers) -> tuple[Views, Views]:
    asked, own = ([maps[side].astype(np.float32) for maps in random.maps] for side in (0, 1))
    return asked, own


def _permuted_maps_table(
    golden: GoldenSet, answers: EngineAnswers, table: ScoreTable, rows: npt.NDArray[np.intp]
) -> ScoreTable:
    source = rows[other_samples(golden.teacher_class[rows], _SEED)]
    builder = ScoreBuilder()
    maps, own = (answers.maps, *answers.further), (answers.own_maps, *answers.own_further)
    for _, yardstick, places in _parts(golden, table, rows):
        builder.add(yardstick, [one[source[places]] for one in maps], [one[source[places]] for one in own])
        release(*maps, *own)
    return builder.table(golden, table.engine_class[rows], rows)


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
