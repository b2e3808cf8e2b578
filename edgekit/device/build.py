"""`edgekit device build`: from a candidate bundle to engines and evidence, on the device that will run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.bench.latency import LatencySubject, measure_latency
from edgekit.bench.result import LatencyReport
from edgekit.bundle import layout
from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.open import Bundle, open_bundle
from edgekit.core.canonical import read_json, write_json
from edgekit.core.digests import digest_file
from edgekit.core.environment import environment_print
from edgekit.core.files import check_writable_directory, foreign_os_errors, read_bytes, write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import FileRef
from edgekit.device.candidate import bundle_golden_digest, candidate_plan, check_device
from edgekit.device.evidence import EVIDENCE_FORMAT, EVIDENCE_NAME, CandidateEvidence, DeviceEvidence, DeviceFound
from edgekit.device.plan import DevicePlan
from edgekit.device.supervise import supervised
from edgekit.device.work import ENGINE, engine_file, engine_folder, verify_folder
from edgekit.engines.tensorrt.plan_file import read_plan
from edgekit.engines.tensorrt.probe import DeviceProbe, probe_device
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, UnavailableError
from edgekit.interface.preprocess import preprocess
from edgekit.jetson.detect import Jetson, read_jetson
from edgekit.jetson.probe import Probe
from edgekit.verify.stage import EVIDENCE_NAME as VERIFIED_NAME
from edgekit.verify.stage import SCORES_NAME, VERDICT_NAME

__all__ = ["LATENCY_FOLDER", "LATENCY_NAME", "DeviceBuildRequest", "device_build"]

LATENCY_FOLDER = "latency"
LATENCY_NAME = "latency.json"
_IMAGES = 8

Work = Callable[[Path, Path, float, Observer], None]


@dataclass(frozen=True)
class DeviceBuildRequest:
    """What is built where.

    Attributes:
        bundle: The candidate, a folder or a tar file.
        output: Folder for engines and evidence; run again with the same one to go on.
        patience_s: Seconds without a sign of life before TensorRT's process is ended; 0 for the plan's own.
        probe: Whom to ask which Jetson this is; this machine unless given.
        look: Who says which TensorRT and GPU are here; a child process unless given.
        work: Who builds and verifies; a child process unless given.
    """

    bundle: Path
    output: Path
    patience_s: float = 0.0
    probe: Probe | None = None
    look: Callable[[], DeviceProbe] = probe_device
    work: Work = supervised


def device_build(request: DeviceBuildRequest, observer: Observer = NULL_OBSERVER) -> DeviceEvidence:
    """Build the plan's engines here, verify them over the golden set, time them, and write evidence of it.

    That maps did not hold is evidence too, and no exception.

    Args:
        request: What is built where.
        observer: Told of the progress, and of what a user should know.

    Returns:
        The evidence, also stored as `evidence.json` in the output folder, beside the engines.

    Raises:
        BadInputError: The bundle is no candidate, or a graph cannot be built.
        IntegrityError: The bundle is damaged.
        UnavailableError: This is another device than the plan's, TensorRT is not here or of another version, lacks
            memory, hung or crashed.
    """
    with open_bundle(request.bundle) as opened:
        plan, golden = candidate_plan(opened), opened.golden()
        _check_output(request.output, opened)
        found = request.look()
        if found.problem:
            raise UnavailableError(
                "The device cannot build: TensorRT does not work here.",
                expected=f"TensorRT {plan.tensorrt} and its GPU",
                found=found.problem,
                hint=found.hint,
            )
        jetson = read_jetson(request.probe)
        check_device(plan, jetson, found.tensorrt, where=str(request.bundle))
        assert jetson is not None, "check_device refuses what is no Jetson"
        check_writable_directory(request.output)
        _retire(request.output / EVIDENCE_NAME)
        observer.noted(f"{NEVER_RUN}.")
        request.work(opened.folder, request.output, request.patience_s or plan.limits.silence_s, observer)
        latency = _timed(plan, golden, request.output, observer)
        evidence = _evidence(opened, plan, _device(jetson, found), latency, request.output)
    write_bytes(request.output / EVIDENCE_NAME, evidence.to_bytes())
    return evidence


def _check_output(output: Path, opened: Bundle) -> None:
    inside = opened.folder.resolve()
    if output.resolve() == inside or inside in output.resolve().parents:
        raise BadInputError(
            "The output would lie inside the bundle, which holds what its manifest names and nothing else.",
            where=str(output),
            expected="a folder beside the bundle",
            hint="choose another place with --output",
        )


def _retire(document: Path) -> None:
    """Evidence of an earlier run must not stand beside engines of this one; anything else is not ours to remove."""
    if not document.exists():
        return
    if EVIDENCE_FORMAT.encode() not in read_bytes(document):
        raise BadInputError(
            "The place for the evidence holds something else, which would be lost.",
            where=str(document),
            expected="evidence of an earlier run, or nothing yet",
            found="another file of that name",
            hint="choose another place with --output",
        )
    with foreign_os_errors(document, "remove evidence of an earlier run"):
        document.unlink()


def _timed(plan: DevicePlan, golden: GoldenSet, output: Path, observer: Observer) -> LatencyReport:
    images = preprocess(golden.pixels[: _IMAGES * plan.latency.batch], golden.card.input)
    subjects = {name: LatencySubject(ENGINE, engine_file(output, name)) for name in plan.builds}
    report = measure_latency(subjects, images, plan.latency, observer)
    folder = output / LATENCY_FOLDER
    folder.mkdir(exist_ok=True)
    write_json(folder / LATENCY_NAME, report.to_dict())
    return report


def _device(jetson: Jetson, found: DeviceProbe) -> DeviceFound:
    gpu = dict(found.gpu or {})
    return DeviceFound(
        module=jetson.module or "",
        base_module=jetson.base_module or "",
        model=jetson.model,
        l4t=jetson.l4t or "",
        jetpack=jetson.jetpack or "",
        power_mode=jetson.power_mode or "",
        tensorrt=found.tensorrt,
        cuda=str(gpu.get("driver", "")),
        gpu=gpu,
    )


def _evidence(
    opened: Bundle, plan: DevicePlan, device: DeviceFound, latency: LatencyReport, output: Path
) -> DeviceEvidence:
    folders = [place(output, name) for name in plan.builds for place in (engine_folder, verify_folder)]
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return DeviceEvidence(
        created_with=__version__,
        bundle=opened.manifest.digest,
        plan=plan.digest,
        golden=bundle_golden_digest(opened),
        policy=opened.manifest.files[layout.POLICY].sha256,
        device=device,
        environment=environment_print(),
        candidates={name: _candidate(output, name) for name in plan.builds},
        latency=latency,
        files={path.relative_to(output).as_posix(): FileRef(digest_file(path), path.stat().st_size) for path in paths},
    )


def _candidate(output: Path, name: str) -> CandidateEvidence:
    artifact, verified = engine_file(output, name), verify_folder(output, name)
    header, _ = read_plan(artifact)
    ran = read_json(verified / VERIFIED_NAME)
    return CandidateEvidence(
        engine=artifact.relative_to(output).as_posix(),
        header=header.to_dict(),
        runtime=ran["engine"],
        scores=read_json(verified / SCORES_NAME),
        verdict=read_json(verified / VERDICT_NAME),
        findings=tuple(ran["findings"]),
    )
