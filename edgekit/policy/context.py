"""What a policy may look at beside the scores: an older release's scores, and what the engine costs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import IntegrityError
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import scores_from_dict, scores_to_dict

__all__ = ["BASELINE_FORMAT", "NOTHING_BESIDE", "Baseline", "Context"]

BASELINE_FORMAT = "edgekit.baseline/1"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Baseline:
    """An older release to be no worse than.

    Attributes:
        digest: Of its manifest.
        table: Its scores. Samples are paired by their digests, so the golden sets may differ in part.
    """

    digest: str
    table: ScoreTable

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, stored with what was judged by it, so that a gate finds the same."""
        return {"format": BASELINE_FORMAT, "bundle": self.digest, "scores": scores_to_dict(self.table)}

    @classmethod
    def from_dict(cls, raw: object, *, where: str) -> Baseline:
        """Read a stored baseline.

        Raises:
            IntegrityError: It is malformed.
        """
        keys = {"format", "bundle", "scores"}
        if not isinstance(raw, Mapping) or set(raw) != keys or raw["format"] != BASELINE_FORMAT:
            raise IntegrityError(
                "A baseline is malformed.",
                where=where,
                expected=f"{BASELINE_FORMAT} with {', '.join(sorted(keys))}",
                found=", ".join(sorted(map(str, raw))) if isinstance(raw, Mapping) else type(raw).__name__,
            )
        if not isinstance(raw["bundle"], str) or not _SHA256.fullmatch(raw["bundle"]):
            raise IntegrityError(
                "A baseline does not name its bundle.",
                where=where,
                expected="SHA-256 in lower-case hexadecimal",
                found=ascii(raw["bundle"]),
            )
        return cls(raw["bundle"], scores_from_dict(raw["scores"], where=f"{where}: scores"))


@dataclass(frozen=True)
class Context:
    """What stands beside the scores when a policy is judged.

    Attributes:
        baseline: The older release; None where none was named.
        costs: Name of a cost (see `edgekit.policy.release_clauses.COSTS`) to its measured value; a cost that was not
            measured is not in it.
    """

    baseline: Baseline | None = None
    costs: Mapping[str, float] = field(default_factory=dict)


NOTHING_BESIDE = Context()
