"""The workbench of the attribution-aware methods: which images it holds, and the graphs it works on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from attribution_solutions import RAW, context_of, photographs
from explained_graphs import GRAPHS, ArrayImages, random_images
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.calibrate.adjustments import NO_ADJUSTMENTS, Adjustments, ChannelFactors
from edgekit.calibrate.attribution.image_split import HeldImages
from edgekit.calibrate.attribution.workbench import Workbench
from edgekit.calibrate.formats import NUMBER_FORMATS, NumberFormat, activation_params, fake_quantise, number_format
from edgekit.calibrate.graph import IMAGE, PIXELS, parse_graph
from edgekit.calibrate.input_grid import grid_problem
from edgekit.calibrate.minmax import MinMaxCalibrator
from edgekit.calibrate.mse import MseCalibrator
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import answers_of
from edgekit.errors import IntegrityError


def positions(images: ArrayImages, held: npt.NDArray[np.float32]) -> list[int]:
    return [next(at for at, image in enumerate(images.pixels) if np.array_equal(image, one)) for one in held]


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None, max_examples=20)
def test_what_teaches_does_not_judge_and_one_pass_serves_all(count: int, training: int, judging: int) -> None:
    images = random_images(count)
    bench = Workbench(context_of("flattened", images), training, judging)
    taught, judged = bench.training, bench.judging
    at = positions(images, taught.pixels), positions(images, judged.pixels)
    assert (tuple(at[0]), tuple(at[1])) == (bench.split.training, bench.split.judging)
    assert taught.digests == tuple(images.digests[position] for position in at[0])
    assert bench.split.apart == (not set(at[0]) & set(at[1]))
    assert bench.split.apart == (count >= 16)
    assert images.passes == 1


def test_images_are_kept_while_extremes_are_taken() -> None:
    images = photographs(24)
    bench = Workbench(context_of("residual", images), 8, 8)
    assert set(bench.context.extremes) == set(bench.context.placement.observed)
    assert (len(bench.training.pixels), len(bench.judging.pixels)) == (8, 8)
    solution = bench.view().streamed(MinMaxCalibrator())
    assert images.passes == 1
    # All images count for the extremes, not only those that are kept.
    assert solution.ranges[IMAGE].high == pytest.approx(float(images.pixels.max()))
    assert solution.ranges[IMAGE].low == pytest.approx(float(images.pixels.min()))
    # Gradients are taken on images that are held.
    bench.view().weighted()
    assert images.passes == 1


def test_a_view_of_nothing_adjusted_is_the_graph_itself() -> None:
    bench = Workbench(context_of("residual", photographs(4)), 8, 8)
    view = bench.view()
    assert view.context is bench.context
    assert view.adjustments is NO_ADJUSTMENTS
    assert not view.fixed


GRIDDED = [name for name in GRAPHS if grid_problem(parse_graph(GRAPHS[name]().SerializeToString(), where=name)) is None]


def test_most_graphs_can_have_their_images_rounded_on_their_own_grid() -> None:
    assert len(GRIDDED) >= len(GRAPHS) - 2


@pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("name", GRIDDED)
def test_on_its_own_grid_the_graph_computes_the_same_and_no_pixel_is_rounded(name: str, fmt: NumberFormat) -> None:
    images = photographs(5)
    made = context_of(name, images)
    made = replace(made, number_format=fmt, placement=place(made.graph, fmt))
    bench = Workbench(made, 8, 8)
    assert bench.grid is not None
    view = bench.view(Adjustments(input_grid=bench.grid))
    before, after = (answers_of(graph.model, images.pixels, None) for graph in (made.graph, view.context.graph))
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(before.maps, after.maps, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-4 * float(np.abs(ours).max()))
    assert set(view.fixed) == {PIXELS}
    assert PIXELS in view.context.placement.observed
    assert IMAGE not in view.context.placement.observed
    params = activation_params(view.fixed[PIXELS], fmt)
    grey = np.arange(256, dtype=np.float32) - (128 if fmt.symmetric else 0)
    np.testing.assert_array_equal(fake_quantise(grey, params, fmt), grey)


@pytest.mark.parametrize("way", ["streamed", "weighted"])
def test_what_is_known_of_a_tensor_is_not_searched(way: str) -> None:
    bench = Workbench(context_of("residual", photographs(6)), 8, 8)
    assert bench.grid is not None
    view = bench.view(Adjustments(input_grid=bench.grid))
    solution = view.streamed(MseCalibrator(256)) if way == "streamed" else view.weighted()
    assert set(solution.ranges) == set(view.context.placement.observed)
    assert solution.ranges[PIXELS] == view.fixed[PIXELS]
    assert solution.adjustments == view.adjustments


def test_raw_pixels_have_a_known_range_without_a_change_of_the_graph() -> None:
    images = photographs(6, RAW)
    # Dark ones: by what is seen the range would be narrower.
    images.pixels *= np.float32(0.5)
    bench = Workbench(context_of("residual", images, input=RAW), 8, 8)
    assert bench.grid is None
    view = bench.view()
    assert (view.fixed[IMAGE].low, view.fixed[IMAGE].high) == (0, 255)
    for solution in (view.streamed(MinMaxCalibrator()), view.weighted()):
        assert solution.ranges[IMAGE] == view.fixed[IMAGE]
        assert not solution.adjustments


@pytest.mark.parametrize(
    "changes",
    [
        {"input": None},
        {"options": CalibrateOptions(method="attribution", adjust=False)},
        {"number_format": number_format("x86-u4s4")},
    ],
    ids=["nothing known of the input", "not allowed", "fewer levels than a pixel"],
)
def test_there_is_no_grid(changes: dict[str, object]) -> None:
    made = context_of("residual", photographs(4), **changes)
    bench = Workbench(replace(made, placement=place(made.graph, made.number_format)), 8, 8)
    assert bench.grid is None
    assert not bench.view().fixed


@pytest.mark.parametrize("name", GRAPHS)
def test_weighted_ranges_lie_within_the_extremes(name: str) -> None:
    bench = Workbench(context_of(name, random_images(6), input=None), 8, 8)
    view = bench.view()
    found = view.weighted()
    assert set(found.ranges) == set(view.context.placement.observed)
    for key, limits in found.ranges.items():
        stats = view.context.extremes[key].extremes
        assert stats.low <= limits.low <= 0 <= limits.high <= stats.high


def test_a_change_that_does_not_fit_is_refused() -> None:
    bench = Workbench(context_of("residual", photographs(4)), 8, 8)
    with pytest.raises(IntegrityError, match="does not fit"):
        bench.view(Adjustments(factors=(ChannelFactors("no such weight", 0, (1.0,)),)))


@pytest.mark.parametrize(("count", "draws"), [(1, 5), (64, 5), (100, 3), (128, 2), (400, 1)])
def test_jittered_images_are_the_images_and_their_neighbours(count: int, draws: int) -> None:
    held = HeldImages(random_images(count).pixels, tuple(str(number) for number in range(count)))
    moved = held.jittered()
    assert moved.pixels.shape == (count * draws, *held.pixels.shape[1:])
    assert moved.digests == held.digests * draws
    assert np.array_equal(moved.pixels[:count], held.pixels)
    for start in range(count, count * draws, count):
        block = moved.pixels[start : start + count]
        shifts = [np.roll(held.pixels, (rows, columns), (2, 3)) for rows, columns in ((0, 1), (0, -1), (1, 0), (-1, 0))]
        inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
        assert sum(np.array_equal(block[inside], shifted[inside]) for shifted in shifts) == 1
