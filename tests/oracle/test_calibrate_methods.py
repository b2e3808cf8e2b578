"""Range searches against second implementations: ONNX Runtime's entropy, exact fractions, plain definitions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from onnxruntime.quantization import calibrate as runtime_calibration

from edgekit.calibrate.entropy import EntropyCalibrator, divergences
from edgekit.calibrate.formats import NUMBER_FORMATS, NumberFormat, Range, activation_params, fake_quantise
from edgekit.calibrate.mse import MseCalibrator, candidate_ranges, expected_squared_error
from edgekit.calibrate.observers import ExtremesObserver, HistogramObserver
from edgekit.calibrate.percentile import PercentileCalibrator
from edgekit.calibrate.tensor_stats import Histogram, TensorStats

FORMATS = pytest.mark.parametrize("fmt", NUMBER_FORMATS.values(), ids=lambda fmt: fmt.name)
KINDS = ("normal", "relu", "negative", "laplace", "outlier", "two-values", "relu6")


def sample(kind: str, count: int = 4000, seed: int = 0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(0.3, 1, count),
        "relu": lambda: np.maximum(rng.normal(0, 1, count), 0),
        "negative": lambda: -np.abs(rng.normal(0, 1, count)),
        "laplace": lambda: rng.laplace(0, 0.7, count),
        "outlier": lambda: np.append(rng.normal(0, 1, count), 60.0),
        "two-values": lambda: rng.choice([-1.0, 2.0], count),
        "relu6": lambda: np.clip(rng.normal(2, 3, count), 0, 6),
    }
    return values[kind]().astype(np.float32)


def stats_of(values: npt.NDArray[np.float32], bins: int, *, centred: bool = False) -> TensorStats:
    extremes = ExtremesObserver("t")
    extremes.update(values)
    histogram = HistogramObserver(extremes.result(), bins, centred=centred)
    histogram.update(values)
    return histogram.result()


# Entropy


def runtime_threshold(stats: TensorStats, levels: int) -> Range:
    """What ONNX Runtime's calibration finds on the same histogram."""
    collector = runtime_calibration.HistogramCollector(
        "entropy", False, len(stats.histogram.counts), levels, 99.99, "all"
    )
    histogram = stats.histogram
    low, high = collector.get_entropy_threshold(
        (
            histogram.with_zeros(),
            histogram.edges,
            np.float64(stats.low),
            np.float64(stats.high),
            max(-stats.low, stats.high),
        ),
        levels,
    )
    return Range(float(low), float(high))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bins", "levels"), [(256, 64), (257, 128), (512, 256), (400, 255)])
def test_entropy_is_that_of_onnx_runtime(kind: str, bins: int, levels: int) -> None:
    stats = stats_of(sample(kind, seed=bins + levels), bins, centred=True)
    found = EntropyCalibrator(bins, levels).choose_range(stats, NUMBER_FORMATS["x86-u8s8"])
    assert found == runtime_threshold(stats, levels)


@pytest.mark.parametrize("kind", ["normal", "relu", "outlier"])
@pytest.mark.parametrize(("bins", "levels"), [(256, 64), (257, 100), (300, 255)])
def test_every_divergence_is_that_of_onnx_runtime(
    kind: str, bins: int, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats = stats_of(sample(kind, 800), bins, centred=True)
    theirs: list[float] = []

    def recorded(p: npt.NDArray[np.float32], q: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        theirs.append(float(plain(p, q)))
        return plain(p, q)

    plain = runtime_calibration.entropy
    monkeypatch.setattr(runtime_calibration, "entropy", recorded)
    runtime_threshold(stats, levels)
    ours = divergences(stats.histogram.with_zeros(), levels)
    # The runtime does not ask where a distribution is empty.
    assert theirs == ours[np.isfinite(ours)].tolist()
    assert len(theirs) > 10


def test_entropy_by_hand() -> None:
    # Of eight bins with four levels the candidates reach 5, 7 and 8 bins. Mass at both ends: the widest loses none.
    counts = np.array([100, 0, 0, 1, 1, 0, 0, 100], dtype=np.int64)
    found = divergences(counts, 4)
    assert len(found) == 3
    assert np.argmin(found) == 2


# MSE


def exact_error(histogram: Histogram, limits: Range, fmt: NumberFormat) -> Fraction:
    """The same integral in exact fractions, cell by cell of the quantisation grid."""
    params = activation_params(limits, fmt)
    scale = Fraction(params.scale)
    lowest, highest = fmt.qmin - params.zero_point, fmt.qmax - params.zero_point
    edges = [Fraction(float(edge)) for edge in histogram.edges]
    total = Fraction(0)
    for count, left, right in zip(histogram.counts, edges[:-1], edges[1:], strict=True):
        if count == 0:
            continue
        first = max(lowest, min(highest, round(left / scale) - 1))
        last = max(lowest, min(highest, round(right / scale) + 1))
        density = Fraction(int(count)) / (right - left)
        for level in range(first, last + 1):
            start = left if level == lowest else max(left, (level - Fraction(1, 2)) * scale)
            end = right if level == highest else min(right, (level + Fraction(1, 2)) * scale)
            if start < end:
                total += density * ((end - level * scale) ** 3 - (start - level * scale) ** 3) / 3
    return total / histogram.total


@FORMATS
@pytest.mark.parametrize("kind", ["normal", "relu", "outlier"])
@pytest.mark.parametrize("shrink", [1.0, 0.4, 0.05])
def test_the_expected_error_is_the_integral(fmt: NumberFormat, kind: str, shrink: float) -> None:
    stats = stats_of(sample(kind, 500), 24)
    limits = Range(stats.low * shrink, stats.high * shrink)
    exact = float(exact_error(stats.histogram, limits, fmt))
    assert expected_squared_error(stats.histogram, limits, fmt) == pytest.approx(exact, rel=1e-9)


@FORMATS
@pytest.mark.parametrize("kind", KINDS)
def test_mse_finds_what_trying_everything_finds(fmt: NumberFormat, kind: str) -> None:
    stats = stats_of(sample(kind, 400), 20)
    tried = {limits: exact_error(stats.histogram, limits, fmt) for limits in candidate_ranges(stats, fmt, 10)}
    found = MseCalibrator(20, 10).choose_range(stats, fmt)
    assert float(tried[found]) <= float(min(tried.values())) * (1 + 1e-9)


@FORMATS
def test_mse_clips_what_is_rare_and_far(fmt: NumberFormat) -> None:
    counts = np.zeros(40, dtype=np.int64)
    counts[18:22], counts[39] = 10**7, 1
    stats = TensorStats("t", -10.0, 10.0, int(counts.sum()), Histogram(-10.0, 10.0, counts, 0))
    tried = {limits: exact_error(stats.histogram, limits, fmt) for limits in candidate_ranges(stats, fmt, 20)}
    found = MseCalibrator(40, 20).choose_range(stats, fmt)
    assert float(tried[found]) <= float(min(tried.values())) * (1 + 1e-9)
    assert tried[found] < tried[stats.extremes]
    assert found.amax < 2


@FORMATS
@pytest.mark.parametrize("kind", ["normal", "relu", "laplace", "relu6"])
def test_the_expected_error_is_the_one_that_happens(fmt: NumberFormat, kind: str) -> None:
    values = sample(kind, 60000)
    stats = stats_of(values, 4096)
    for shrink in (1.0, 0.5):
        limits = Range(stats.low * shrink, stats.high * shrink)
        real = np.mean((fake_quantise(values, activation_params(limits, fmt), fmt).astype(np.float64) - values) ** 2)
        # ReLU6 piles values up at six; spread over a bin they count as slightly clipped where six itself is.
        assert expected_squared_error(stats.histogram, limits, fmt) == pytest.approx(real, rel=0.05, abs=1e-7)


def test_the_candidates_hold_the_extremes_and_end_at_a_fraction_of_them() -> None:
    stats = stats_of(sample("normal"), 64)
    asymmetric = candidate_ranges(stats, NUMBER_FORMATS["x86-u8s8"], 8)
    assert asymmetric[0] == stats.extremes
    assert len(asymmetric) == 16
    assert asymmetric[-1] == Range(stats.low / 4, stats.high / 4)
    symmetric = candidate_ranges(stats, NUMBER_FORMATS["trt-s8s8"], 8)
    assert symmetric[0] == stats.extremes
    assert symmetric[-1].amax == stats.extremes.amax / 8


@pytest.mark.parametrize("kind", KINDS)
@FORMATS
def test_mse_is_never_worse_than_clipping_nothing(fmt: NumberFormat, kind: str) -> None:
    stats = stats_of(sample(kind), 512)
    found = MseCalibrator(512).choose_range(stats, fmt)
    assert expected_squared_error(stats.histogram, found, fmt) <= expected_squared_error(
        stats.histogram, stats.extremes, fmt
    )


# Percentile


def kept(values: npt.NDArray[np.float32], limits: Range) -> float:
    # Edges are float64 and values float32: a value on an edge is inside.
    slack = 1e-6 * limits.amax
    return float(np.mean((values >= limits.low - slack) & (values <= limits.high + slack)))


@FORMATS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [100.0, 99.9, 99.0, 90.0])
def test_percentile_keeps_the_share_and_no_bin_more(fmt: NumberFormat, kind: str, percentile: float) -> None:
    values, bins = sample(kind), 128
    stats = stats_of(values, bins)
    found = PercentileCalibrator(percentile, bins).choose_range(stats, fmt)
    assert kept(values, found) >= percentile / 100 - 1e-12
    width = (stats.histogram.high - stats.histogram.low) / bins
    share = (100 - percentile) / 100
    two_sided = stats.low < 0 < stats.high
    if two_sided and fmt.symmetric:
        tighter = found.amax - 1.5 * width
        assert np.mean(np.abs(values) > tighter) > share
        return
    allowed = share / 2 if two_sided else share
    if found.high > 0:
        assert np.mean(values > found.high - 1.5 * width) > allowed
    if found.low < 0:
        assert np.mean(values < found.low + 1.5 * width) > allowed


@FORMATS
def test_everything_is_kept_at_one_hundred_percent(fmt: NumberFormat) -> None:
    stats = stats_of(sample("laplace"), 300)
    assert PercentileCalibrator(100.0, 300).choose_range(stats, fmt) == stats.extremes


def test_percentile_by_hand() -> None:
    # 100 values: ninety in the first of ten bins, one in each other and one more in the last.
    histogram = Histogram(0.0, 10.0, np.array([90, 1, 1, 1, 1, 1, 1, 1, 1, 2], dtype=np.int64), 0)
    stats = TensorStats("t", 0.0, 10.0, 100, histogram)
    fmt = NUMBER_FORMATS["x86-u8s8"]
    for percentile, high in ((100.0, 10.0), (98.5, 10.0), (98.0, 9.0), (97.0, 8.0), (90.0, 1.0), (89.0, 1.0)):
        assert PercentileCalibrator(percentile, 10).choose_range(stats, fmt) == Range(0.0, high)


def test_clipped_share_is_counted() -> None:
    values = sample("normal", 20000)
    stats = stats_of(values, 2048)
    limits = Range(-1.0, 1.5)
    assert stats.histogram.share_outside(limits) == pytest.approx(1 - kept(values, limits), abs=2e-3)
