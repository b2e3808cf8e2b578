"""From verified candidates to a bundle: choose, report, pack.

Everything is read back from what the stages wrote, so this is the same whether the stages ran a moment ago, on
another day, or one by one by hand.
"""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import MapSpec
from edgekit.bench.result import PERCENTILES, LatencyReport, LatencyResult
from edgekit.bundle import layout
from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import GoldenSet, read_golden
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.open import open_bundle
from edgekit.bundle.pack import write_tar
from edgekit.config.recipe import Recipe, recipe_to_dict
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.core.digests import digest_bytes
from edgekit.core.files import foreign_os_errors, read_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import StageRecord
from edgekit.errors import EdgekitError
from edgekit.interface.card import ModelCard
from edgekit.metrics.classification import accuracy
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import read_scores
from edgekit.pipeline.candidates import CandidateId, float_partner
from edgekit.pipeline.engine_files import artifact_path, engine_contents
from edgekit.pipeline.engines import EnginesRun
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.latency import LATENCY_NAME
from edgekit.pipeline.retire import retire_others
from edgekit.pipeline.told_controls import control_summaries
from edgekit.policy.context import Baseline, Context
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import Verdict, judge
from edgekit.report.data import CandidateSummary, ReportData
from edgekit.report.write import write_report
from edgekit.verify.beside import counts_as_shipped, latency_costs
from edgekit.verify.control_files import CONTROLS_NAME, control_file, controls_from_files
from edgekit.verify.gate import GateResult, with_controls
from edgekit.verify.select import Candidate, Judged, Selection, select
from edgekit.verify.stage import EVIDENCE_NAME, LOGITS_NAME, MAPS_NAME, SCORES_NAME

__all__ = ["BuildResult", "ReleaseRequest", "make_release"]


@dataclass(frozen=True)
class ReleaseRequest:
    """What is released.

    Attributes:
        folders: Where the stages lie.
        target: Target name.
        engines: The candidates, and the engines that did not compete.
        recipe: The resolved recipe.
        policy: What is demanded.
        records: What each stage did, by name.
        contents: Bundle path to further files that travel with it.
        lineage: Further names and digests of what it came from.
        baseline: The release that a policy may compare with.
    """

    folders: BuildFolders
    target: str
    engines: EnginesRun
    recipe: Recipe
    policy: Policy
    records: Mapping[str, StageRecord]
    contents: Mapping[str, Path | bytes] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)
    baseline: Baseline | None = None


@dataclass(frozen=True)
class BuildResult:
    """How a build ended.

    Attributes:
        folder: The bundle: `release/` when it was released, else `candidate/`.
        manifest: Its manifest.
        judged: What the policy says about the engine in it, and about the controls.
        selection: Which candidate that is, and why.
        findings: What the diagnosis said about a mismatch, as text.
        records: What each stage did, by name.
    """

    folder: Path
    manifest: Manifest
    judged: GateResult
    selection: Selection
    findings: tuple[Mapping[str, Any], ...]
    records: Mapping[str, StageRecord]

    @property
    def verdict(self) -> Verdict:
        """Of the policy, about the scores of the engine in it."""
        return self.judged.verdict

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / layout.REPORT_HTML

    @property
    def archive(self) -> Path:
        """The bundle as one file."""
        return self.folder.with_suffix(".tar")


@dataclass(frozen=True)
class _Verified:
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


def make_release(request: ReleaseRequest, observer: Observer = NULL_OBSERVER) -> BuildResult:
    """Choose among the verified candidates and write the bundle, as a folder and as a tar file.

    Raises:
        BadInputError: A stage's files are missing.
        IntegrityError: They are malformed.
        UnavailableError: The disk is full.
    """
    observer.stage_started("bundle")
    begun = time.monotonic()
    folders = request.folders
    golden = read_golden(folders.golden)
    latency_file = folders.latency / LATENCY_NAME
    latency = LatencyReport.from_dict(read_json(latency_file), where=str(latency_file))
    verified = {item.name: _verified(request, item, golden, latency) for item in request.engines.candidates}
    selection = select(
        {name: item.candidate for name, item in verified.items()},
        request.recipe.select,
        timed=latency,
        absent=request.engines.absent,
    )
    chosen = verified[selection.chosen]
    destination = folders.bundle(selection.status)
    lineage = {name: record.key for name, record in request.records.items()} | dict(request.lineage)
    lineage["teacher"] = golden.teacher
    lineage |= _beside_the_scores(request)
    lineage["recipe"] = digest_bytes(dump_canonical(recipe_to_dict(request.recipe)))
    # First, so that a kill can leave no bundle but never the release of a build that is now blocked.
    retire_others(folders, selection.status)
    manifest = _unchanged(destination, lineage, selection)
    skipped = manifest is not None
    if manifest is None:
        manifest = _write(request, golden, selection, verified, latency, lineage, destination, observer)
    observer.stage_finished(
        "bundle",
        skipped=skipped,
        seconds=time.monotonic() - begun,
        summary=f"{selection.status}: {destination.name}/",
    )
    return BuildResult(
        folder=destination,
        manifest=manifest,
        judged=chosen.judged,
        selection=selection,
        findings=tuple(chosen.evidence["findings"]),
        records=request.records,
    )


def _beside_the_scores(request: ReleaseRequest) -> dict[str, str]:
    """What the verdict comes from and no stage has in its key."""
    lineage = {}
    if request.policy.of_scores() is not request.policy:
        lineage["policy"] = digest_bytes(dump_canonical(request.policy.to_dict()))
    if request.baseline is not None:
        lineage["baseline"] = request.baseline.digest
    return lineage


def _verified(request: ReleaseRequest, item: CandidateId, golden: GoldenSet, latency: LatencyReport) -> _Verified:
    name, folder = item.name, request.folders.verify(item.name)
    table = read_scores(folder / SCORES_NAME, classes=len(golden.card.classes))
    partner = float_partner(item, request.engines.candidates).name
    artifact = artifact_path(request.folders, item.engine, name).stat().st_size
    costs = latency_costs(latency, name, partner)
    costs |= {"artifact-bytes": float(artifact), "bundle-bytes": float(_shipped_bytes(request, item))}
    document = folder / CONTROLS_NAME
    controls = controls_from_files(
        read_bytes(document), lambda file: read_bytes(folder / file), golden, table, where=str(document)
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
    return _Verified(item, candidate, table, judged, read_json(folder / EVIDENCE_NAME))


def _unchanged(destination: Path, lineage: Mapping[str, str], selection: Selection) -> Manifest | None:
    """The manifest of a bundle already made from these very stages, if it is sound."""
    try:
        with open_bundle(destination) as opened:
            found = opened.manifest
            stored = opened.read_json(layout.CANDIDATES)
    except EdgekitError:
        return None
    same = dict(found.lineage) == dict(lineage) and stored == selection.to_dict()
    return found if same and destination.with_suffix(".tar").is_file() else None


def _write(  # noqa: PLR0913, PLR0917 - one call, one place: every part of a bundle
    request: ReleaseRequest,
    golden: GoldenSet,
    selection: Selection,
    verified: Mapping[str, _Verified],
    latency: LatencyReport,
    lineage: Mapping[str, str],
    destination: Path,
    observer: Observer,
) -> Manifest:
    folders, name = request.folders, selection.chosen
    chosen = verified[name]
    contents: dict[str, Path | bytes] = {
        **_shipped(request, chosen.id),
        layout.SCORES: folders.verify(name) / SCORES_NAME,
        layout.VERDICT: dump_canonical(chosen.verdict.to_dict()),
        layout.LATENCY: dump_canonical(latency.to_dict()),
        layout.CANDIDATES: dump_canonical(selection.to_dict()),
        **_controls_contents(folders.verify(name), chosen.judged),
        **request.contents,
    }
    if request.baseline is not None:
        contents[layout.BASELINE] = dump_canonical(request.baseline.to_dict())
    with foreign_os_errors(destination, "write the report"):
        scratch = Path(tempfile.mkdtemp(prefix="edgekit-report-"))
    card, map_spec = _of_the_engine(folders)
    try:
        write_report(_report_data(request, golden, selection, verified, latency), scratch)
        contents |= contents_from_folder("report", scratch)
        wanted = BundleRequest(
            target=request.target,
            engine=chosen.id.engine,
            precision=chosen.id.precision,
            status=selection.status,
            card=card,
            map_spec=map_spec,
            contents=contents,
            lineage=lineage,
        )
        manifest = bundle(wanted, destination, observer)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_tar(destination, destination.with_suffix(".tar"))
    return manifest


def _shipped(request: ReleaseRequest, item: CandidateId) -> dict[str, Path | bytes]:
    """What a bundle of this candidate holds beside evidence, report and what travels with every bundle."""
    folders = request.folders
    partner = None if item.precision == "fp32" else float_partner(item, request.engines.candidates).name
    contents: dict[str, Path | bytes] = {
        **engine_contents(folders, item, partner),
        layout.POLICY: dump_canonical(request.policy.to_dict()),
        layout.RECIPE: dump_canonical(recipe_to_dict(request.recipe)),
        layout.LINEAGE: dump_canonical({stage: record.to_dict() for stage, record in request.records.items()}),
        **contents_from_folder(layout.GOLDEN, folders.golden),
    }
    contents.pop(f"{layout.GOLDEN}/record.json", None)
    if item.precision == "int8":
        contents[layout.SCALES] = folders.final_calibrate / "scales.json"
    return contents


def _shipped_bytes(request: ReleaseRequest, item: CandidateId) -> int:
    """Size of what counts of the bundle that this candidate would make."""
    contents = {**_shipped(request, item), **request.contents}
    return sum(
        len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in contents.items()
        if counts_as_shipped(name)
    )


def _controls_contents(verified: Path, judged: GateResult) -> dict[str, Path]:
    """The controls' document, and the scores of each beside it."""
    place = PurePosixPath(layout.CONTROLS).parent
    files = (control_file(control.name) for control in judged.controls)
    return {layout.CONTROLS: verified / CONTROLS_NAME} | {f"{place}/{file}": verified / file for file in files}


def _of_the_engine(folders: BuildFolders) -> tuple[ModelCard, MapSpec]:
    """Card and maps of the network that ships: a student may have taps of its own."""
    path = folders.export / "interface.json"
    interface = read_json(path)
    return (
        ModelCard.from_dict(interface["card"], where=str(path)),
        MapSpec.from_dict(interface["map"], where=str(path)),
    )


def _report_data(
    request: ReleaseRequest,
    golden: GoldenSet,
    selection: Selection,
    verified: Mapping[str, _Verified],
    latency: LatencyReport,
) -> ReportData:
    chosen = verified[selection.chosen]
    # One column of ratios has one baseline: FP32 on the preferred engine.
    baseline = float_partner(request.engines.candidates[0], request.engines.candidates).name
    answers = request.folders.verify(selection.chosen)
    maps, own_maps = _array(answers / MAPS_NAME)
    return ReportData(
        title=str(request.records["golden"].facts["model"]),
        target=request.target,
        status=selection.status,
        golden=golden,
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
        latency={name: _percentiles(result) for name, result in latency.results.items()},
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


def _percentiles(result: LatencyResult) -> dict[str, float]:
    return {f"p{percent}_ms": result.percentile_ms(percent) for percent in PERCENTILES} | {
        "images_per_s": result.throughput
    }


def _summary(item: _Verified, judged: Judged, *, shipped: bool, latency_ratio: float) -> CandidateSummary:
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
