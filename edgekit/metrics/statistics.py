"""What a finite sample shows about a share, without a statistics library on the device.

Bounds are Clopper and Pearson's (Biometrika 26, 1934): exact, never too narrow, and the reason that 58 faultless
samples do not show "at least 95 %, with 95 % confidence" while 59 do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgekit.errors import DefectError

__all__ = [
    "LARGEST_SAMPLE",
    "Bounds",
    "Summary",
    "binomial_at_least",
    "binomial_at_most",
    "check_counts",
    "clopper_pearson",
    "incomplete_beta",
    "least_sample",
    "mean",
    "quantiles",
    "samples_to_decide",
    "summarise",
]

# Beyond this many samples the honest answer is that the share lies too close to what is asked to be told apart.
LARGEST_SAMPLE = 10_000_000
_TINY = 1e-300
_PRECISION = 4e-16
_MAX_TERMS = 1_000_000


class Bounds(NamedTuple):
    """Two one-sided confidence bounds on a share. Together they enclose it with confidence 2 C - 1 only."""

    lower: float
    upper: float


def clopper_pearson(successes: int, n: int, confidence: float) -> Bounds:
    """Exact one-sided bounds on a binomial share, each at the given confidence.

    The lower bound is the share p at which `P(X >= successes) = 1 - confidence` for X ~ Binomial(n, p), the upper one
    where `P(X <= successes) = 1 - confidence`.

    Args:
        successes: From 0 to n.
        n: Samples; none gives the bounds 0 and 1.
        confidence: Of each bound, above 0 and below 1.

    Raises:
        DefectError: The counts or the confidence are out of range.
    """
    check_counts(successes, n, confidence)
    risk = 1 - confidence
    lower = 0.0 if successes == 0 else _bisect(successes, n, risk, upper=False)
    upper = 1.0 if successes == n else _bisect(successes, n, risk, upper=True)
    return Bounds(lower, upper)


def _bisect(successes: int, n: int, risk: float, *, upper: bool) -> float:
    """The share at which the tail is `risk`, to the last bit, rounded outwards so that a bound never claims more."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        # P(X >= x) grows with p and P(X <= x) falls: both say on which side of the bound the middle lies.
        below = (
            binomial_at_most(successes, n, middle) > risk if upper else binomial_at_least(successes, n, middle) <= risk
        )
        low, high = (middle, high) if below else (low, middle)
    return high if upper else low


def binomial_at_least(successes: float, n: int, share: float) -> float:
    """P(X >= successes), X ~ Binomial(n, share), continued to real successes above 0."""
    return incomplete_beta(share, successes, n - successes + 1)


def binomial_at_most(successes: float, n: int, share: float) -> float:
    """P(X <= successes), X ~ Binomial(n, share), continued to real successes below n."""
    return incomplete_beta(1 - share, n - successes, successes + 1)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    # The fraction converges fast only below the mean; beyond it, I_x(a, b) = 1 - I_{1-x}(b, a).
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / a * _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The value of 1/(1+ d1/(1+ d2/(1+ ...))) by the modified Lentz algorithm."""
    numerator, denominator = 1.0, 1.0 - (a + b) * x / (a + 1)
    denominator = 1 / (denominator if abs(denominator) > _TINY else _TINY)
    value = denominator
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            denominator = 1 + term * denominator
            denominator = 1 / (denominator if abs(denominator) > _TINY else _TINY)
            numerator = 1 + term / numerator
            numerator = numerator if abs(numerator) > _TINY else _TINY
            change = numerator * denominator
            value *= change
        if abs(change - 1) <= _PRECISION:
            return value
    raise DefectError("The incomplete beta function did not converge.", found=f"x={x!r}, a={a!r}, b={b!r}")


def samples_to_decide(observed_share: float, required_share: float, confidence: float) -> int | None:
    """The smallest sample that would decide "at least `required_share`" if the observed share held exactly.

    Decided means that the lower Clopper-Pearson bound reaches the required share, or that the upper one falls below
    it. `observed_share * n` successes need not be whole: the binomial tails are continued to real numbers by the
    incomplete beta function, so the answer does not jump with the rounding of a count.

    Args:
        observed_share: From 0 to 1.
        required_share: Above 0 and below 1.
        confidence: Of each bound.

    Returns:
        The number of samples in all, or None where no sample of at most `LARGEST_SAMPLE` decides: the shares are
        equal, or too close.
    """
    if not (0 <= observed_share <= 1 and 0 < required_share < 1 and 0 < confidence < 1):
        raise DefectError("A sample size was asked of impossible numbers.")
    if observed_share == required_share:
        return None
    # A tail within rounding of the risk does not count as decided, as a bound rounded outwards does not.
    risk = (1 - confidence) * (1 - 1e-9)

    def decides(n: int) -> bool:
        if observed_share > required_share:
            return binomial_at_least(observed_share * n, n, required_share) <= risk
        return binomial_at_most(observed_share * n, n, required_share) < risk

    return least_sample(decides, LARGEST_SAMPLE)


def least_sample(decides: Callable[[int], bool], largest: int) -> int | None:
    """The smallest number of samples, from 1 to `largest`, that decides; None where none does.

    Args:
        decides: Of a number of samples. What decides must go on deciding as they grow in number.
        largest: Where the search ends.
    """
    enough = 1
    while not decides(enough):
        if enough >= largest:
            return None
        enough = min(2 * enough, largest)
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if decides(middle) else (middle, enough)
    return enough


def check_counts(successes: int, n: int, confidence: float) -> None:
    """Raise `DefectError` where bounds are asked of impossible numbers."""
    if not (0 <= successes <= n and 0 < confidence < 1):
        raise DefectError(
            "Confidence bounds were asked of impossible numbers.",
            expected="0 <= successes <= n and 0 < confidence < 1",
            found=f"{successes} of {n} at {confidence}",
        )


def mean(values: npt.NDArray[np.float64]) -> float:
    """The mean, correctly rounded from the exact sum, so that a gate on another processor finds the same bits.

    Args:
        values: float64 [N], N at least 1, finite.

    Raises:
        DefectError: No values, or one that is not finite: whoever asks says first which samples count.
    """
    _require_finite(values)
    return math.fsum(values.tolist()) / len(values)


def quantiles(values: npt.NDArray[np.float64], shares: Sequence[float]) -> tuple[float, ...]:
    """Quantiles by linear interpolation between order statistics (Hyndman and Fan's type 7, numpy's default).

    In plain float arithmetic, for the reason `mean` gives.

    Args:
        values: float64 [N], N at least 1, finite.
        shares: Each from 0 to 1.

    Raises:
        DefectError: No values, or one that is not finite.
    """
    _require_finite(values)
    ordered = sorted(values.tolist())
    result = []
    for share in shares:
        position = share * (len(ordered) - 1)
        below = min(math.floor(position), len(ordered) - 1)
        above = min(below + 1, len(ordered) - 1)
        result.append(ordered[below] + (position - below) * (ordered[above] - ordered[below]))
    return tuple(result)


def _require_finite(values: npt.NDArray[np.float64]) -> None:
    if values.size == 0 or not np.isfinite(values).all():
        raise DefectError("A statistic was asked of no values, or of values that are not finite.")


@dataclass(frozen=True)
class Summary:
    """A distribution in numbers: `count` values, their mean, extremes and percentiles."""

    count: int
    mean: float
    minimum: float
    p1: float
    p5: float
    p50: float
    p95: float
    p99: float
    maximum: float

    def to_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return asdict(self)


def summarise(values: npt.NDArray[np.float64]) -> Summary | None:
    """Summarise the values that are not NaN, float64 [N]; None where there are none.

    NaN stands for samples a metric cannot speak about; `count` says how many are left.
    """
    present = values[~np.isnan(values)]
    if present.size == 0:
        return None
    low, p1, p5, p50, p95, p99, high = quantiles(present, (0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 1.0))
    return Summary(int(present.size), mean(present), low, p1, p5, p50, p95, p99, high)
