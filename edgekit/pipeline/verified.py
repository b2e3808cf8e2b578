"""One candidate as its stages left it, judged beside what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.bench.result import LatencyReport
from edgekit.bundle.golden import GoldenSet
from edgekit.core.canonical import read_json
from edgekit.core.files import read_bytes
from edgekit.metrics.classification import accuracy
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import read_scores
from edgekit.pipeline.candidates import CandidateId, float_partner
from edgekit.pipeline.engine_files import artifact_path
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.pipeline.shipped import shipped_bytes
from edgekit.policy.context import Context
from edgekit.policy.verdict import Verdict, judge
from edgekit.verify.beside import latency_costs
from edgekit.verify.control_files import CONTROLS_NAME, controls_from_files
from edgekit.verify.gate import GateResult, with_controls
from edgekit.verify.select import Candidate
from edgekit.verify.sequence import judged_part
from edgekit.verify.stage import EVIDENCE_NAME, SCORES_NAME

__all__ = ["VerifiedCandidate", "verified_candidate"]


@dataclass(frozen=True)
class VerifiedCandidate:
    """One candidate as its stages left it."""

    id: CandidateId
    candidate: Candidate
    table: ScoreTable
    judged: GateResult
    evidence: Mapping[str, Any]

    @property
    def verdict(self) -> Verdict:
        """Of the policy, about its scores."""
        return self.judged.verdict


def verified_candidate(
    request: ReleaseRequest, item: CandidateId, golden: GoldenSet, latency: LatencyReport
) -> VerifiedCandidate:
    """Read what the stages wrote of a candidate, and judge it beside its costs, the baseline and the controls."""
    name, folder = item.name, request.folders.verify(item.name)
    table = read_scores(folder / SCORES_NAME, classes=len(golden.card.classes))
    partner = float_partner(item, request.engines.candidates).name
    artifact = artifact_path(request.folders, item.engine, name).stat().st_size
    costs = latency_costs(latency, name, partner)
    costs |= {"artifact-bytes": float(artifact), "bundle-bytes": float(shipped_bytes(request, item))}
    document, about = folder / CONTROLS_NAME, judged_part(golden, request.policy, len(table))
    controls = controls_from_files(
        read_bytes(document), lambda file: read_bytes(folder / file), about, table, where=str(document)
    )
    judged = with_controls(judge(request.policy, table, Context(request.baseline, costs)), controls)
    labelled = accuracy(table.label, table.engine_class)
    candidate = Candidate(
        name=name,
        engine=item.engine,
        precision=item.precision,
        outcome=judged.outcome,
        agreement=float(np.mean(table.agrees)),
        accuracy=labelled.successes / labelled.total if labelled.total else None,
        latency_p50_ms=latency.results[name].percentile_ms(50),
        latency_ratio=latency.ratio(name, partner).median,
        bytes=artifact,
    )
    return VerifiedCandidate(item, candidate, table, judged, read_json(folder / EVIDENCE_NAME))
