"""Bounds that hold at every number of samples at once, so that whoever watches them may stop when they decide.

A bound of fixed size, looked at after every batch until it is favourable, is wrong far more often than it says:
with enough looks always. These bounds are of another kind: the probability that they are EVER wrong, at any of the
numbers of samples, is at most the risk. Each belongs to a bet against a claim "the mean is at most m": a fortune that
cannot grow in expectation while the claim is true, so that it exceeds 1 / risk at some time with probability of at
most the risk (Ville, "Etude critique de la notion de collectif", 1939). The bound is the last claim that such a
fortune refutes. The price is width: to show a share of 95 % with 95 % confidence takes 74 faultless samples, where a
bound of fixed size takes 59.

Sources: for shares, mixtures of likelihood ratios (Robbins, "Statistical methods related to the law of the iterated
logarithm", Annals of Mathematical Statistics 41, 1970), with Jeffreys' distribution cut at the claim; for means of
bounded values, betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS-B
86, 2024, equation 26 for the stakes).

The values must come in an order that has nothing to do with them, such as a shuffled one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgekit.errors import DefectError
from edgekit.metrics.statistics import Bounds, check_counts, incomplete_beta, least_sample

__all__ = ["anytime_mean_bounds", "anytime_samples", "anytime_share_bounds"]

_Values = npt.NDArray[np.float64]

# Jeffreys' prior: most of its weight lies near 0 and 1, where shares that are demanded lie.
_PRIOR = 0.5
# Twelve decimals: three more than verdicts state, and their rounding is outwards.
_STEPS = 40
# Stakes stay below this part of what could be lost in one step, so that one bad value cannot end the bet.
_LARGEST_STAKE = 0.75
_LARGEST_SAMPLE = 1_000_000


def anytime_share_bounds(successes: int, n: int, confidence: float) -> Bounds:
    """One-sided bounds on a share, each valid with the given confidence at all numbers of samples at once.

    Args:
        successes: From 0 to n, among the first n samples of a random order.
        n: Samples so far; none gives 0 and 1.
        confidence: Of each bound, above 0 and below 1.

    Raises:
        DefectError: The counts or the confidence are out of range.
    """
    check_counts(successes, n, confidence)
    needed = -math.log(1 - confidence)
    return Bounds(
        _last_refuted(lambda claim: _log_fortune(successes, n - successes, claim) >= needed),
        1 - _last_refuted(lambda claim: _log_fortune(n - successes, successes, claim) >= needed),
    )


def _log_fortune(successes: float, failures: float, claim: float) -> float:
    """Logarithm of the fortune of a bet against "the share is at most `claim`".

    It is the likelihood of what was seen, averaged over Beta(1/2, 1/2) cut to shares above the claim, over its
    likelihood under the claim. Each share above the claim bets on success, so that under any share below it the
    fortune falls in expectation: the claim is refuted as a whole.
    """
    above = incomplete_beta(1 - claim, failures + _PRIOR, successes + _PRIOR)
    if above <= 0:
        return -math.inf
    average = _log_beta(successes + _PRIOR, failures + _PRIOR) + math.log(above)
    weight = _log_beta(_PRIOR, _PRIOR) + math.log(incomplete_beta(1 - claim, _PRIOR, _PRIOR))
    return average - weight - successes * math.log(claim) - failures * math.log1p(-claim)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _last_refuted(refuted: Callable[[float], bool]) -> float:
    """The largest claim in (0, 1) that is refuted, from below to 2**-40; 0 where none is.

    Fortunes fall as the claim grows, so that the claims refuted are those up to a point.
    """
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def anytime_mean_bounds(values: _Values, confidence: float, low: float, high: float) -> Bounds:
    """One-sided bounds on the mean of bounded values, each valid at all numbers of samples at once.

    Args:
        values: float64 [N], finite, each in [low, high], in the random order in which they were measured.
        confidence: Of each bound, above 0 and below 1.
        low: The smallest value there can be.
        high: The largest one, above `low`.

    Raises:
        DefectError: A value is outside the range or not finite, or the confidence is.
    """
    if not (0 < confidence < 1 and low < high and bool(np.all((values >= low) & (values <= high)))):
        raise DefectError(
            "Confidence bounds were asked of impossible numbers.",
            expected=f"values from {low:g} to {high:g}, 0 < confidence < 1",
            found=f"{len(values)} values at {confidence}",
        )
    unit = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    unit = np.clip(unit, 0.0, 1.0)
    lower = _mean_lower(unit, confidence)
    upper = 1 - _mean_lower(1 - unit, confidence)
    width = high - low
    return Bounds(low + lower * width, low + upper * width)


def _mean_lower(unit: _Values, confidence: float) -> float:
    if len(unit) == 0:
        return 0.0
    needed = -math.log(1 - confidence)
    stakes = _stakes(unit, needed)

    def refuted(claim: float) -> bool:
        fortune = np.log1p(np.minimum(stakes, _LARGEST_STAKE / claim) * (unit - claim))
        return math.fsum(fortune.tolist()) >= needed

    return _last_refuted(refuted)


def _stakes(unit: _Values, needed: float) -> _Values:
    """What is bet at each step: from the values before it alone, which is what makes the fortune honest.

    Larger where the values so far scattered little. The mean of one half and the variance of one quarter with which
    it begins are those of no knowledge.
    """
    count = np.arange(1, len(unit) + 1)
    running = (0.5 + np.cumsum(unit)) / (count + 1)
    variance = (0.25 + np.cumsum((unit - running) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    stakes: _Values = np.sqrt(2 * needed / (before * count * np.log1p(count)))
    return stakes


def anytime_samples(share: float, required: float, confidence: float) -> int | None:
    """The smallest number of samples at which `anytime_share_bounds` decides, if the observed share held exactly.

    Args:
        share: From 0 to 1.
        required: What the share must reach, above 0 and below 1.
        confidence: Of each bound.

    Returns:
        None where no practical number decides.
    """
    needed = -math.log(1 - confidence)

    def decides(n: int) -> bool:
        good = share * n
        if share > required:
            return _log_fortune(good, n - good, required) >= needed
        return _log_fortune(n - good, good, 1 - required) >= needed

    return None if share == required else least_sample(decides, _LARGEST_SAMPLE)
