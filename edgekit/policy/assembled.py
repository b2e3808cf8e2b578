"""From what samples say to the result of a clause, still without its words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.policy.clauses import Clause
from edgekit.policy.result import ClauseOutcome, ClauseResult, Judged

__all__ = ["in_full", "not_measured"]

_WORST_KEPT = 10


def in_full(clause: Clause, judged: Judged, worst: npt.NDArray[np.intp]) -> ClauseResult:
    """The result of a clause that samples spoke about.

    Args:
        clause: The demand.
        judged: What they say.
        worst: Indices of the samples that speak against it, worst first; the first few are kept.
    """
    return ClauseResult(
        clause,
        "",
        "",
        judged.outcome,
        judged.observed,
        judged.lower,
        judged.upper,
        judged.samples,
        judged.successes,
        judged.samples_needed,
        tuple(int(place) for place in worst[:_WORST_KEPT]),
    )


def not_measured(clause: Clause, *, required: bool = True) -> ClauseResult:
    """The result of a clause that nothing speaks about: inconclusive, or not measured where that is allowed for."""
    outcome: ClauseOutcome = "inconclusive" if required else "not-measured"
    return ClauseResult(clause, "", "", outcome, None, None, None, 0, None, None, (), measured=False)
