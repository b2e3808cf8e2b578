"""An engine's answers to a golden set: every sample asked twice, in order, and never in other shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from faulty import FaultyRunner, on_logits, on_maps
from tiny_golden import GRAPH, tiny_golden

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
