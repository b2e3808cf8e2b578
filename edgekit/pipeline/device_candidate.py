"""The host's half of a build for a device: a complete candidate, whose engine the device builds and answers for.

The graphs are rehearsed: the reference engine runs them over the golden set, so that INT8 that cannot hold is told of
before anybody walks to the device. That is no evidence of TensorRT, and is stored apart from what is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.attribution.spec import MapSpec
from edgekit.bundle import layout
from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import read_golden
from edgekit.bundle.golden_digest import golden_digest
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.pack import write_tar
from edgekit.config.recipe import Recipe, recipe_to_dict
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import RECORD_NAME, StageRecord
from edgekit.device.plan import DevicePlan
from edgekit.engines.half_graph import half_graph_beside
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.interface.card import ModelCard
from edgekit.pipeline.candidates import PRECISIONS
from edgekit.pipeline.device_installer import installer_script
from edgekit.pipeline.device_plan import PlannedDevice, PlanRequest, plan_device
from edgekit.pipeline.engine_files import graph_path, has_half
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.retire import retire_others
from edgekit.policy.context import Baseline
from edgekit.policy.policy import Policy
from edgekit.targets.target import Target
from edgekit.verify.beside import power_round_s
from edgekit.verify.stage import VerifyRequest, verify

__all__ = ["REHEARSING_ENGINE", "CandidateRequest", "CandidateResult", "make_candidate"]

REHEARSING_ENGINE = "reference"
_NEEDED = "unverified: needs device evidence"


@dataclass(frozen=True)
class CandidateRequest:
    """What is prepared.

    Attributes:
        folders: Where the stages lie.
        target: The device.
        engine: Registry name of the engine that the device builds.
        recipe: The resolved recipe.
        policy: What is demanded.
        options: How the rehearsal's engine runs.
        records: What each stage did, by name.
        baseline: The release that the one to come is compared with; travels with the candidate.
    """

    folders: BuildFolders
    target: Target
    engine: str
    recipe: Recipe
    policy: Policy
    options: EngineOptions
    records: Mapping[str, StageRecord]
    baseline: Baseline | None = None


@dataclass(frozen=True)
class CandidateResult:
    """A candidate that awaits its device.

    Attributes:
        folder: The bundle.
        manifest: Its manifest; the status is "unverified".
        plan: What the device is to do.
        rehearsal: Candidate name to what the reference engine made of its graph: "outcome", "agreement" and
            "mean_cosine".
        records: What each stage did, by name.
    """

    folder: Path
    manifest: Manifest
    plan: DevicePlan
    rehearsal: Mapping[str, Mapping[str, Any]]
    records: Mapping[str, StageRecord]

    @property
    def archive(self) -> Path:
        """The bundle as one file."""
        return self.folder.with_suffix(".tar")

    @property
    def status(self) -> str:
        """The status in words."""
        return _NEEDED


def make_candidate(request: CandidateRequest, observer: Observer = NULL_OBSERVER) -> CandidateResult:
    """Rehearse the graphs, plan the device's work, and write the candidate as a folder and as a tar file.

    Raises:
        BadInputError: A stage's files are missing or cannot be read.
        IntegrityError: They are malformed.
        UnavailableError: ONNX Runtime is not here, or the disk is full.
    """
    rehearsed = _rehearsed(request, observer)
    observer.stage_started("bundle")
    begun = time.monotonic()
    rehearsal = {name: _told(record) for name, record in rehearsed.items()}
    # As they lie in the bundle: made of the very files, so the same bytes.
    documents = {
        layout.POLICY: dump_canonical(request.policy.to_dict()),
        layout.RECIPE: dump_canonical(recipe_to_dict(request.recipe)),
    }
    card, map_spec = _of_the_network(request.folders)
    planned = plan_device(_plan_request(request, documents, (card, map_spec)))
    wanted = BundleRequest(
        target=request.target.name,
        engine=request.engine,
        precision="int8",
        status="unverified",
        card=card,
        map_spec=map_spec,
        contents=_contents(request, planned, documents, rehearsal),
        lineage=_lineage(request, rehearsed, documents[layout.RECIPE]),
    )
    destination = request.folders.bundle("unverified")
    # What stood here before was of another build: nothing of it may be taken for a release of this one.
    retire_others(request.folders, "unverified")
    manifest = bundle(wanted, destination, observer)
    write_tar(destination, destination.with_suffix(".tar"))
    observer.noted(f"{NEVER_RUN}.")
    observer.stage_finished(
        "bundle", skipped=False, seconds=time.monotonic() - begun, summary=f"{_NEEDED}: {destination.name}/"
    )
    return CandidateResult(destination, manifest, planned.plan, rehearsal, request.records)


def _rehearsed(request: CandidateRequest, observer: Observer) -> dict[str, StageRecord]:
    observer.noted(
        f"The graphs are judged by the engine {REHEARSING_ENGINE!r}, since that of {request.target.name!r} does not "
        "run here; the device's own answer decides."
    )
    return {
        name: verify(
            VerifyRequest(
                engine=REHEARSING_ENGINE,
                artifact=graph_path(request.folders, name),
                golden=request.folders.golden,
                policy=request.policy,
                options=request.options,
                candidate=f"rehearsal-{name}",
                controls=request.recipe.verify.controls,
            ),
            request.folders.rehearsal(name),
            observer,
        )
        for name in _precisions(request.folders)
    }


def _precisions(folders: BuildFolders) -> tuple[str, ...]:
    return tuple(name for name in PRECISIONS if name != "fp16" or has_half(folders))


def _told(record: StageRecord) -> dict[str, Any]:
    return {key: record.facts[key] for key in ("outcome", "agreement", "mean_cosine")}


def _plan_request(
    request: CandidateRequest, documents: Mapping[str, bytes], described: tuple[ModelCard, MapSpec]
) -> PlanRequest:
    folders = request.folders
    return PlanRequest(
        target=request.target,
        quantised=graph_path(folders, "int8"),
        reference=graph_path(folders, "fp32"),
        scales=folders.final_calibrate / "scales.json",
        float16=graph_path(folders, "fp16") if has_half(folders) else None,
        golden=golden_digest({name: digest_file(path) for name, path in _golden_files(folders.golden).items()}),
        documents=documents,
        card=described[0],
        map_spec=described[1],
        batch=request.recipe.export.batch,
        latency_runs=request.recipe.select.latency_runs,
        round_s=power_round_s(request.policy),
        tensorrt=request.recipe.tensorrt,
    )


def _golden_files(folder: Path) -> dict[str, Path]:
    """The golden set as it lies in the bundle: without the stage's record."""
    files = contents_from_folder(layout.GOLDEN, folder)
    files.pop(f"{layout.GOLDEN}/{RECORD_NAME}", None)
    return files


def _contents(
    request: CandidateRequest,
    planned: PlannedDevice,
    documents: Mapping[str, bytes],
    rehearsal: Mapping[str, Mapping[str, Any]],
) -> dict[str, Path | bytes]:
    folders = request.folders
    typed = half_graph_beside(graph_path(folders, "int8"))
    beside = request.baseline
    return {
        **({layout.HALF_MODEL: typed} if typed.is_file() else {}),
        **({} if beside is None else {layout.BASELINE: dump_canonical(beside.to_dict())}),
        **({layout.FLOAT16_MODEL: graph_path(folders, "fp16")} if has_half(folders) else {}),
        layout.MODEL: graph_path(folders, "int8"),
        layout.REFERENCE: graph_path(folders, "fp32"),
        layout.SCALES: folders.final_calibrate / "scales.json",
        layout.LINEAGE: dump_canonical({stage: record.to_dict() for stage, record in request.records.items()}),
        layout.REHEARSAL: dump_canonical(
            {
                "engine": REHEARSING_ENGINE,
                "notice": f"run by the engine {REHEARSING_ENGINE!r} on the host; {NEVER_RUN}",
                "candidates": {name: dict(told) for name, told in rehearsal.items()},
            }
        ),
        layout.DEVICE_INSTALLER: installer_script(request.recipe.tensorrt.run.cuda_package),
        **documents,
        **planned.contents,
        **_golden_files(folders.golden),
    }


def _lineage(request: CandidateRequest, rehearsed: Mapping[str, StageRecord], recipe: bytes) -> dict[str, str]:
    records = {**request.records, **{f"rehearsal-{name}": record for name, record in rehearsed.items()}}
    lineage = {name: record.key for name, record in records.items()}
    lineage["teacher"] = read_golden(request.folders.golden).teacher
    lineage["recipe"] = digest_bytes(recipe)
    return lineage


def _of_the_network(folders: BuildFolders) -> tuple[ModelCard, MapSpec]:
    path = folders.export / "interface.json"
    interface = read_json(path)
    return (
        ModelCard.from_dict(interface["card"], where=str(path)),
        MapSpec.from_dict(interface["map"], where=str(path)),
    )
