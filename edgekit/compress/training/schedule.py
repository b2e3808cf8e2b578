"""The learning rate of every step."""

from __future__ import annotations

import math

from edgekit.compress.options import FinetuneOptions

__all__ = ["learning_rate_at"]


def learning_rate_at(options: FinetuneOptions, step: int, steps: int) -> float:
    """Rate of step 0 <= `step` < `steps`.

    Constant; half a cosine from the full rate down towards zero; or multiplied by `step_factor` at each of `step_at`.
    """
    if options.schedule == "constant":
        return options.learning_rate
    if options.schedule == "step":
        # A share such as 0.55 of 20 steps comes out a little above 11.
        passed = sum(step >= at * steps - 1e-9 * steps for at in options.step_at)
        return options.learning_rate * options.step_factor**passed
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
