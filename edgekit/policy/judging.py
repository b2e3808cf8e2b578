"""What samples say about a share, a mean, a quantile or a paired difference: held against its bound, three outcomes.

A value without a confidence bound is the samples' own: it says nothing about others, so that below the policy's
min_samples it decides nothing. An exact bound may fail with any number of samples, and passes from min_samples on. A
bootstrap bound decides nothing below min_samples: with a handful of samples it is no bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgekit.metrics.anytime import anytime_mean_bounds, anytime_samples, anytime_share_bounds
from edgekit.metrics.intervals import (
    Seed,
    bernstein_bounds,
    bernstein_samples,
    bootstrap_mean_bounds,
    bootstrap_quantile_bounds,
    exact_quantile_bounds,
    outwards,
    samples_for_width,
)
from edgekit.metrics.statistics import Bounds, clopper_pearson, mean, quantiles, samples_to_decide
from edgekit.policy.result import Judged

__all__ = ["Rule", "Scale", "judge_gain", "judge_mean", "judge_quantile", "judge_share", "judge_value"]

_Values = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """How sure one wants to be.

    Attributes:
        confidence: Of each bound.
        min_samples: With fewer nothing passes.
        seed: Of every resampling.
        sequential: The samples are looked at again and again until they decide: exact bounds are those that hold at
            every number of samples at once.
    """

    confidence: float
    min_samples: int
    seed: Seed
    sequential: bool = False

    def share_bounds(self, successes: int, count: int) -> Bounds:
        """Bounds on a share, rounded outwards."""
        bounds = anytime_share_bounds if self.sequential else clopper_pearson
        return outwards(bounds(successes, count, self.confidence))

    def samples_for_share(self, share: float, asked: float) -> int | None:
        """How many samples decide "at least `asked`" if this share of them is good; None where no number does."""
        needed = (anytime_samples if self.sequential else samples_to_decide)(share, asked, self.confidence)
        return None if needed is None else max(needed, self.min_samples)


@dataclass(frozen=True)
class Scale:
    """What a value is held against, and the range it cannot leave.

    Attributes:
        limit: The demand.
        better: "higher": at least `limit` is good; "lower": at most.
        low: Least value there can be.
        high: Largest one.
    """

    limit: float
    better: str
    low: float = 0.0
    high: float = 1.0

    def reaches(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.limit if self.better == "higher" else value <= self.limit

    def shown(self, bounds: Bounds) -> bool:
        """Whether everything between the bounds is good enough."""
        return self.reaches(bounds.lower if self.better == "higher" else bounds.upper)

    def refuted(self, bounds: Bounds) -> bool:
        """Whether nothing between the bounds is."""
        return not self.reaches(bounds.upper if self.better == "higher" else bounds.lower)


def judge_value(observed: float | None, samples: int, rule: Rule, *, holds: bool) -> Judged:
    """A value as it is, without a bound: it says nothing about other samples when there are too few."""
    if samples < rule.min_samples or observed is None:
        return Judged("inconclusive", observed, samples=samples, samples_needed=max(rule.min_samples, 1))
    return Judged("pass" if holds else "fail", observed, samples=samples)


def judge_share(good: _Flags, scale: Scale, rule: Rule) -> Judged:
    """A share held against its exact bounds. Failing needs no least number of samples, since they are exact.

    Args:
        good: bool [N], what is counted, which is bad where lower is better.
        scale: About the share.
        rule: How sure one wants to be.
    """
    count, successes = len(good), int(good.sum())
    bounds = rule.share_bounds(successes, count)
    found = Judged("inconclusive", successes / count if count else None, *bounds, count, successes)
    if scale.refuted(bounds):
        return replace(found, outcome="fail")
    shown = scale.shown(bounds)
    if shown and count >= rule.min_samples:
        return replace(found, outcome="pass")
    share, asked = (successes, scale.limit) if scale.better == "higher" else (count - successes, 1 - scale.limit)
    # Without samples there is no share to go by: what a faultless engine would need.
    if shown:
        return replace(found, samples_needed=max(count, rule.min_samples))
    return replace(found, samples_needed=rule.samples_for_share(share / count if count else 1.0, asked))


def judge_mean(values: _Values, scale: Scale, interval: str, rule: Rule) -> Judged:
    """A mean, as it is or held against a bound.

    Args:
        values: float64 [N], without NaN.
        scale: About the mean.
        interval: "none", "bootstrap" or "exact".
        rule: How sure one wants to be.
    """
    count = len(values)
    observed = mean(values) if count else None
    if interval == "none" or observed is None or count < 2:
        judged = judge_value(observed, count, rule, holds=observed is not None and scale.reaches(observed))
        return judged if interval == "none" else _undecided(judged, rule)
    if interval == "exact" and rule.sequential:
        bounds = outwards(anytime_mean_bounds(values, rule.confidence, scale.low, scale.high), scale.low, scale.high)
        needed = _scaled(observed, bounds, scale, count)
    elif interval == "exact":
        bounds = bernstein_bounds(values, rule.confidence, scale.low, scale.high)
        needed = bernstein_samples(values, abs(observed - scale.limit), rule.confidence, scale.high - scale.low)
    else:
        bounds = bootstrap_mean_bounds(values, rule.confidence, rule.seed)
        needed = _scaled(observed, bounds, scale, count)
    return _decided(Judged("inconclusive", observed, *bounds, count), scale, rule, needed, exact=interval == "exact")


def judge_quantile(values: _Values, q: float, scale: Scale, interval: str, rule: Rule) -> Judged:
    """A quantile, as it is or held against a bound; arguments as of `judge_mean`."""
    count = len(values)
    observed = quantiles(values, [q])[0] if count else None
    if interval == "none" or observed is None or (count < 2 and interval == "bootstrap"):
        judged = judge_value(observed, count, rule, holds=observed is not None and scale.reaches(observed))
        if interval == "exact":
            return replace(judged, samples_needed=_quantile_samples(1.0, q, scale, rule))
        return judged if interval == "none" else _undecided(judged, rule)
    if interval == "exact" and rule.sequential:
        return _quantile_watched(values, q, observed, scale, rule)
    if interval == "exact":
        bounds = exact_quantile_bounds(values, q, rule.confidence, scale.low, scale.high)
        good = values >= scale.limit if scale.better == "higher" else values <= scale.limit
        needed = _quantile_samples(int(good.sum()) / count, q, scale, rule)
    else:
        bounds = outwards(bootstrap_quantile_bounds(values, q, rule.confidence, rule.seed), scale.low, scale.high)
        needed = _scaled(observed, bounds, scale, count)
    return _decided(Judged("inconclusive", observed, *bounds, count), scale, rule, needed, exact=interval == "exact")


def _quantile_watched(values: _Values, q: float, observed: float, scale: Scale, rule: Rule) -> Judged:
    """A quantile is good enough exactly where enough samples are: a share, whose bounds may be watched.

    None are told of the quantile itself: no order statistic has one that holds at every number of samples.
    """
    good = values >= scale.limit if scale.better == "higher" else values <= scale.limit
    share = judge_share(good, Scale(1 - q if scale.better == "higher" else q, "higher"), rule)
    return replace(share, observed=observed, lower=None, upper=None, successes=None)


def _quantile_samples(share: float, q: float, scale: Scale, rule: Rule) -> int | None:
    """A quantile is good enough exactly where enough samples are: how many decide if this share of them is."""
    return rule.samples_for_share(share, 1 - q if scale.better == "higher" else q)


def judge_gain(won: int, lost: int, count: int, scale: Scale, rule: Rule) -> Judged:
    """The difference of two paired shares, exactly: what was won minus what was lost, each with half of the risk.

    Of the four ways in which a pair can fall, two do not change the difference. The counts of the others have exact
    bounds each, and the risk that either is wrong is at most the sum, whatever they have to do with each other.

    Args:
        won: Pairs that only the new one gets right.
        lost: Pairs that only the old one gets right.
        count: Pairs in all.
        scale: About the difference.
        rule: How sure one wants to be.
    """
    if count == 0:
        return _undecided(Judged("inconclusive"), rule)
    half = 1 - (1 - rule.confidence) / 2
    gains, losses = clopper_pearson(won, count, half), clopper_pearson(lost, count, half)
    bounds = outwards(Bounds(gains.lower - losses.upper, gains.upper - losses.lower), -1.0, 1.0)
    observed = (won - lost) / count
    found = Judged("inconclusive", observed, *bounds, count)
    return _decided(found, scale, rule, _scaled(observed, bounds, scale, count), exact=True)


def _decided(found: Judged, scale: Scale, rule: Rule, needed: int | None, *, exact: bool) -> Judged:
    assert found.lower is not None and found.upper is not None  # noqa: PT018 - of one kind
    bounds, enough = Bounds(found.lower, found.upper), found.samples >= rule.min_samples
    if scale.refuted(bounds) and (enough or exact):
        return replace(found, outcome="fail")
    decided = scale.shown(bounds) or scale.refuted(bounds)
    if decided and enough:
        return replace(found, outcome="pass")
    if decided:
        return replace(found, samples_needed=rule.min_samples)
    return replace(found, samples_needed=None if needed is None else max(needed, rule.min_samples, found.samples + 1))


def _undecided(judged: Judged, rule: Rule) -> Judged:
    """Too few to have a bound at all: nobody can say how many it takes, but fewer than these never do."""
    return replace(judged, outcome="inconclusive", samples_needed=max(rule.min_samples, 2))


def _scaled(observed: float, bounds: Bounds, scale: Scale, count: int) -> int | None:
    """Bounds narrow with the root of the samples: where the nearer side would meet the limit if nothing else moved."""
    towards = bounds.lower if observed > scale.limit else bounds.upper
    return samples_for_width(count, abs(observed - towards), abs(observed - scale.limit))
