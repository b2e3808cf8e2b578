"""What a finite sample shows about a mean or a quantile: bounds by the bootstrap, and bounds that hold always.

Every bound is one-sided, rounded outwards to nine decimals and the same on every machine and numpy version. Samples
are drawn with replacement by `numpy.random.RandomState`, whose streams numpy promises not to change (NEP 19); their
sums are sums of whole numbers, which no order of additions changes; and a bound is the mean of one resample, not
something between two.

Sources: Efron, "Better bootstrap confidence intervals", JASA 82 (1987), for BCa; Maurer and Pontil, "Empirical
Bernstein bounds and sample variance penalization", COLT (2009), theorem 4; order statistics as in David and Nagaraja,
"Order Statistics" (2003), section 7.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgekit.core.digests import digest_bytes
from edgekit.errors import DefectError
from edgekit.metrics.statistics import LARGEST_SAMPLE, Bounds, binomial_at_least, binomial_at_most, mean, quantiles

__all__ = [
    "Seed",
    "bernstein_bounds",
    "bernstein_samples",
    "bootstrap_mean_bounds",
    "bootstrap_quantile_bounds",
    "exact_quantile_bounds",
    "outwards",
    "resamples_for",
    "samples_for_width",
    "seed_of",
]

_Values = npt.NDArray[np.float64]
Seed = tuple[int, ...]

_DECIMALS = 10**9
# Two decimals finer than what is stated, and small enough that the sum of 40 million values is a 64-bit integer.
_GRID = 10**11
# The widest that the difference of two values of a metric can be.
_LARGEST = 2.0
_FEWEST, _MOST = 2_000, 20_000
# Resamples that lie beyond a bound: with a hundred, the bound's own noise is a tenth of its risk.
_BEYOND = 100
_CHUNK = 1 << 20
_NORMAL = NormalDist()


def seed_of(samples: Sequence[str]) -> Seed:
    """The seed that belongs to a set of samples: the SHA-256 of their digests, as eight 32-bit words."""
    digest = digest_bytes("\n".join(samples).encode())
    return tuple(int(digest[start : start + 8], 16) for start in range(0, 64, 8))


def resamples_for(confidence: float) -> int:
    """How many resamples: 2,000, and where the risk is small as many as leave a hundred beyond a bound, at most 20,000.

    Beyond a confidence of 0.995 fewer than a hundred are left, and the bound is as uncertain as that.
    """
    return min(_MOST, max(_FEWEST, math.ceil(_BEYOND / (1 - confidence) - 1e-6)))


def outwards(bounds: Bounds, low: float = 0.0, high: float = 1.0) -> Bounds:
    """Bounds rounded outwards to nine decimals, within the range that the quantity cannot leave."""
    return Bounds(
        max(low, math.floor(bounds.lower * _DECIMALS) / _DECIMALS),
        min(high, math.ceil(bounds.upper * _DECIMALS) / _DECIMALS),
    )


def bootstrap_mean_bounds(values: _Values, confidence: float, seed: Seed) -> Bounds:
    """Bias-corrected and accelerated (BCa) bounds on a mean, each at the given confidence.

    Approximate: the error of the confidence shrinks with the number of samples, as long as the samples show how the
    values scatter. What happens to one in a thousand is not among a hundred samples, and no bootstrap knows of it.

    Args:
        values: float64 [N], finite, N at least 2, from -2 to 2.
        confidence: From 0.5 and below 1.
        seed: As `seed_of` gives it.

    Returns:
        Bounds that enclose the mean of `values`.
    """
    _require(values)
    whole = np.rint(values * _GRID).astype(np.int64)
    count, total = len(whole), int(whole.sum())
    sums = np.sort(_resampled(whole, resamples_for(confidence), seed, lambda drawn: drawn.sum(axis=1)))
    below = int(np.searchsorted(sums, total, side="left"))
    not_above = int(np.searchsorted(sums, total, side="right"))
    acceleration = _acceleration(values)
    shares = [
        _bca_share(share, (below + not_above) / (2 * len(sums)), acceleration, len(sums))
        for share in (1 - confidence, confidence)
    ]
    lowest, highest = sums[_place(shares[0], len(sums))], sums[-1 - _place(1 - shares[1], len(sums))]
    # Exact: sums of whole numbers, divided once, towards the outside.
    step = count * (_GRID // _DECIMALS)
    lower, upper = int(lowest), int(highest)
    # The grid may move the mean by less than a step; never to the other side of a bound.
    middle = outwards(Bounds(mean(values), mean(values)), -_LARGEST, _LARGEST)
    return Bounds(min((lower // step) / _DECIMALS, middle.lower), max(-(-upper // step) / _DECIMALS, middle.upper))


def _acceleration(values: _Values) -> float:
    """Of the jackknife of a mean, whose deletions are the deviations scaled: a sixth of their skewness over root N."""
    middle = mean(values)
    deviations = (values - middle).tolist()
    squares = math.fsum(one * one for one in deviations)
    if squares <= 0:
        return 0.0
    return math.fsum(one * one * one for one in deviations) / (6 * squares * math.sqrt(squares))


def _bca_share(share: float, below: float, acceleration: float, resamples: int) -> float:
    """Which share of the resamples stands for `share`, corrected for bias and skewness."""
    # Where every resample lies on one side, as far as this many resamples can tell.
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples))
    shifted = bias + _NORMAL.inv_cdf(share)
    stretched = 1 - acceleration * shifted
    if stretched <= 0:
        # The transformation has no value out there: the extreme resample on that side.
        return 0.0 if share < 0.5 else 1.0
    return _NORMAL.cdf(bias + shifted / stretched)


def _place(share: float, resamples: int) -> int:
    """Index, from the outside, of the last resample that at most this share of them lies beyond."""
    return min(max(math.floor(share * (resamples + 1)) - 1, 0), resamples - 1)


def _resampled(
    values: npt.NDArray[np.int64],
    resamples: int,
    seed: Seed,
    statistic: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]],
) -> npt.NDArray[np.int64]:
    """A statistic of each resample, int64 [resamples]; memory stays flat in their number."""
    stream = np.random.RandomState(np.array(seed, dtype=np.uint32))
    count = len(values)
    step = max(1, _CHUNK // count)
    parts = []
    for start in range(0, resamples, step):
        shape = (min(step, resamples - start), count)
        parts.append(statistic(values[stream.randint(0, count, size=shape, dtype=np.int64)]))
    return np.concatenate(parts)


def bernstein_bounds(values: _Values, confidence: float, low: float, high: float) -> Bounds:
    """Empirical Bernstein bounds on the mean of values in [low, high], each at least at the given confidence.

    They hold for every distribution and every number of samples, and pay for it: with N samples they are never nearer
    to the mean than about `7 (high - low) / N` at 95 %.

    Args:
        values: float64 [N], finite, N at least 2, in [low, high].
        confidence: Above 0 and below 1.
        low: Least value there can be.
        high: Largest one.
    """
    _require(values)
    middle = mean(values)
    margin = _bernstein_margin(len(values), _variance(values), confidence, high - low)
    return outwards(Bounds(middle - margin, middle + margin), low, high)


def _variance(values: _Values) -> float:
    middle = mean(values)
    return math.fsum((one - middle) ** 2 for one in values.tolist()) / (len(values) - 1)


def _bernstein_margin(count: int, variance: float, confidence: float, width: float) -> float:
    log = math.log(2 / (1 - confidence))
    return math.sqrt(2 * variance * log / count) + 7 * width * log / (3 * (count - 1))


def bernstein_samples(values: _Values, distance: float, confidence: float, width: float) -> int | None:
    """How many samples would bring the bound of `bernstein_bounds` within a distance of the mean, at this variance.

    Args:
        values: float64 [N], N at least 2.
        distance: From the mean to what is demanded; not negative.
        confidence: Of the bound.
        width: Of the range of values.

    Returns:
        The number of samples in all, None where more than `LARGEST_SAMPLE` would be needed.
    """
    variance = _variance(values)

    def enough(count: int) -> bool:
        return _bernstein_margin(count, variance, confidence, width) < distance

    if not enough(LARGEST_SAMPLE):
        return None
    too_few, many = 1, LARGEST_SAMPLE
    while many - too_few > 1:
        middle = (too_few + many) // 2
        too_few, many = (too_few, middle) if enough(middle) else (middle, many)
    return many


def samples_for_width(count: int, width: float, distance: float) -> int | None:
    """How many samples would bring a bound within a distance, where bounds narrow with the root of the samples.

    Args:
        count: Samples that the bound was found with.
        width: From the mean to the bound now.
        distance: From the mean to what is demanded.

    Returns:
        The number of samples in all, more than `count`; None where it is more than `LARGEST_SAMPLE`.
    """
    if distance <= 0 or (width / distance) ** 2 * count > LARGEST_SAMPLE:
        return None
    return max(count + 1, math.ceil(count * (width / distance) ** 2))


def exact_quantile_bounds(values: _Values, q: float, confidence: float, low: float, high: float) -> Bounds:
    """Order statistics that enclose a quantile, each at least at the given confidence, whatever the distribution.

    The k-th smallest value is not above the q-quantile where at least k of N samples are not above it, and each is
    with probability q or more: so the lower bound is the largest of those with `P(Binomial(N, q) >= k) >= confidence`.
    The upper one is the mirror image.

    Args:
        values: float64 [N], finite, N at least 1.
        q: Above 0 and below 1.
        confidence: From 0.5 and below 1.
        low: Least value there can be: the bound where too few samples show one.
        high: Largest one.
    """
    _require(values, least=1)
    ordered = sorted(values.tolist())
    count = len(ordered)
    # A tail within rounding of the confidence does not count.
    wanted = confidence + (1 - confidence) * 1e-9
    # Both tails are monotone in k, so bisection finds the last, or first, k that is still sure.
    sure, unsure = 0, count + 1
    while unsure - sure > 1:
        middle = (sure + unsure) // 2
        holds = binomial_at_least(middle, count, q) >= wanted
        sure, unsure = (middle, unsure) if holds else (sure, middle)
    lower = ordered[sure - 1] if sure else low
    unsure, sure = 0, count + 1
    while sure - unsure > 1:
        middle = (sure + unsure) // 2
        holds = binomial_at_most(middle - 1, count, q) >= wanted
        sure, unsure = (middle, unsure) if holds else (sure, middle)
    upper = ordered[sure - 1] if sure <= count else high
    (observed,) = quantiles(values, [q])
    return outwards(Bounds(min(lower, observed), max(upper, observed)), low, high)


def bootstrap_quantile_bounds(values: _Values, q: float, confidence: float, seed: Seed) -> Bounds:
    """Percentile bootstrap bounds on a quantile, each about at the given confidence; `exact_quantile_bounds` is sound.

    Args:
        values: float64 [N], finite, N at least 2, from -2 to 2.
        q: Above 0 and below 1.
        confidence: From 0.5 and below 1.
        seed: As `seed_of` gives it.
    """
    _require(values)
    whole = np.rint(values * _GRID).astype(np.int64)
    position = q * (len(whole) - 1)
    first = min(math.floor(position), len(whole) - 2)
    # Between two order statistics in thousandths of the way, so that these too are sums of whole numbers.
    towards = round(1000 * (position - first))

    def quantile(drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        ordered = np.partition(drawn, (first, first + 1), axis=1)
        between: npt.NDArray[np.int64] = (1000 - towards) * ordered[:, first] + towards * ordered[:, first + 1]
        return between

    found = np.sort(_resampled(whole, resamples_for(confidence), seed, quantile))
    place = _place(1 - confidence, len(found))
    (observed,) = quantiles(values, [q])
    scale = 1000 * _GRID
    return outwards(
        Bounds(min(int(found[place]) / scale, observed), max(int(found[-1 - place]) / scale, observed)),
        -_LARGEST,
        _LARGEST,
    )


def _require(values: _Values, least: int = 2) -> None:
    if len(values) < least or not (np.abs(values) <= _LARGEST).all():
        raise DefectError(
            "Bounds were asked of values that have none.",
            expected=f"at least {least} finite values from -2 to 2",
            found=f"{len(values)} values",
        )
