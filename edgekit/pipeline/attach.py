"""The host's second half: a candidate and what its device said of it become a release, or a blocked bundle.

Nothing is run. What the evidence claims is checked against the candidate, the choice among its engines is made here by
the recipe's rules, and everything from there on is what `release` does for engines that were built here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekit.bundle import layout
from edgekit.bundle.open import Bundle, open_bundle
from edgekit.config.recipe import Recipe, recipe_from_dict
from edgekit.core.canonical import write_json
from edgekit.core.files import check_writable_directory, foreign_os_errors
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import StageRecord, read_record, record_from_dict
from edgekit.device.candidate import candidate_plan
from edgekit.device.check import check_evidence
from edgekit.device.evidence import EVIDENCE_NAME, DeviceEvidence, read_evidence
from edgekit.device.plan import DevicePlan
from edgekit.device.work import engine_folder, verify_folder
from edgekit.engines.half_graph import half_graph_beside
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, IntegrityError, UnavailableError
from edgekit.pipeline.candidates import candidates_of
from edgekit.pipeline.engine_files import graph_path
from edgekit.pipeline.engines import EnginesRun
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.latency import LATENCY_NAME
from edgekit.pipeline.release import BuildResult, make_release
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.targets.loader import resolve_target
from edgekit.targets.support import problems_of
from edgekit.verify.beside import stored_baseline
from edgekit.verify.gate import bundle_policy

__all__ = ["AttachRequest", "attach"]


@dataclass(frozen=True)
class AttachRequest:
    """What is completed.

    Attributes:
        bundle: The candidate, a folder or a tar file: the one that the device was given.
        evidence: The folder that `device build` filled, or the document in it.
        output: Folder for `release` or `candidate`; None for the one that the candidate lies in.
    """

    bundle: Path
    evidence: Path
    output: Path | None = None


def attach(request: AttachRequest, observer: Observer = NULL_OBSERVER) -> BuildResult:
    """Check evidence and complete the release. That the maps did not hold is a result, with status "blocked".

    Raises:
        BadInputError: The bundle is no candidate, the evidence is of another one, or a file of it is missing.
        IntegrityError: Bundle or evidence was changed, trimmed or edited.
        UnavailableError: The evidence is of another device, TensorRT or version of edgekit, or of a setting that cannot
            work: its JetPack, Python and TensorRT together.
    """
    document = request.evidence / EVIDENCE_NAME if request.evidence.is_dir() else request.evidence
    output = request.output or request.bundle.resolve().parent
    with open_bundle(request.bundle) as opened, foreign_os_errors(document, "prepare the release"):
        plan = candidate_plan(opened)
        evidence = read_evidence(document)
        check_evidence(opened, plan, evidence, document.parent)
        _check_support(plan, evidence, str(document))
        check_writable_directory(output)
        observer.noted(f"{NEVER_RUN}; what this evidence says is the device's own word.")
        with TemporaryDirectory(prefix="edgekit-attach-") as scratch:
            folders = BuildFolders(output, elsewhere=Path(scratch))
            records = _lay_out(opened, evidence, document.parent, folders)
            return make_release(_release_request(opened, plan, evidence, folders, records), observer)


def _release_request(
    opened: Bundle,
    plan: DevicePlan,
    evidence: DeviceEvidence,
    folders: BuildFolders,
    records: Mapping[str, StageRecord],
) -> ReleaseRequest:
    kept = [
        name
        for name in opened.manifest.files
        if name in (layout.DEVICE_PLAN, layout.DEVICE_COMMANDS, layout.REHEARSAL)
        or name.startswith(f"{layout.DEVICE_CACHES}/")
    ]
    engine, half = opened.manifest.engine, "fp16" in plan.builds
    candidates = candidates_of(resolve_target(plan.target), (engine,), half=half)
    return ReleaseRequest(
        folders=folders,
        target=opened.manifest.target,
        engines=EnginesRun(dict(records), candidates, ()),
        recipe=_recipe(opened),
        baseline=stored_baseline(opened),
        policy=bundle_policy(opened),
        records=records,
        contents={
            **{name: opened.read_bytes(name) for name in kept},
            layout.DEVICE_EVIDENCE: evidence.to_bytes(),
        },
        lineage={
            **opened.manifest.lineage,
            "device-candidate": opened.manifest.digest,
            "device-plan": plan.digest,
            "device-evidence": evidence.digest,
        },
    )


def _check_support(plan: DevicePlan, evidence: DeviceEvidence, where: str) -> None:
    """Refuse what the support table forbids: the plan's range of versions says nothing of what goes with what."""
    device = evidence.device
    target = resolve_target(device.module if device.module in plan.modules else device.base_module)
    python = evidence.environment.get("python")
    if not isinstance(python, str) or not python:
        raise IntegrityError(
            "The evidence does not say which Python it was obtained with.",
            where=where,
            expected="environment.python, as 3.10.12",
            found=repr(python),
            hint="run 'edgekit device build' with this bundle again",
        )
    problems = problems_of(target, jetpack=device.jetpack or None, python=python, tensorrt=device.tensorrt)
    blocking = [problem for problem in problems if problem.blocks]
    if blocking:
        raise UnavailableError(
            f"The evidence comes from a device that cannot work so: {blocking[0].why}.",
            where=where,
            expected="a JetPack, a Python and a TensorRT that work together on it",
            found="; ".join(problem.what for problem in blocking),
            hint=f"{blocking[0].remedy} (known from: {blocking[0].source})",
        )


def _lay_out(opened: Bundle, evidence: DeviceEvidence, device: Path, folders: BuildFolders) -> dict[str, StageRecord]:
    """Put the candidate's and the device's files where the stages of a build would have left them."""
    copies = {
        graph_path(folders, "int8"): opened.path(layout.MODEL),
        graph_path(folders, "fp32"): opened.path(layout.REFERENCE),
        folders.final_calibrate / "scales.json": opened.path(layout.SCALES),
        **{
            folders.stages / name: opened.path(name)
            for name in opened.manifest.files
            if name.startswith(f"{layout.GOLDEN}/")
        },
        **{folders.stages / name: device / name for name in evidence.files},
    }
    if layout.HALF_MODEL in opened:
        copies[half_graph_beside(graph_path(folders, "int8"))] = opened.path(layout.HALF_MODEL)
    if layout.FLOAT16_MODEL in opened:
        copies[graph_path(folders, "fp16")] = opened.path(layout.FLOAT16_MODEL)
    for target, source in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    manifest = opened.manifest
    write_json(folders.export / "interface.json", {"card": manifest.card.to_dict(), "map": manifest.map_spec.to_dict()})
    folders.latency.mkdir()
    write_json(folders.latency / LATENCY_NAME, evidence.latency.to_dict())
    where = str(opened.path(layout.LINEAGE))
    raw = opened.read_json(layout.LINEAGE)
    if not isinstance(raw, dict):
        raise IntegrityError("A bundle's lineage is malformed.", where=where, expected="stage records by name")
    records = {name: record_from_dict(record, where=f"{where}: {name}") for name, record in raw.items()}
    for name in evidence.candidates:
        records[f"build-{name}"] = read_record(engine_folder(folders.stages, name))
        records[f"verify-{name}"] = read_record(verify_folder(folders.stages, name))
    return records


def _recipe(opened: Bundle) -> Recipe:
    where = str(opened.path(layout.RECIPE))
    try:
        return recipe_from_dict(opened.read_json(layout.RECIPE), where=where)
    except BadInputError as cause:
        raise IntegrityError("The bundle's recipe is malformed.", where=where, found=str(cause)) from cause
