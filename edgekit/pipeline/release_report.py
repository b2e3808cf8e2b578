"""What the report of a release tells: gathered from the stages of every candidate."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit.bench.result import LatencyReport
from edgekit.bundle.golden import GoldenSet
from edgekit.config.recipe import recipe_to_dict
from edgekit.core.files import read_bytes
from edgekit.pipeline.candidates import float_partner
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.pipeline.told_controls import control_summaries
from edgekit.pipeline.verified import VerifiedCandidate
from edgekit.report.data import CandidateSummary, ReportData
from edgekit.verify.select import Judged, Selection
from edgekit.verify.sequence import judged_part
from edgekit.verify.stage import LOGITS_NAME, MAPS_NAME

__all__ = ["release_report"]


def release_report(
    request: ReleaseRequest,
    golden: GoldenSet,
    selection: Selection,
    verified: Mapping[str, VerifiedCandidate],
    latency: LatencyReport,
) -> ReportData:
    """What the report of a release tells, gathered from what the stages wrote."""
    chosen = verified[selection.chosen]
    # One column of ratios has one baseline: FP32 on the preferred engine.
    baseline = float_partner(request.engines.candidates[0], request.engines.candidates).name
    answers = request.folders.verify(selection.chosen)
    maps, own_maps = _array(answers / MAPS_NAME)
    return ReportData(
        title=str(request.records["golden"].facts["model"]),
        target=request.target,
        status=selection.status,
        golden=judged_part(golden, request.policy, len(chosen.table)),
        table=chosen.table,
        verdict=chosen.verdict,
        findings=tuple(chosen.evidence["findings"]),
        engine_maps=maps,
        own_maps=own_maps,
        candidates=tuple(
            _summary(
                verified[item.candidate.name],
                item,
                shipped=selection.ships(item.candidate.name),
                latency_ratio=latency.ratio(item.candidate.name, baseline).median,
            )
            for item in selection.judged
        ),
        stages=tuple(request.records.values()),
        latency={name: result.in_numbers() for name, result in latency.results.items()},
        environment=chosen.evidence["environment"],
        recipe=recipe_to_dict(request.recipe),
        compression=request.records["compress"].facts,
        engine=chosen.evidence["engine"],
        engine_logits=_array(answers / LOGITS_NAME),
        judged=selection.chosen,
        controls=control_summaries(chosen.judged.controls),
        controls_state=chosen.judged.controls_state,
        engines_absent=tuple({"engine": item.engine, "reason": item.reason} for item in selection.absent),
    )


def _array(path: Path) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    return array


def _summary(item: VerifiedCandidate, judged: Judged, *, shipped: bool, latency_ratio: float) -> CandidateSummary:
    compared = item.table.compared
    some = bool(compared.any())
    means = {name: float(np.mean(row[compared])) if some else np.nan for name, row in item.table.metrics.items()}
    candidate = item.candidate
    return CandidateSummary(
        name=candidate.name,
        precision=candidate.precision,
        bytes=candidate.bytes,
        outcome=candidate.outcome,
        agreement=candidate.agreement,
        accuracy=candidate.accuracy,
        means=means,
        latency_p50_ms=candidate.latency_p50_ms,
        latency_ratio=latency_ratio,
        shipped=shipped,
        reason=judged.reason,
        engine=candidate.engine,
    )
