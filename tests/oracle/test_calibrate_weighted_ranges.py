"""Ranges weighed by gradients against the sums they stand for, value by value and range by range."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from explained_graphs import GRAPHS, random_images
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgekit.calibrate.attribution.image_split import HeldImages
from edgekit.calibrate.attribution.weighted_ranges import (
    WeightedHistogram,
    least_drift_range,
    weighted_histograms,
)
from edgekit.calibrate.calibrator import CalibrationContext
from edgekit.calibrate.formats import (
    NUMBER_FORMATS,
    NumberFormat,
    Range,
    activation_params,
    fake_quantise,
    number_format,
)
from edgekit.calibrate.gradients.stream import GradientStream, TensorGradient
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.tensor_stats import TensorStats

ASYMMETRIC, SYMMETRIC, COARSE = (number_format(name) for name in ("x86-u8s8", "trt-s8s8", "x86-u4s4"))
FORMATS = (ASYMMETRIC, SYMMETRIC, COARSE)
Floats = npt.NDArray[np.float64]


def stats(low: float, high: float) -> TensorStats:
    return TensorStats("x", low, high, 1)


def gathered(low: float, high: float, *batches: tuple[npt.ArrayLike, npt.ArrayLike]) -> WeightedHistogram:
    """The histogram of one tensor from values [n, ...] and gradients [projections * n, ...]."""
    items = [
        {"x": TensorGradient(np.asarray(values, np.float32), np.asarray(gradient, np.float32))}
        for values, gradient in batches
    ]
    return weighted_histograms({"x": stats(low, high)}, iter(items))["x"]


def share_of_even_spread(found: WeightedHistogram, squares: Floats, counts: Floats) -> float:
    """The one share that explains every bin: weights = (1 - share) * squares + share * mean * counts."""
    even = counts * squares.sum() / counts.sum()
    difference = even - squares
    share = float(difference @ (found.weights - squares) / (difference @ difference))
    np.testing.assert_allclose(found.weights, squares + share * difference, rtol=1e-6, atol=1e-9 * squares.sum())
    return share


@st.composite
def observed(draw: st.DrawFn) -> tuple[list[int], npt.NDArray[np.float32], int]:
    """Bins in which values lie, and gradients [projections, values] of several sizes."""
    bins = draw(st.lists(st.integers(0, 1023), min_size=2, max_size=40))
    projections = draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    gradient = rng.normal(0, 1, (projections, len(bins))) * 10.0 ** rng.uniform(-3, 1, len(bins))
    return bins, gradient.astype(np.float32), projections


@given(observed(), st.sampled_from([0.25, 1.0, 64.0]))
@settings(deadline=None, max_examples=40)
def test_a_bin_weighs_what_its_values_weigh(case: tuple[list[int], npt.NDArray[np.float32], int], scale: float) -> None:
    bins, gradient, projections = case
    wanted = len(gathered(-scale, scale, ([[1.0]], [[1.0]])).weights)
    places = [number % wanted for number in bins]
    values = np.array([(place + 0.5) * 2 * scale / wanted - scale for place in places], np.float32)
    squares, counts = np.zeros(wanted), np.zeros(wanted)
    for position, place_ in enumerate(places):
        counts[place_] += 1
        for projection in range(projections):
            squares[place_] += float(gradient[projection, position]) ** 2
    assume(not np.allclose(squares / max(squares.sum(), 1e-30), counts / counts.sum()))
    found = gathered(-scale, scale, (values[None], gradient))
    assert 0 < share_of_even_spread(found, squares, counts) < 1
    # However they are spread, values matter together as much as their gradients say.
    assert found.weights.sum() == pytest.approx(squares.sum(), rel=1e-6)
    np.testing.assert_allclose(np.diff(found.edges), 2 * scale / wanted, rtol=1e-9)
    assert (found.edges[0], found.edges[-1]) == (-scale, scale)
    halves = np.array_split(np.arange(len(bins)), 2)
    parts = [(values[None, half], gradient[:, half]) for half in halves]
    np.testing.assert_allclose(gathered(-scale, scale, *parts).weights, found.weights, rtol=1e-6)


def test_zeros_have_no_error_and_no_weight() -> None:
    found = gathered(-1, 1, ([[0.0, 0.0, 0.5, -0.5]], [[100.0, 50.0, 1.0, 2.0]]))
    assert found.weights.sum() == pytest.approx(5)
    assert np.count_nonzero(found.weights) == 2


def test_a_value_whose_gradient_was_zero_by_chance_still_counts() -> None:
    found = gathered(0, 1, ([[0.25, 0.75]], [[0.0, 2.0]]))
    light, heavy = found.weights[found.weights > 0]
    assert 0 < light < heavy


def test_where_no_gradient_came_through_every_value_counts_alike() -> None:
    found = gathered(0, 1, ([[0.25, 0.25, 0.75, 0.0]], [[0.0, 0.0, 0.0, 0.0]]))
    few, many = sorted(found.weights[found.weights > 0])
    assert many == pytest.approx(2 * few)


def test_extremes_lie_in_the_outermost_bins() -> None:
    found = gathered(-2, 6, ([[-2.0, 6.0]], [[1.0, 3.0]]))
    assert set(np.flatnonzero(found.weights)) == {0, len(found.weights) - 1}


@pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("value", [0.0, 0.3, -2.0])
def test_tensors_of_one_value_get_a_range_that_holds_it(value: float, fmt: NumberFormat) -> None:
    found = gathered(value, value, ([[value, value]], [[1.0, 1.0]]))
    assert np.isfinite(found.edges).all()
    assert np.isfinite(found.weights).all()
    chosen = least_drift_range(found, fmt)
    params = activation_params(chosen, fmt)
    assert params.scale > 0
    rounded = fake_quantise(np.array([value], np.float32), params, fmt)
    assert rounded[0] == pytest.approx(value, abs=abs(value) * 0.01)


def test_batches_are_emptied_on_the_way() -> None:
    batch = {"x": TensorGradient(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32))}
    weighted_histograms({"x": stats(0, 1)}, iter([batch]))
    assert not batch


def slow_cost(histogram: WeightedHistogram, limits: Range, fmt: NumberFormat, samples: int = 24) -> float:
    """Weighted squared error of values that lie evenly in every bin, each of them rounded."""
    edges, weights = histogram.edges, histogram.weights
    steps = (np.arange(samples) + 0.5) / samples
    values = edges[:-1, None] + np.diff(edges)[:, None] * steps
    rounded = fake_quantise(values.astype(np.float32), activation_params(limits, fmt), fmt)
    return float((np.square(rounded - values) * weights[:, None]).sum() / samples)


def tried(limits: Range, fmt: NumberFormat, count: int = 40) -> list[Range]:
    """Ranges all over what the extremes allow, on a grid that is not the method's."""
    fractions = np.linspace(0.04, 1, count)
    if fmt.symmetric:
        ends = limits.amax * fractions
        return [Range(max(limits.low, -end), min(limits.high, end)) for end in ends]
    lows = limits.low * fractions if limits.low < 0 else [0.0]
    highs = limits.high * fractions if limits.high > 0 else [0.0]
    return [Range(low, high) for low, high in product(lows, highs)]


@st.composite
def histograms(draw: st.DrawFn) -> WeightedHistogram:
    """Mostly small values, few large ones, one-sided or not, weighed in any way that is not wild."""
    bins = 128
    low, high = draw(st.sampled_from([(0.0, 3.0), (-1.0, 2.0), (-2.0, 0.5), (-1.0, 1.0), (-4.0, 0.0)]))
    spread = draw(st.floats(0.05, 1.0))
    tail = draw(st.floats(0.0, 0.1))
    seed = draw(st.integers(0, 2**16))
    edges = np.linspace(low, high, bins + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    weights = np.exp(-np.abs(centres) / (spread * (high - low))) + tail
    weights *= np.random.default_rng(seed).uniform(0.2, 1.8, bins)
    return WeightedHistogram(Range(low, high), edges, weights)


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
@given(histograms())
@settings(deadline=None, max_examples=15)
def test_no_range_within_the_extremes_is_better_by_much(fmt: NumberFormat, histogram: WeightedHistogram) -> None:
    found = least_drift_range(histogram, fmt)
    limits = histogram.limits
    assert limits.low <= found.low <= 0 <= found.high <= limits.high
    cost = slow_cost(histogram, found, fmt)
    assert cost <= 1.01 * slow_cost(histogram, limits, fmt)
    assert cost <= 1.15 * min(slow_cost(histogram, item, fmt) for item in tried(limits, fmt))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_what_matters_little_is_cut_off_and_what_matters_is_kept(fmt: NumberFormat) -> None:
    edges = np.linspace(0, 1, 1025)
    weights = np.where(edges[:-1] < 0.25, 1.0, 0.0)
    weights[-1] = 1e-6
    narrow = least_drift_range(WeightedHistogram(Range(0, 1), edges, weights), fmt)
    assert 0.2 < narrow.high < 0.35
    weights[-1] = 1e3
    wide = least_drift_range(WeightedHistogram(Range(0, 1), edges, weights), fmt)
    assert wide.high > 0.95


@given(histograms(), st.integers(-20, 20), st.integers(-10, 10))
@settings(deadline=None, max_examples=15)
def test_units_of_values_and_of_weights_do_not_matter(histogram: WeightedHistogram, by: int, weight: int) -> None:
    scale = 2.0**by
    limits = Range(histogram.limits.low * scale, histogram.limits.high * scale)
    other = WeightedHistogram(limits, histogram.edges * scale, histogram.weights * 2.0**weight)
    for fmt in FORMATS:
        found, scaled = least_drift_range(histogram, fmt), least_drift_range(other, fmt)
        assert (scaled.low, scaled.high) == pytest.approx((found.low * scale, found.high * scale), rel=1e-9)


@pytest.mark.parametrize("name", ["residual", "gradient-head"])
def test_gradients_decide_and_not_only_how_values_are_spread(name: str) -> None:
    """A known fault: gradients handed to the wrong values make ranges that cost more where it counts."""
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where="test")
    images = random_images(8)
    made = CalibrationContext(graph, place(graph, COARSE), COARSE, images, CalibrateOptions(method="minmax"))
    wanted = made.placement.observed
    held = HeldImages(images.pixels, images.digests)

    def batches(*, shuffled: bool) -> list[dict[str, TensorGradient]]:
        rng = np.random.default_rng(0)
        found = list(GradientStream(graph, wanted, held, 8, 2).run())
        for batch in found if shuffled else ():
            for key, item in batch.items():
                mixed = rng.permutation(item.gradient.reshape(-1)).reshape(item.gradient.shape)
                batch[key] = TensorGradient(item.values, mixed)
        return found

    right = weighted_histograms(made.extremes, batches(shuffled=False))
    wrong = weighted_histograms(made.extremes, batches(shuffled=True))
    chosen, mistaken = (
        {key: least_drift_range(item, COARSE) for key, item in histograms_.items()} for histograms_ in (right, wrong)
    )
    assert chosen != mistaken

    def true_cost(ranges: dict[str, Range]) -> float:
        total = 0.0
        for batch in batches(shuffled=False):
            for key, item in batch.items():
                error = fake_quantise(item.values, activation_params(ranges[key], COARSE), COARSE) - item.values
                weighed = item.gradient.reshape(2, -1) * error.reshape(1, -1)
                total += float(np.square(weighed, dtype=np.float64).sum())
        return total

    assert true_cost(chosen) < true_cost(mistaken)
