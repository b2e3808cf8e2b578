"""Numbers as people write them: few digits, rounded to the side on which less is demanded."""

from __future__ import annotations

import math
from collections.abc import Iterator

from edgekit.metrics.agreement import METRICS

__all__ = ["written_gap", "written_share", "written_value"]

_MANTISSAS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
_SHARES = (*(step / 20 for step in range(1, 19)), 0.95, 0.97, 0.98, 0.99)
_MOST_DIGITS = 6
# Two gaps nearer than this are one number: sums of float64 are no better.
_ROUNDING = 1e-12


def written_gap(exact: float, floor: float, ceiling: float) -> float | None:
    """A gap from a metric's best that people write, at least `exact` where that leaves it below `ceiling`.

    Args:
        exact: Above 0, from `floor` to `ceiling`.
        floor: The result is at least this, so that noise stays within.
        ceiling: The result is below this, so that controls do not.

    Returns:
        The gap; None where there is no number of at most six digits between the two.
    """
    for candidate in _candidates(exact):
        if floor + _ROUNDING <= candidate <= ceiling - _ROUNDING:
            return candidate
    return None


def _candidates(exact: float) -> Iterator[float]:
    """Written numbers around `exact`: upwards, downwards, then with more and more digits."""
    exponent = math.floor(math.log10(exact))
    ladder = [_scaled(mantissa, power) for power in (exponent, exponent + 1) for mantissa in _MANTISSAS]
    yield from [step for step in ladder if step >= exact][:1]
    yield from [step for step in ladder if step <= exact][-1:]
    for digits in range(1, _MOST_DIGITS):
        yield _scaled(math.ceil(exact * 10.0 ** (digits - exponent)), exponent - digits)
        yield _scaled(math.floor(exact * 10.0 ** (digits - exponent)), exponent - digits)


def _scaled(mantissa: float, power: int) -> float:
    return float(f"{mantissa:.12g}e{power}")


def written_share(exact: float, floor: float) -> float | None:
    """The largest share that people write which is at most `exact`, above `floor`; None where there is none.

    Args:
        exact: Above 0 and below 1.
        floor: The result is above this.
    """
    steps = [*[step for step in _SHARES if step <= exact][-1:], math.floor(exact * 100) / 100]
    return next((step for step in steps if step > floor and step > 0), None)


def written_value(metric: str, gap: float) -> str:
    """A metric's value, given by its gap, in few digits that do not hide how near the best it is."""
    known = METRICS[metric]
    if known.better == "lower":
        return f"{known.best + gap:.2g}"
    if gap == 0:
        return f"{known.best:g}"
    return f"{known.best:g} - {gap:.1e}" if gap < 1e-3 else f"{known.best - gap:.4g}"
