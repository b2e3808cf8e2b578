"""An engine's answers to a golden set: asked as often as needed, in order, and never in other shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from faulty import FaultyRunner, on_logits, on_maps
from tiny_golden import GRAPH, tiny_golden

from edgekit.bundle.golden import GoldenSet
from edgekit.core.progress import NullObserver
from edgekit.engines.protocol import EngineInfo, EngineOptions, EngineOutput
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import IntegrityError
from edgekit.interface.preprocess import preprocess
from edgekit.verify.answers import answer_golden


class Echo:
    """Answers with what it was asked: the images' means as logits, the class as map."""

    def __init__(self) -> None:
        self.asked: list[np.ndarray] = []

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("echo", "test", "none")

    def run(self, images: np.ndarray, class_index: np.ndarray) -> EngineOutput:
        assert images.dtype == np.float32
        assert class_index.dtype == np.int32
        self.asked.append(class_index)
        logits = np.repeat(images.mean(axis=(1, 2, 3))[:, None], 4, axis=1).astype(np.float32)
        return EngineOutput(logits, np.broadcast_to(class_index[:, None, None], (len(images), 4, 4)).astype(np.float32))

    def close(self) -> None:
        pass


class Seen(NullObserver):
    def __init__(self) -> None:
        self.events: list[tuple[int, int | None]] = []

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        self.events.append((done, total))


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_every_sample_is_asked_for_the_teachers_class_and_for_its_own(count: int) -> None:
    golden, seen = tiny_golden(count), Seen()
    answers = answer_golden(Echo(), golden, seen)
    prepared = preprocess(golden.pixels, golden.card.input)
    np.testing.assert_array_equal(answers.logits[:, 0], prepared.mean(axis=(1, 2, 3)))
    np.testing.assert_array_equal(answers.maps[:, 0, 0], golden.teacher_class)
    np.testing.assert_array_equal(answers.own_maps, np.full((count, 4, 4), -1))
    assert seen.events[0] == (0, count)
    assert seen.events[-1] == (count, count)


def test_memory_holds_a_batch_of_input_at_a_time() -> None:
    echo = Echo()
    answer_golden(echo, tiny_golden(40))
    assert max(len(asked) for asked in echo.asked) == 16


def test_inputs_can_be_prepared_in_another_way() -> None:
    golden = tiny_golden(3)
    other = replace(golden.card.input, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    answers = answer_golden(Echo(), golden, spec=other)
    np.testing.assert_allclose(answers.logits[:, 0], golden.pixels.mean(axis=(1, 2, 3)) / 255, rtol=1e-5)


def test_the_stored_graph_answers_as_worked_out_on_paper() -> None:
    golden = tiny_golden(50)
    with REFERENCE.open(GRAPH, EngineOptions()) as runner:
        answers = answer_golden(runner, golden)
    np.testing.assert_allclose(answers.logits, golden.logits, atol=1e-6)
    np.testing.assert_allclose(answers.maps, golden.maps, atol=1e-6)
    np.testing.assert_array_equal(answers.maps, answers.own_maps)


@pytest.mark.parametrize(
    "after",
    [
        on_maps(lambda maps: maps[:, :3]),
        on_maps(lambda maps: maps[:, None]),
        on_maps(lambda maps: maps[:1]),
        on_logits(lambda logits: logits[:, :3]),
        on_logits(lambda logits: logits[:1]),
    ],
    ids=["other map", "map with a channel", "one map for all", "other classes", "one answer for all"],
)
def test_answers_in_other_shapes_are_of_another_build(after: object) -> None:
    assert callable(after)
    with REFERENCE.open(GRAPH, EngineOptions()) as runner, pytest.raises(IntegrityError, match="shapes") as caught:
        answer_golden(FaultyRunner(runner, after=after), tiny_golden(20))
    assert caught.value.expected == "logits [16, 4], attribution [16, 4, 4]"


def test_the_second_answer_is_checked_as_the_first() -> None:
    calls = []

    def every_second(output: EngineOutput) -> EngineOutput:
        calls.append(output)
        return output if len(calls) % 2 else EngineOutput(output.logits, output.attribution[:, :2])

    with REFERENCE.open(GRAPH, EngineOptions()) as runner, pytest.raises(IntegrityError):
        answer_golden(FaultyRunner(runner, after=every_second), tiny_golden(4))


class Watched:
    """An engine that remembers what it was asked; maps of classes that were named are doubled from a sample on."""

    def __init__(self, golden: GoldenSet, wrong: frozenset[int] = frozenset(), spoil_from: int | None = None) -> None:
        self._golden = golden
        self._wrong = wrong
        self._spoil_from = spoil_from
        self._places = {image.tobytes(): place for place, image in enumerate(preprocess_all(golden))}
        self.asked: list[tuple[list[int], list[int]]] = []

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("watched", "test", "none")

    def run(self, images: np.ndarray, class_index: np.ndarray) -> EngineOutput:
        places = [self._places[image.tobytes()] for image in images]
        self.asked.append((places, class_index.tolist()))
        logits = self._golden.logits[places].copy()
        for row, place in enumerate(places):
            if place in self._wrong:
                logits[row] = np.roll(logits[row], 1)
        own = logits.argmax(axis=1)
        chosen = np.where(class_index == -1, own, class_index)
        maps = (1 + chosen[:, None, None] + np.array(places)[:, None, None]) * np.ones((1, 4, 4))
        free = (class_index == -1).all()
        if not free and self._spoil_from is not None and places[0] >= self._spoil_from:
            maps = maps * 2
        return EngineOutput(logits, maps.astype(np.float32))

    def close(self) -> None:
        pass


def preprocess_all(golden: GoldenSet) -> np.ndarray:
    return preprocess(golden.pixels, golden.card.input)


@pytest.mark.parametrize("wrong", [frozenset(), frozenset({3}), frozenset(range(40, 80)), frozenset(range(300))])
def test_the_teachers_class_is_asked_for_only_where_the_engine_answers_another(wrong: frozenset[int]) -> None:
    golden = tiny_golden(300)
    engine = Watched(golden, wrong)
    answers = answer_golden(engine, golden)  # type: ignore[arg-type]
    places = np.arange(300)
    np.testing.assert_array_equal(answers.maps[:, 0, 0], 1 + golden.teacher_class + places)
    np.testing.assert_array_equal(answers.own_maps[:, 0, 0], 1 + answers.logits.argmax(axis=1) + places)
    twice = set(range(16)) | wrong
    assert answers.asked_both_ways == len(twice)
    asked = [place for places, classes in engine.asked if -1 not in classes for place in places]
    assert sorted(asked) == sorted(twice)
    free = [place for places, classes in engine.asked if -1 in classes for place in places]
    assert free == list(range(300)), "each for its own answer once, in order"


def test_maps_that_part_anywhere_it_is_looked_are_asked_for_both_ways_everywhere() -> None:
    """The first batch is sound and a later one is not: the audit in between finds it."""
    golden = tiny_golden(1100)
    engine = Watched(golden, spoil_from=1008)
    starts: list[int] = []
    answers = answer_golden(engine, golden, taken=lambda start, _maps, _own: starts.append(start))  # type: ignore[arg-type]
    assert answers.asked_both_ways == 1100
    assert (answers.maps[1008:] != answers.own_maps[1008:]).all()
    # Whoever was told of the answers is told again from the start.
    assert starts.count(0) == 2
    assert starts[-5:] == [0, 256, 512, 768, 1024]


def test_tied_answers_are_no_certain_ones() -> None:
    golden = tiny_golden(40)
    tied = replace(golden, logits=np.zeros_like(golden.logits))
    engine = Watched(tied)
    assert answer_golden(engine, tied).asked_both_ways == 40  # type: ignore[arg-type]


def test_answers_are_told_of_part_by_part_as_they_are_kept() -> None:
    golden = tiny_golden(600)
    told: list[np.ndarray] = []
    answers = answer_golden(
        Watched(golden, frozenset({5, 590})),  # type: ignore[arg-type]
        golden,
        taken=lambda _start, maps, own: told.append(np.stack([maps[0], own[0]])),
    )
    np.testing.assert_array_equal(np.concatenate(told, axis=1), np.stack([answers.maps, answers.own_maps]))


def test_what_goes_wrong_in_the_telling_is_not_lost() -> None:
    def fails(_start: int, _maps: object, _own: object) -> None:
        raise IntegrityError("broken")

    with pytest.raises(IntegrityError, match="broken"):
        answer_golden(Watched(tiny_golden(20)), tiny_golden(20), taken=fails)  # type: ignore[arg-type]
