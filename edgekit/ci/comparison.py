"""Two bundles side by side: what they are, what their policies say, how they were made, and what changed on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.layout import LINEAGE, POLICY, RECIPE, SCORES
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.open import Bundle
from edgekit.ci.changes import Changes, changes_since
from edgekit.ci.differences import Difference, differences
from edgekit.ci.latency_view import LatencyPair, StoredLatency, pair_latencies, stored_latency
from edgekit.ci.pairing import pair_samples, same_question, scored
from edgekit.policy.policy import Policy
from edgekit.verify.gate import GateResult, gate

__all__ = ["Comparison", "Side", "compare_bundles"]

_DOCUMENTS = {"recipe": RECIPE, "policy": POLICY, "lineage": LINEAGE}


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        source: The bundle as it was named.
        manifest: What it is.
        engine_bytes: Size of the artifact that ships; None where a device has yet to build it.
        total_bytes: Size of all of its files.
        result: What the gate says under its own policy; None where it was never verified.
        latency: As stored.
    """

    source: str
    manifest: Manifest
    engine_bytes: int | None
    total_bytes: int
    result: GateResult | None
    latency: StoredLatency | None

    @property
    def outcome(self) -> str:
        """The gate's outcome, or "not verified"."""
        return "not verified" if self.result is None else self.result.outcome

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        manifest = self.manifest
        return {
            "bundle": manifest.digest,
            "target": manifest.target,
            "engine": manifest.engine,
            "precision": manifest.precision,
            "status": manifest.status,
            "created_with": manifest.created_with,
            "engine_bytes": self.engine_bytes,
            "total_bytes": self.total_bytes,
            "outcome": self.outcome,
            "policy": None if self.result is None else self.result.verdict.policy.name,
            "samples": None if self.result is None else self.result.verdict.samples,
            "latency": None if self.latency is None else self.latency.to_dict(),
        }


@dataclass(frozen=True)
class Comparison:
    """Two bundles, the older one first.

    Attributes:
        before: The older one.
        after: The newer one.
        changes: On the images that both were verified on; None where that would say nothing.
        unpaired: Why `changes` is None; empty otherwise.
        latency: Whether the two latencies make a ratio.
        documents: Name of a document ("recipe") to where it differs.
    """

    before: Side
    after: Side
    changes: Changes | None
    unpaired: str
    latency: LatencyPair
    documents: dict[str, tuple[Difference, ...]]

    @property
    def worse(self) -> tuple[str, ...]:
        """What is shown to have got worse, a phrase each."""
        return () if self.changes is None else self.changes.worse

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "worse": list(self.worse),
            "changes": None if self.changes is None else self.changes.to_dict(),
            "unpaired": self.unpaired,
            "latency": self.latency.to_dict(),
            "differences": {name: [item.to_dict() for item in found] for name, found in self.documents.items()},
        }


def compare_bundles(
    before: tuple[Path, Bundle], after: tuple[Path, Bundle], policy: Policy | None = None
) -> Comparison:
    """Compare two bundles.

    Args:
        before: The older one: as it was named, and opened.
        after: The newer one.
        policy: Judges both where their scores are paired; by default the newer one's own.

    Raises:
        EdgekitError: What `gate` raises of a bundle that was verified.
    """
    sides = [_side(path, bundle) for path, bundle in (before, after)]
    changes, reason = _changes(before[1], after[1], policy)
    return Comparison(
        before=sides[0],
        after=sides[1],
        changes=changes,
        unpaired=reason,
        latency=pair_latencies(sides[0].latency, sides[1].latency),
        documents={
            name: differences(before[1].read_json(file), after[1].read_json(file)) for name, file in _DOCUMENTS.items()
        },
    )


def _side(path: Path, bundle: Bundle) -> Side:
    manifest = bundle.manifest
    shipped = None if bundle.awaits_device else bundle.model_path.relative_to(bundle.folder).as_posix()
    return Side(
        source=path.as_posix(),
        manifest=manifest,
        engine_bytes=None if shipped is None else manifest.files[shipped].size,
        total_bytes=sum(ref.size for ref in manifest.files.values()),
        result=gate(bundle) if SCORES in bundle else None,
        latency=stored_latency(bundle),
    )


def _changes(before: Bundle, after: Bundle, policy: Policy | None) -> tuple[Changes | None, str]:
    for word, bundle in (("older", before), ("newer", after)):
        if SCORES not in bundle:
            return None, f"the {word} bundle was never verified"
    older, newer = scored(before), scored(after)
    reason = same_question(older, newer)
    if reason:
        return None, f"the scores are not about the same thing: {reason}"
    if not len(pair_samples(older.table.sample, newer.table.sample)):
        return None, "the golden sets share no image"
    return changes_since(before, newer, gate(after, policy).verdict), ""
