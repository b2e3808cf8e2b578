"""From verified candidates to a bundle: choose, report, pack.

Everything is read back from what the stages wrote, so this is the same whether the stages ran a moment ago, on
another day, or one by one by hand.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.attribution.spec import MapSpec
from edgekit.bench.result import LatencyReport
from edgekit.bundle import layout
from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import GoldenSet, read_golden
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.open import open_bundle
from edgekit.bundle.pack import write_tar
from edgekit.config.recipe import recipe_to_dict
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.core.digests import digest_bytes
from edgekit.core.files import foreign_os_errors
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import StageRecord
from edgekit.errors import EdgekitError
from edgekit.interface.card import ModelCard
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.latency import LATENCY_NAME
from edgekit.pipeline.release_report import release_report
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.pipeline.retire import retire_others
from edgekit.pipeline.shipped import controls_contents, shipped_contents
from edgekit.pipeline.verified import VerifiedCandidate, verified_candidate
from edgekit.policy.verdict import Verdict
from edgekit.report.write import write_report
from edgekit.verify.gate import GateResult
from edgekit.verify.select import Selection, select
from edgekit.verify.stage import SCORES_NAME

__all__ = ["BuildResult", "make_release"]


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
    verified = {item.name: verified_candidate(request, item, golden, latency) for item in request.engines.candidates}
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
    verified: Mapping[str, VerifiedCandidate],
    latency: LatencyReport,
    lineage: Mapping[str, str],
    destination: Path,
    observer: Observer,
) -> Manifest:
    folders, name = request.folders, selection.chosen
    chosen = verified[name]
    contents: dict[str, Path | bytes] = {
        **shipped_contents(request, chosen.id),
        layout.SCORES: folders.verify(name) / SCORES_NAME,
        layout.VERDICT: dump_canonical(chosen.verdict.to_dict()),
        layout.LATENCY: dump_canonical(latency.to_dict()),
        layout.CANDIDATES: dump_canonical(selection.to_dict()),
        **controls_contents(folders.verify(name), chosen.judged),
        **request.contents,
    }
    if request.baseline is not None:
        contents[layout.BASELINE] = dump_canonical(request.baseline.to_dict())
    with foreign_os_errors(destination, "write the report"):
        scratch = Path(tempfile.mkdtemp(prefix="edgekit-report-"))
    card, map_spec = _of_the_engine(folders)
    try:
        write_report(release_report(request, golden, selection, verified, latency), scratch)
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


def _of_the_engine(folders: BuildFolders) -> tuple[ModelCard, MapSpec]:
    """Card and maps of the network that ships: a student may have taps of its own."""
    path = folders.export / "interface.json"
    interface = read_json(path)
    return (
        ModelCard.from_dict(interface["card"], where=str(path)),
        MapSpec.from_dict(interface["map"], where=str(path)),
    )
