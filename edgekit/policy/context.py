"""What a policy may look at beside the scores: an older release's scores, and what the engine costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.metrics.scores import ScoreTable

__all__ = ["NOTHING_BESIDE", "Baseline", "Context"]


@dataclass(frozen=True)
class Baseline:
    """An older release to be no worse than.

    Attributes:
        digest: Of its manifest.
        table: Its scores. Samples are paired by their digests, so the golden sets may differ in part.
    """

    digest: str
    table: ScoreTable


@dataclass(frozen=True)
class Context:
    """What stands beside the scores when a policy is judged.

    Attributes:
        baseline: The older release; None where none was named.
        costs: Name of a cost (see `edgekit.policy.clauses`) to its measured value; a cost that was not measured is
            not in it.
    """

    baseline: Baseline | None = None
    costs: Mapping[str, float] = field(default_factory=dict)


NOTHING_BESIDE = Context()
