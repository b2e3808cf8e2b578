"""Bounds on means and quantiles beside scipy's, and beside what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgekit.errors import DefectError
from edgekit.metrics.intervals import (
    Seed,
    bernstein_bounds,
    bernstein_samples,
    bootstrap_mean_bounds,
    bootstrap_quantile_bounds,
    exact_quantile_bounds,
    outwards,
    resamples_for,
    samples_for_width,
    seed_of,
)
from edgekit.metrics.statistics import Bounds

SEED = seed_of(["0" * 64])
POPULATIONS = {
    "even": lambda rng, n: rng.uniform(0.6, 1.0, n),
    "skewed": lambda rng, n: rng.beta(12, 1, n),
    "two values": lambda rng, n: np.where(rng.uniform(size=n) < 0.2, 0.3, 0.95),
    "symmetric": lambda rng, n: np.clip(rng.normal(0.0, 0.2, n), -1, 1),
}


@pytest.mark.parametrize("name", POPULATIONS)
@pytest.mark.parametrize("count", [25, 120])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_bca_is_scipys(name: str, count: int, confidence: float) -> None:
    values = POPULATIONS[name](np.random.default_rng(count), count)
    theirs = stats.bootstrap(
        (values,), np.mean, confidence_level=2 * confidence - 1, n_resamples=20_000, method="BCa", rng=3
    ).confidence_interval
    ours = bootstrap_mean_bounds(values, confidence, SEED)
    # Both are random: a bound's place among 2,000 resamples is known to about a tenth of a standard error. The means of
    # two values lie on a grid, and may be one step apart.
    step = (values.max() - values.min()) / count if len(set(values)) == 2 else 0.0
    allowed = max(0.2 * values.std(ddof=1) / np.sqrt(count), 1.01 * step)
    assert abs(ours.lower - theirs.low) < allowed
    assert abs(ours.upper - theirs.high) < allowed


def test_skewness_is_corrected_for() -> None:
    """Towards the long tail the bound lies farther off: what the plain percentile bootstrap gets wrong."""
    values = np.random.default_rng(0).beta(12, 1, 40)
    bounds, middle = bootstrap_mean_bounds(values, 0.95, SEED), values.mean()
    assert middle - bounds.lower > bounds.upper - middle


@pytest.mark.parametrize("q", [0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("count", [10, 60, 300])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_exact_quantiles_are_scipys(q: float, count: int, confidence: float) -> None:
    values = np.random.default_rng(count).uniform(0, 1, count)
    for place, side in enumerate(("greater", "less")):
        interval = stats.quantile_test(values, p=q, alternative=side).confidence_interval(confidence)
        theirs = (interval.low, interval.high)[place]
        ours = exact_quantile_bounds(values, q, confidence, 0.0, 1.0)[place]
        # scipy knows no range and says so with NaN or infinity.
        assert ours == ((0.0, 1.0)[place] if not np.isfinite(theirs) else pytest.approx(theirs, abs=1e-9))


def test_exact_quantiles_by_the_tails_themselves() -> None:
    values = np.arange(1, 101) / 100
    lower, upper = exact_quantile_bounds(values, 0.1, 0.95, 0.0, 1.0)
    below = int(lower * 100)
    assert stats.binom.sf(below - 1, 100, 0.1) >= 0.95 > stats.binom.sf(below, 100, 0.1)
    above = round(upper * 100)
    assert stats.binom.cdf(above - 1, 100, 0.1) >= 0.95 > stats.binom.cdf(above - 2, 100, 0.1)


def test_bernstein_is_the_theorems() -> None:
    values = np.random.default_rng(1).uniform(-0.5, 1, 200)
    log = np.log(2 / 0.05)
    margin = np.sqrt(2 * values.var(ddof=1) * log / 200) + 7 * 2 * log / (3 * 199)
    bounds = bernstein_bounds(values, 0.95, -1, 1)
    assert bounds.lower == pytest.approx(values.mean() - margin, abs=1e-9)
    assert bounds.upper == pytest.approx(values.mean() + margin, abs=1e-9)


def test_bernstein_samples_are_the_first_that_are_enough() -> None:
    values = np.array([0.2, 0.8])
    for distance in (0.05, 0.2):
        needed = bernstein_samples(values, distance, 0.95, 1.0)
        assert needed is not None
        log, variance = np.log(2 / 0.05), 0.18
        for count, enough in ((needed, True), (needed - 1, False)):
            margin = np.sqrt(2 * variance * log / count) + 7 * log / (3 * (count - 1))
            assert (margin < distance) == enough
    assert bernstein_samples(values, 0.0, 0.95, 1.0) is None


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_bound_covers_about_as_often_as_it_says(name: str) -> None:
    """A coarse look; `benchmarks/policy_coverage.py` takes a fine one."""
    rng, truth = np.random.default_rng(5), POPULATIONS[name](np.random.default_rng(6), 400_000).mean()
    missed = {"bootstrap": 0, "exact": 0}
    for trial in range(300):
        values = POPULATIONS[name](rng, 60)
        missed["bootstrap"] += bootstrap_mean_bounds(values, 0.9, seed_of([str(trial)])).lower > truth
        missed["exact"] += bernstein_bounds(values, 0.9, -1, 1).lower > truth
    assert stats.binom.sf(missed["exact"] - 1, 300, 0.1) > 1e-4
    # Within what 300 trials tell, and what the approximation is worth at 60 samples.
    assert 0.04 <= missed["bootstrap"] / 300 <= 0.17


def test_bootstrap_quantiles_enclose_the_quantile_of_the_sample() -> None:
    values = np.random.default_rng(2).uniform(0, 1, 200)
    for q in (0.1, 0.5, 0.77):
        bounds = bootstrap_quantile_bounds(values, q, 0.95, SEED)
        theirs = stats.bootstrap(
            (values,),
            lambda x, axis, q=q: np.quantile(x, q, axis=axis),
            confidence_level=0.9,
            method="percentile",
            n_resamples=5000,
            rng=1,
        ).confidence_interval
        assert bounds.lower <= np.quantile(values, q) <= bounds.upper
        assert bounds.lower == pytest.approx(theirs.low, abs=0.02)
        assert bounds.upper == pytest.approx(theirs.high, abs=0.02)


def test_resamples_follow_the_risk() -> None:
    assert [resamples_for(confidence) for confidence in (0.5, 0.95, 0.99, 0.995, 0.9999)] == [
        *(2000, 2000, 10_000, 20_000, 20_000)
    ]


@pytest.mark.parametrize("value", [0.3, 1.0, 0.0, -0.7])
def test_what_is_constant_has_no_spread(value: float) -> None:
    assert bootstrap_mean_bounds(np.full(40, value), 0.95, SEED) == (value, value)


def test_the_seed_is_that_of_the_samples_in_their_order() -> None:
    assert seed_of(["a", "b"]) != seed_of(["b", "a"])
    assert len(SEED) == 8
    assert all(0 <= word < 2**32 for word in SEED)


def test_rounding_goes_outwards_within_the_range() -> None:
    assert outwards(Bounds(0.1234567894, 0.1234567894)) == (0.123456789, 0.12345679)
    assert outwards(Bounds(-0.5, 1.5)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("width", "distance", "expected"), [(0.1, 0.05, 400), (0.1, 0.2, 101), (0.1, 0.0, None), (0.1, 1e-9, None)]
)
def test_bounds_narrow_with_the_root(width: float, distance: float, expected: int | None) -> None:
    assert samples_for_width(100, width, distance) == expected


@pytest.mark.parametrize("values", [[], [1.0], [0.5, np.nan], [0.5, np.inf], [0.5, 3.0]])
def test_values_without_bounds_are_a_defect(values: list[float]) -> None:
    with pytest.raises(DefectError):
        bootstrap_mean_bounds(np.array(values), 0.95, SEED)


def test_chunks_do_not_change_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values, seed = np.random.default_rng(4).uniform(0, 1, 300), SEED

    def bounds(of: Seed) -> Bounds:
        return bootstrap_mean_bounds(values, 0.95, of)

    whole = bounds(seed)
    monkeypatch.setattr("edgekit.metrics.intervals._CHUNK", 1000)
    assert bounds(seed) == whole
