"""The report of a bundle that was built long ago: its stored evidence, told again with controls and blame.

What is judged are the stored scores, as the gate judges them. The engine is run once more, here, because a bundle does
not hold its maps, and pictures need them; where it answers otherwise than its scores say, nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bench.result import LatencyReport
from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.layout import CANDIDATES, LATENCY, LINEAGE, RECIPE
from edgekit.bundle.open import Bundle, open_bundle
from edgekit.core.canonical import read_json
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import StageRecord, record_from_dict
from edgekit.errors import BadInputError, IntegrityError
from edgekit.metrics.scores import ScoreTable
from edgekit.pipeline.told_controls import control_summaries
from edgekit.policy.policy import Policy
from edgekit.report.data import CandidateSummary, ReportData, Status
from edgekit.report.headline import headline
from edgekit.report.write import HTML_NAME, write_report
from edgekit.verify.gate import GateResult, bundle_policy, bundle_scores, gate
from edgekit.verify.sequence import judged_part
from edgekit.verify.stage import Verification, VerifyRequest, verify_engine

__all__ = ["BundleReport", "BundleReportRequest", "blame_beside", "report_bundle", "report_file"]

_BLAME_PLACES = ("blame.json", "edgekit-blame/blame.json", "blame/blame.json")
_ORDER = ("golden", "compress", "export", "calibrate", "qat", "build", "verify", "latency")
# Kernels of another processor round otherwise: maps move a little, and an answer on the fence may flip.
_MOST_DRIFT, _MOST_FLIPS = 0.02, 0.02


@dataclass(frozen=True)
class BundleReportRequest:
    """What is told.

    Attributes:
        bundle: The opened bundle.
        blame: A `blame.json` about it; None tells nothing of hops.
        policy: Judge under this one instead of the bundle's own.
    """

    bundle: Bundle
    blame: Path | None = None
    policy: Policy | None = None


@dataclass(frozen=True)
class BundleReport:
    """A report that was written.

    Attributes:
        page: The HTML file; `report.json` lies beside it.
        status: "released", "blocked" or "inconclusive".
        headline: The verdict in one sentence.
        blame: The blame document that it tells of, None where there is none.
    """

    page: Path
    status: Status
    headline: str
    blame: Path | None


def blame_beside(bundle: Bundle, path: Path) -> Path | None:
    """The `blame.json` about this very bundle that lies beside it or in its build, None where there is none.

    Args:
        bundle: The opened bundle.
        path: Where it was opened from: a folder or a tar file.
    """
    for place in _BLAME_PLACES:
        file = path.resolve().parent / place
        if file.is_file() and _digest_told(file) == bundle.manifest.digest:
            return file
    return None


def report_bundle(request: BundleReportRequest, folder: Path, observer: Observer = NULL_OBSERVER) -> BundleReport:
    """Write `report.html` and `report.json` of a bundle into `folder`.

    Raises:
        BadInputError: The bundle was never verified, or the blame document is about another one.
        EvidenceNeededError: The device has yet to build its engine.
        IntegrityError: A file changed, the blame document is malformed, or the engine answers otherwise here than its
            scores say.
        UnavailableError: The engine's runtime or a package of the host side is not here.
    """
    bundle = request.bundle
    judged = gate(bundle, request.policy)
    blame = None if request.blame is None else _blame(request.blame, bundle)
    golden, own = bundle.golden(), bundle_policy(bundle)
    table = bundle_scores(bundle, golden)
    golden = judged_part(golden, own, len(table))
    # The samples that were looked at, all of them, and no others: where it was decided is known.
    whole = replace(request.policy or own, sequential=False)
    asked = VerifyRequest(bundle.manifest.engine, bundle.model_path, bundle.folder / "golden", whole)
    again = verify_engine(asked, golden, observer)
    _check_same(table, again.table)
    data = _report_data(bundle, golden, judged, table, again, blame)
    write_report(data, folder)
    return BundleReport(folder / HTML_NAME, data.status, headline(data), request.blame)


def report_file(
    path: Path,
    folder: Path,
    *,
    blame: Path | None = None,
    policy: Policy | None = None,
    observer: Observer = NULL_OBSERVER,
) -> BundleReport:
    """`report_bundle` of a folder or tar file; where no blame document is named, the one that lies beside is told."""
    with open_bundle(path) as opened:
        chosen = blame_beside(opened, path) if blame is None else blame
        return report_bundle(BundleReportRequest(opened, chosen, policy), folder, observer)


def _report_data(
    bundle: Bundle,
    golden: GoldenSet,
    judged: GateResult,
    table: ScoreTable,
    again: Verification,
    blame: Mapping[str, Any] | None,
) -> ReportData:
    manifest = bundle.manifest
    stages = _stages(bundle)
    chosen, candidates, absent = _candidates(bundle, table)
    told = {record.stage: record for record in stages}
    verified, built = told.get(f"verify-{chosen}"), told.get(f"build-{chosen}")
    # Bundles of one stage by hand hold no records; then what is known is the run a moment ago.
    engine = again.info.to_dict() if built is None else {"engine": manifest.engine, **built.facts.get("engine", {})}
    return ReportData(
        title=str(told["golden"].facts.get("model", manifest.target)) if "golden" in told else "bundle",
        target=manifest.target,
        status=_status(judged, manifest.status),
        golden=golden,
        table=table,
        verdict=judged.verdict,
        findings=tuple(finding.to_dict() for finding in again.findings),
        engine_maps=again.answers.maps,
        own_maps=again.answers.own_maps,
        candidates=candidates,
        stages=stages,
        latency=_latency(bundle),
        environment={} if verified is None else verified.options.get("environment", {}),
        recipe=bundle.read_json(RECIPE),
        compression=told["compress"].facts if "compress" in told else {},
        engine=engine,
        engine_logits=again.answers.logits,
        judged=chosen,
        engines_absent=absent,
        controls=control_summaries(judged.controls),
        controls_state=judged.controls_state,
        blame=blame,
    )


def _status(judged: GateResult, stored: str) -> Status:
    if judged.verdict.outcome == "inconclusive":
        return "inconclusive"
    return "released" if judged.verdict.outcome == "pass" and stored == "released" else "blocked"


def _check_same(stored: ScoreTable, found: ScoreTable) -> None:
    flips = float(np.mean(stored.engine_class != found.engine_class))
    before, after = stored.metrics.get("cosine"), found.metrics.get("cosine")
    drift = 0.0
    if before is not None and after is not None:
        both = ~np.isnan(before) & ~np.isnan(after)
        drift = float(np.abs(before[both] - after[both]).mean()) if both.any() else 0.0
    if flips > _MOST_FLIPS or drift > _MOST_DRIFT:
        raise IntegrityError(
            "The engine answers otherwise here than its stored scores say.",
            expected=f"at most {_MOST_FLIPS:.0%} other answers and {_MOST_DRIFT} of cosine, which processors differ by",
            found=f"{flips:.1%} other answers and {drift:.4f}",
            hint="run 'edgekit verify' on this bundle here, or make the report where it was verified",
        )


def _stages(bundle: Bundle) -> tuple[StageRecord, ...]:
    where = str(bundle.path(LINEAGE))
    raw = bundle.read_json(LINEAGE)
    if not isinstance(raw, Mapping):
        raise IntegrityError("The bundle's lineage is malformed.", where=where, found=type(raw).__name__)
    records = [record_from_dict(item, where=where) for item in raw.values()]

    def place(record: StageRecord) -> tuple[int, str]:
        name = record.stage.partition("-")[0]
        return (_ORDER.index(name) if name in _ORDER else len(_ORDER), record.stage)

    return tuple(sorted(records, key=place))


def _candidates(
    bundle: Bundle, table: ScoreTable
) -> tuple[str | None, tuple[CandidateSummary, ...], tuple[Mapping[str, str], ...]]:
    """Name of the chosen one, all of them, and the engines that did not compete; nothing where none are stored."""
    if CANDIDATES not in bundle:
        return None, (), ()
    stored = bundle.read_json(CANDIDATES)
    means = {name: float(np.nanmean(row)) if table.compared.any() else np.nan for name, row in table.metrics.items()}
    try:
        chosen = str(stored["chosen"])
        candidates = tuple(
            CandidateSummary(
                name=str(item["name"]),
                precision=str(item["precision"]),
                bytes=int(item["bytes"]),
                outcome=str(item["outcome"]),
                agreement=float(item["agreement"]),
                accuracy=item["accuracy"],
                # The scores of the others stayed in the build.
                means=means if item["name"] == chosen else {},
                latency_p50_ms=item["latency_p50_ms"],
                shipped=bool(item["shipped"]),
                reason=str(item["reason"]),
                latency_ratio=item.get("latency_ratio"),
                engine=str(item.get("engine", "")),
            )
            for item in stored["candidates"]
        )
        absent = tuple({key: str(item[key]) for key in ("engine", "reason")} for item in stored["engines_absent"])
    except (KeyError, TypeError, ValueError) as cause:
        raise IntegrityError(
            "The bundle's list of candidates is malformed.", where=str(bundle.path(CANDIDATES)), found=repr(cause)
        ) from cause
    return chosen, candidates, absent


def _latency(bundle: Bundle) -> dict[str, dict[str, float]] | None:
    if LATENCY not in bundle:
        return None
    stored = LatencyReport.from_dict(bundle.read_json(LATENCY), where=str(bundle.path(LATENCY)))
    return {name: result.in_numbers() for name, result in stored.results.items()}


def _digest_told(file: Path) -> str | None:
    try:
        raw = read_json(file)
    except (BadInputError, IntegrityError):
        return None
    return str(raw.get("bundle")) if isinstance(raw, Mapping) else None


def _blame(file: Path, bundle: Bundle) -> Mapping[str, Any]:
    raw = read_json(file)
    if not isinstance(raw, Mapping) or raw.get("bundle") != bundle.manifest.digest:
        raise BadInputError(
            "The blame document is about another bundle.",
            where=str(file),
            expected=f"the bundle with the digest {bundle.manifest.digest}",
            found=str(raw.get("bundle")) if isinstance(raw, Mapping) else type(raw).__name__,
            hint=f"run 'edgekit blame {bundle.folder}'",
        )
    return raw
