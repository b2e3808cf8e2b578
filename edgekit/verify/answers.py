"""The engine's answers to a golden set, in batches, so that memory holds a few batches and never the whole.

Two maps are compared with the teacher's: the engine's map of the TEACHER's answer, and that of its own. Where both
answer alike they are one map by definition, so the engine is asked for the teacher's answer only where it differs.
By definition is not by proof: one batch in every so many, and the first, is asked both ways, and where the two maps of
one class part by more than rounding, every sample is asked both ways from the start. An engine that takes a class for
its neighbour is caught so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import OWN_CLASS
from edgekit.bundle.golden import GoldenSet, explained_classes
from edgekit.core.mapped import release, scratch_array
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.protocol import EngineOutput, Runner
from edgekit.errors import IntegrityError
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess

__all__ = ["ANSWERED_AT_ONCE", "EngineAnswers", "Taken", "answer_golden"]

_BATCH = 16
ANSWERED_AT_ONCE = 16 * _BATCH
"""Samples that are answered before they are handed on: enough for those that are asked again to fill a batch."""

# The first batch of every so many times `ANSWERED_AT_ONCE` samples is asked both ways.
_AUDITED = 4
# Share of a map's largest magnitude by which one class's two maps may differ: a runtime may choose another kernel for a
# batch of another size, and half precision keeps three digits.
_ROUNDING = 4e-3

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EngineAnswers:
    """What an engine said about every golden sample.

    Attributes:
        logits: float32 [N, classes].
        maps: float32 [N, h, w], the engine's map of the TEACHER's top-1, so that a flipped prediction and a moved map
            are told apart.
        own_maps: float32 [N, h, w], the engine's map of its own top-1, as it explains itself when deployed.
        further: The engine's other maps of the teacher's classes, float32 [N, h, w] each, in the order of the golden
            set's.
        own_further: The same of the engine's own answers.
        asked_both_ways: Samples for which the engine was asked for the teacher's answer and for its own; for the others
            the two are one class. None where nothing was asked.
    """

    logits: npt.NDArray[np.float32]
    maps: Maps
    own_maps: Maps
    further: tuple[Maps, ...] = ()
    own_further: tuple[Maps, ...] = ()
    asked_both_ways: int | None = None

    def part(self, rows: npt.NDArray[np.intp]) -> EngineAnswers:
        """The answers about some samples, by index."""
        part = EngineAnswers(
            logits=self.logits[rows],
            maps=self.maps[rows],
            own_maps=self.own_maps[rows],
            further=tuple(maps[rows] for maps in self.further),
            own_further=tuple(maps[rows] for maps in self.own_further),
        )
        release(self.logits, self.maps, *self.further)
        return part

    @classmethod
    def joined(cls, parts: Sequence[EngineAnswers]) -> EngineAnswers:
        """The answers about some samples after one another; at least one part."""

        def views(name: str) -> tuple[Maps, ...]:
            return tuple(np.concatenate(maps) for maps in zip(*(getattr(part, name) for part in parts), strict=True))

        return cls(
            logits=np.concatenate([part.logits for part in parts]),
            maps=np.concatenate([part.maps for part in parts]),
            own_maps=np.concatenate([part.own_maps for part in parts]),
            further=views("further"),
            own_further=views("own_further"),
            asked_both_ways=sum(part.asked_both_ways or 0 for part in parts),
        )


# Told of the answers as they come, in order: first sample of those, their maps and their own maps, view by view. A
# start of 0 begins anew.
Taken = Callable[[int, Sequence[Maps], Sequence[Maps]], None]


class _MapsPartedError(Exception):
    """One class has two maps: what is asked for cannot be relied on, so all of it is asked for."""


def answer_golden(
    runner: Runner,
    golden: GoldenSet,
    observer: Observer = NULL_OBSERVER,
    *,
    spec: InputSpec | None = None,
    taken: Taken | None = None,
    audited: bool = True,
) -> EngineAnswers:
    """Run an engine over a golden set.

    Many answers lie in temporary files and not in memory; `edgekit.core.mapped.release` hands back what was used.

    Args:
        runner: The opened engine.
        golden: Inputs and the teacher's classes.
        observer: Told about progress.
        spec: How to prepare the pixels; the card's unless a diagnosis asks what another preparation would give.
        taken: Told of the answers part by part, before the engine works on the next.
        audited: Whether some samples are asked both ways, to see that a class has one map; False where this engine has
            shown it before.

    Raises:
        IntegrityError: The engine's outputs have other shapes than the teacher's.
    """
    questions = _Questions(runner, golden, spec or golden.card.input, observer, taken, audited)
    try:
        return questions.answered(both_ways=False)
    except _MapsPartedError:
        return questions.answered(both_ways=True)


class _Store:
    """Every answer, in arrays that are filled part by part."""

    def __init__(self, golden: GoldenSet) -> None:
        sizes = [(view.spec.height, view.spec.width) for view in golden.map_spec.views]
        self.logits = scratch_array(np.dtype(np.float32), golden.logits.shape)
        self.maps = [scratch_array(np.dtype(np.float32), (2, len(golden), *size)) for size in sizes]

    def finished(self, asked_both_ways: int) -> EngineAnswers:
        release(*self.maps)
        return EngineAnswers(
            logits=self.logits,
            maps=self.maps[0][0],
            own_maps=self.maps[0][1],
            further=tuple(maps[0] for maps in self.maps[1:]),
            own_further=tuple(maps[1] for maps in self.maps[1:]),
            asked_both_ways=asked_both_ways,
        )


@dataclass(frozen=True)
class _Questions:
    """One engine, asked about one golden set."""

    runner: Runner
    golden: GoldenSet
    spec: InputSpec
    observer: Observer
    taken: Taken | None
    audited: bool

    def answered(self, *, both_ways: bool) -> EngineAnswers:
        golden, store, twice = self.golden, _Store(self.golden), 0
        wanted = golden.explained_classes
        with ThreadPoolExecutor(1) as preparing:
            batches = self._prepared(preparing)
            for start in range(0, len(golden), ANSWERED_AT_ONCE):
                stop = min(start + ANSWERED_AT_ONCE, len(golden))
                audited = both_ways or (self.audited and start % (_AUDITED * ANSWERED_AT_ONCE) == 0)
                twice += self._part(store, batches, wanted, slice(start, stop), audited, both_ways)
                # Not in a thread of its own: that was measured slower on two cores, where the engine's threads spin and
                # a hundred small steps of numpy wait for the interpreter's lock in turn.
                self._tell(store, start, stop)
        self.observer.advanced("golden samples", len(golden), len(golden))
        return store.finished(twice)

    def _prepared(self, preparing: ThreadPoolExecutor) -> Iterator[tuple[int, Maps]]:
        """Batch by batch, each prepared while the engine works on the one before."""
        starts = range(0, len(self.golden), _BATCH)
        ahead = preparing.submit(self._images, slice(0, _BATCH))
        for start in starts:
            images = ahead.result()
            if start + _BATCH < len(self.golden):
                ahead = preparing.submit(self._images, slice(start + _BATCH, start + 2 * _BATCH))
            yield start, images

    def _images(self, rows: slice | npt.NDArray[np.intp]) -> Maps:
        return preprocess(self.golden.pixels[rows], self.spec)

    def _part(
        self,
        store: _Store,
        batches: Iterator[tuple[int, Maps]],
        wanted: npt.NDArray[np.int32],
        rows: slice,
        audited: bool,
        both_ways: bool,
    ) -> int:
        """Answer some samples; returns how many of them were asked both ways."""
        again: list[npt.NDArray[np.intp]] = []
        twice, start = 0, rows.start
        while start < rows.stop:
            start, images = next(batches)
            self.observer.advanced("golden samples", start, len(self.golden))
            free = self._run(images, np.full(len(images), OWN_CLASS, dtype=np.int32))
            here = np.arange(start, start + len(images))
            store.logits[here] = free.logits
            _keep(store, 0, here, free)
            _keep(store, 1, here, free)
            same = _same_classes(free.logits, wanted[here], self.golden)
            if both_ways or (audited and start == rows.start):
                asked = self._run(images, _question(wanted[here]))
                if not both_ways and not _one_map(free, asked, same):
                    raise _MapsPartedError
                _keep(store, 0, here, asked)
                twice += len(here)
            else:
                again.append(here[~same])
            start += len(images)
        return twice + self._ask_again(store, wanted, again)

    def _ask_again(self, store: _Store, wanted: npt.NDArray[np.int32], again: list[npt.NDArray[np.intp]]) -> int:
        """Ask for the teacher's answers where the engine has others."""
        rows = np.concatenate(again) if again else np.empty(0, dtype=np.intp)
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            _keep(store, 0, part, self._run(self._images(part), _question(wanted[part])))
        return len(rows)

    def _run(self, images: Maps, classes: npt.NDArray[np.int32]) -> EngineOutput:
        output = self.runner.run(images, classes)
        _check_shapes(output, self.golden, len(images))
        return output

    def _tell(self, store: _Store, start: int, stop: int) -> None:
        golden = self.golden
        if self.taken is not None:
            self.taken(
                start, [maps[0, start:stop] for maps in store.maps], [maps[1, start:stop] for maps in store.maps]
            )
        masks = () if golden.masks is None else (golden.masks,)
        release(golden.pixels, golden.maps, *(item.maps for item in golden.further), *masks, *store.maps)


def _question(classes: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Classes [n, k] as a runner takes them."""
    return classes[:, 0] if classes.shape[1] == 1 else classes


def _keep(store: _Store, side: int, rows: npt.NDArray[np.intp], output: EngineOutput) -> None:
    for kept, maps in zip(store.maps, (output.attribution, *output.further), strict=True):
        kept[side, rows] = maps


def _same_classes(
    logits: npt.NDArray[np.float32], wanted: npt.NDArray[np.int32], golden: GoldenSet
) -> npt.NDArray[np.bool_]:
    """Where the engine explains the teacher's classes by itself, bool [n]: surely, so not where two logits are tied."""
    count = wanted.shape[1] + 1
    strongest = -np.sort(-logits, axis=1)[:, :count]
    sure = np.isfinite(logits).all(axis=1) & (np.diff(strongest, axis=1) < 0).all(axis=1)
    same: npt.NDArray[np.bool_] = sure & (explained_classes(logits, golden.map_spec) == wanted).all(axis=1)
    return same


def _one_map(free: EngineOutput, asked: EngineOutput, same: npt.NDArray[np.bool_]) -> bool:
    """Whether the maps of one class, asked for in two ways, are one map but for rounding."""
    pairs = zip((free.attribution, *free.further), (asked.attribution, *asked.further), strict=True)
    for own, other in pairs:
        a, b = own[same], other[same]
        finite = np.isfinite(a)
        if (finite != np.isfinite(b)).any():
            return False
        a, b = np.where(finite, a, 0), np.where(finite, b, 0)
        largest = np.abs(a).max(axis=(1, 2), initial=0, keepdims=True)
        if (np.abs(a - b) > _ROUNDING * largest).any():
            return False
    return True


def _check_shapes(output: EngineOutput, golden: GoldenSet, count: int) -> None:
    sizes = [(view.spec.height, view.spec.width) for view in golden.map_spec.views]
    expected = [(count, golden.logits.shape[1]), *((count, *size) for size in sizes)]
    found = [output.logits.shape, output.attribution.shape, *(maps.shape for maps in output.further)]
    if found != expected:
        raise IntegrityError(
            "The engine does not answer in the shapes of the golden set.",
            expected=f"logits {list(expected[0])}, attribution {', '.join(str(list(size)) for size in expected[1:])}",
            found=f"logits {list(found[0])}, attribution {', '.join(str(list(size)) for size in found[1:])}",
            hint="engine and golden set come from different builds",
        )
