"""What a diagnosis says, and how the searches for faults measure that undoing one restores the match."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import score_agreement

__all__ = ["Finding", "Maps", "best_of_each", "closes", "logit_error", "mean_cosine"]

Maps = npt.NDArray[np.float32]

# A fault counts as found when undoing it closes at least this share of the gap to a perfect match.
_CLOSES = 0.5
# Gaps smaller than this are not worth an explanation.
_SMALLEST_GAIN = 0.02


@dataclass(frozen=True)
class Finding:
    """One explanation of a mismatch.

    Attributes:
        fault: Short stable name, such as "map-shifted".
        text: What it means and what to look at, in a sentence.
        before: The measure named in the text, as it is.
        after: The same with the fault undone; equal to `before` where nothing can be undone.
    """

    fault: str
    text: str
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


def mean_cosine(teacher: Maps, engine: Maps) -> float:
    """Mean cosine under the rules for degenerate maps: -1 where one vanished or is not finite; 0 without any pair."""
    scores = score_agreement(teacher, np.ascontiguousarray(engine), ("cosine",)).metrics["cosine"]
    compared = scores[~np.isnan(scores)]
    return float(np.mean(compared)) if len(compared) else 0.0


def logit_error(teacher: npt.NDArray[np.float32], engine: npt.NDArray[np.float32]) -> float:
    """Root mean square of the difference of logits [N, classes], as a share of the standard deviation of the teacher's.

    Infinite where a logit is not finite.
    """
    difference = engine.astype(np.float64) - teacher.astype(np.float64)
    if not np.isfinite(difference).all():
        return float("inf")
    return float(np.sqrt(np.mean(difference**2)) / max(float(teacher.std(dtype=np.float64)), 1e-30))


def closes(before: float, after: float) -> bool:
    """Whether `after` comes much nearer to 1 than `before`."""
    return after - before > _CLOSES * (1 - before) and after - before > _SMALLEST_GAIN


def best_of_each(findings: Iterable[Finding]) -> list[Finding]:
    """Of findings that name the same fault, the one that leaves the smallest gap: half a shift closes half of one."""
    best: dict[str, Finding] = {}
    for finding in findings:
        known = best.get(finding.fault)
        if known is None or finding.after > known.after:
            best[finding.fault] = finding
    return list(best.values())
