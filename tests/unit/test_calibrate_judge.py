"""Which images judge, and what the judge says of candidates."""

from __future__ import annotations

import numpy as np
import pytest
from explained_graphs import GRAPHS, ArrayImages, random_images
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edgekit.calibrate.attribution.image_split import KeptImages, split_images
from edgekit.calibrate.attribution.judge import Judge
from edgekit.calibrate.calibrator import CALIBRATORS, CalibrationContext
from edgekit.calibrate.drift import drift_of
from edgekit.calibrate.formats import Range, number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import answers_of, float_answers
from edgekit.calibrate.solution import Solution
from edgekit.calibrate.stage import quantise_graph
from edgekit.errors import BadInputError

FMT = number_format("x86-u8s8")


def context(images: ArrayImages, name: str = "residual") -> CalibrationContext:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where="test")
    return CalibrationContext(graph, place(graph, FMT), FMT, images, CalibrateOptions(method="minmax"))


def solved(made: CalibrationContext, method: str = "minmax") -> Solution:
    return CALIBRATORS.load(method)(made.options).solve(made)


def narrowed(solution: Solution, share: float) -> Solution:
    return Solution({name: Range(item.low * share, item.high * share) for name, item in solution.ranges.items()})


@given(st.integers(1, 400), st.integers(1, 64), st.integers(1, 64))
def test_images_are_parted(count: int, training: int, judging: int) -> None:
    split = split_images(count, training, judging)
    for chosen in (split.training, split.judging):
        assert list(chosen) == sorted(set(chosen))
        assert 0 <= chosen[0] <= chosen[-1] < count
    assert split == split_images(count, training, judging)
    assert split.apart == (count >= 16)
    if split.apart:
        assert not set(split.training) & set(split.judging)
        assert len(split.judging) == min(judging, count // 2)
        assert len(split.training) == min(training, count - len(split.judging))
    else:
        assert split.training == split.judging
        assert len(split.training) == min(count, max(training, judging))


def test_chosen_images_lie_all_over_the_set_and_in_most_classes_of_a_set_ordered_by_turns() -> None:
    split = split_images(320)
    for chosen in (split.training, split.judging):
        assert max(np.diff(chosen)) < 30
        assert len({position % 10 for position in chosen}) >= 8


def test_kept_images_are_those_of_the_set() -> None:
    images = random_images(20)
    kept = KeptImages(images, (3, 11, 19), (3, 16, 16))
    streamed = np.concatenate(list(kept.batches(6)))
    np.testing.assert_array_equal(streamed, images.pixels)
    held = kept.held((3, 19))
    np.testing.assert_array_equal(held.pixels, images.pixels[[3, 19]])
    assert held.digests == (images.digests[3], images.digests[19])
    assert [len(batch) for batch in held.batches(1)] == [1, 1]
    assert images.passes == 1


def test_a_set_of_fewer_images_than_it_says_is_refused() -> None:
    class Short(ArrayImages):
        @property
        def digests(self) -> tuple[str, ...]:
            return (*super().digests, "missing")

    with pytest.raises(BadInputError, match="another number"):
        KeptImages(Short(random_images(4).pixels), (1, 4), (3, 16, 16)).held((1, 4))


def test_the_judge_runs_what_the_stage_writes_on_images_it_set_apart() -> None:
    images = random_images(20)
    made = context(images)
    judge = Judge(made)
    held = images.pixels[list(split_images(20).judging)]
    np.testing.assert_array_equal(judge.images.pixels, held)
    written = quantise_graph(made.graph, images, FMT, made.options).model
    reference = float_answers(made.graph, held)
    expected = drift_of(reference, answers_of(written, held, reference.classes))
    assert judge.drift(solved(made)) == expected
    assert 0 < expected.cosine < 0.01


def test_the_candidate_that_drifts_least_wins_and_ties_go_to_the_first() -> None:
    made = context(random_images(20))
    judge = Judge(made)
    good = solved(made)
    bad, worse = narrowed(good, 0.3), narrowed(good, 0.1)
    name, drifts = judge.best({"worse": worse, "good": good, "bad": bad})
    assert name == "good"
    assert drifts["good"].cosine < drifts["bad"].cosine < drifts["worse"].cosine
    assert judge.best({"first": good, "second": good})[0] == "first"


def test_a_margin_keeps_the_first_unless_another_is_better_by_it() -> None:
    made = context(random_images(20))
    judge = Judge(made)
    good = solved(made)
    bad = narrowed(good, 0.3)
    assert judge.best({"bad": bad, "good": good}, margin=0.05)[0] == "good"
    assert judge.best({"bad": bad, "good": good}, margin=0.999)[0] == "bad"


@pytest.mark.parametrize("count", [1, 3])
def test_with_few_images_the_same_ones_judge(count: int) -> None:
    images = random_images(count)
    judge = Judge(context(images))
    np.testing.assert_array_equal(judge.images.pixels, images.pixels)
    assert judge.drift(solved(judge.context)).cosine > 0


def test_where_all_maps_are_zero_nothing_drifts() -> None:
    model = GRAPHS["residual"]()
    head = next(node for node in model.graph.node if node.op_type == "MatMul").input[1]
    for tensor in model.graph.initializer:
        if tensor.name == head:
            tensor.CopyFrom(numpy_helper.from_array(0 * numpy_helper.to_array(tensor), tensor.name))
    graph = parse_graph(model.SerializeToString(), where="test")
    images = random_images(4)
    made = CalibrationContext(graph, place(graph, FMT), FMT, images, CalibrateOptions(method="minmax"))
    drift = Judge(made).drift(solved(made))
    assert (drift.cosine, drift.spearman, drift.iou) == (0, 0, 0)
    assert drift.logits > 0


def test_answers_that_are_not_finite_are_refused() -> None:
    images = random_images(4)
    made = context(images)
    images.pixels[:] = np.inf
    with pytest.raises(BadInputError, match="not finite"):
        _ = Judge(made).reference
