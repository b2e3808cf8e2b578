"""Whether evidence is of this very candidate, whole, and of a device that the plan is for. What can be checked is.

The order goes from the coarse to the fine, so that evidence of another bundle is called that and not "malformed".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.bundle import layout
from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.names import check_names
from edgekit.bundle.open import Bundle
from edgekit.core.canonical import read_json
from edgekit.core.digests import digest_file
from edgekit.core.files import foreign_os_errors, read_bytes
from edgekit.core.stages import RECORD_NAME
from edgekit.device.candidate import bundle_golden_digest
from edgekit.device.evidence import CandidateEvidence, DeviceEvidence
from edgekit.device.plan import DevicePlan, PlannedBuild
from edgekit.device.work import engine_file, engine_folder, verify_folder
from edgekit.engines.tensorrt.plan_file import PlanHeader, read_plan
from edgekit.engines.tensorrt.running import RunOptions
from edgekit.errors import BadInputError, IntegrityError, UnavailableError
from edgekit.metrics.agreement import METRICS
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import scores_from_dict
from edgekit.policy.verdict import judge
from edgekit.verify.control_files import CONTROLS_NAME, controls_from_files
from edgekit.verify.gate import bundle_policy, wants_controls
from edgekit.verify.sequence import judged_part
from edgekit.verify.stage import EVIDENCE_NAME as VERIFIED_NAME
from edgekit.verify.stage import LOGITS_NAME, MAPS_NAME, SCORES_NAME, VERDICT_NAME

__all__ = ["check_evidence"]

_AGAIN = "run 'edgekit device build' with this bundle again, and bring its whole output folder"


def check_evidence(opened: Bundle, plan: DevicePlan, evidence: DeviceEvidence, folder: Path) -> None:
    """Check evidence against the candidate that it claims to be of.

    Args:
        opened: The candidate.
        plan: Its plan.
        evidence: As `read_evidence` gave it.
        folder: Where the files lie that the evidence names.

    Raises:
        BadInputError: The evidence is of another bundle, or a file that it names is missing.
        IntegrityError: It was trimmed or edited, or its parts contradict each other.
        UnavailableError: It was obtained on another device, by another version of edgekit, or with a TensorRT outside
            the plan's range.
    """
    where = str(folder)
    _check_identity(opened, plan, evidence, where)
    _check_version(plan, evidence, where)
    _check_device(plan, evidence, where)
    _check_whole(plan, evidence, where)
    _check_files(plan, evidence, folder)
    golden, policy = opened.golden(), bundle_policy(opened)
    for name, build in plan.builds.items():
        said = evidence.candidates[name]
        place = f"{where}: {name}"
        _check_beside(name, said, evidence, folder, place)
        _check_engine(plan, build, said, evidence, folder)
        table = scores_from_dict(said.scores, where=place, classes=len(golden.card.classes))
        about = judged_part(golden, policy, len(table))
        _check_scores(table, about, place)
        _check_controls(opened, table, about, verify_folder(folder, name))
        verdict = judge(policy.of_scores(), table).to_dict()
        if verdict != said.verdict:
            raise IntegrityError(
                "The evidence's verdict is not what the bundle's policy says about its scores.",
                where=place,
                expected=str(verdict["outcome"]),
                found=str(said.verdict.get("outcome")),
                hint=_AGAIN,
            )


def _check_controls(opened: Bundle, table: ScoreTable, golden: GoldenSet, verified: Path) -> None:
    """The controls are those of these scores, and ran unless the candidate's recipe says otherwise."""
    document = verified / CONTROLS_NAME
    found = controls_from_files(
        read_bytes(document), lambda file: read_bytes(verified / file), golden, table, where=str(document)
    )
    wanted = "off" if wants_controls(opened) is False else "ran"
    if found.state != wanted:
        raise IntegrityError(
            "The evidence's controls are not what the candidate's recipe asked for.",
            where=str(document),
            expected=f"state {wanted}",
            found=f"state {found.state}",
            hint=_AGAIN,
        )


def _check_identity(opened: Bundle, plan: DevicePlan, evidence: DeviceEvidence, where: str) -> None:
    policy = opened.manifest.files[layout.POLICY].sha256
    for what, expected, found in (
        ("bundle", opened.manifest.digest, evidence.bundle),
        ("device plan", plan.digest, evidence.plan),
        ("golden set", bundle_golden_digest(opened), evidence.golden),
        ("policy", policy, evidence.policy),
    ):
        if expected != found:
            raise BadInputError(
                f"The evidence is of another {what}.",
                where=where,
                expected=f"SHA-256 {expected}",
                found=f"SHA-256 {found}",
                hint="attach it to the bundle that the device was given, or " + _AGAIN,
            )


def _check_device(plan: DevicePlan, evidence: DeviceEvidence, where: str) -> None:
    device = evidence.device
    if not {device.module, device.base_module} & set(plan.modules):
        raise UnavailableError(
            "The evidence was obtained on another device than the target.",
            where=where,
            expected=" or ".join(plan.modules),
            found=device.module or device.model or "a device that does not tell what it is",
            hint="run 'edgekit device build' on the target, or build a candidate for that device",
        )
    if device.tensorrt not in plan.tensorrt:
        raise UnavailableError(
            "The evidence was obtained with a TensorRT that the plan is not for.",
            where=where,
            expected=f"TensorRT {plan.tensorrt}",
            found=f"TensorRT {device.tensorrt or 'of no known version'}",
            hint="install a JetPack that brings one of them on the device, and " + _AGAIN,
        )


def _check_version(plan: DevicePlan, evidence: DeviceEvidence, where: str) -> None:
    """Scores, header and options mean what the version that wrote them means by them."""
    if evidence.created_with != plan.created_with:
        raise UnavailableError(
            "The evidence was written by another version of edgekit than its plan.",
            where=where,
            expected=f"edgekit {plan.created_with}",
            found=f"edgekit {evidence.created_with}",
            hint=f"install edgekit {plan.created_with} on the device, or make the candidate with this version, and "
            + _AGAIN,
        )


def _check_whole(plan: DevicePlan, evidence: DeviceEvidence, where: str) -> None:
    wanted = set(plan.builds)
    for what, found in (("candidates", set(evidence.candidates)), ("latency", set(evidence.latency.results))):
        if found != wanted:
            raise IntegrityError(
                f"The evidence is not whole: {what}.",
                where=where,
                expected=", ".join(sorted(wanted)),
                found=", ".join(sorted(found)) or "none",
                hint=_AGAIN,
            )
    if evidence.latency.options != plan.latency:
        raise IntegrityError(
            "The evidence's engines were timed in another way than the plan's.",
            where=where,
            expected=str(plan.latency.to_dict()),
            found=str(evidence.latency.options.to_dict()),
            hint=_AGAIN,
        )


def _check_files(plan: DevicePlan, evidence: DeviceEvidence, folder: Path) -> None:
    check_names(evidence.files, where=str(folder))
    stages = tuple(f"{stage}-{name}/" for stage in ("build", "verify") for name in plan.builds)
    needed = {
        place(Path(), name).joinpath(file).as_posix()
        for name in plan.builds
        for place, file in (
            (verify_folder, SCORES_NAME),
            (verify_folder, VERDICT_NAME),
            (verify_folder, VERIFIED_NAME),
            (verify_folder, MAPS_NAME),
            (verify_folder, LOGITS_NAME),
            (verify_folder, CONTROLS_NAME),
            (verify_folder, RECORD_NAME),
            (engine_folder, RECORD_NAME),
        )
    }
    if not needed <= set(evidence.files):
        raise IntegrityError(
            "The evidence is not whole: it names too few files.",
            where=str(folder),
            expected=", ".join(sorted(needed - set(evidence.files))),
            found=f"{len(evidence.files)} files",
            hint=_AGAIN,
        )
    for name, ref in evidence.files.items():
        path = folder / name
        # They are laid beside the candidate's own files, none of which they may replace.
        if not name.startswith(stages):
            raise IntegrityError(
                "The evidence names a file that is none of its engines' or scores'.",
                where=str(folder),
                expected="below " + ", ".join(stages),
                found=ascii(name),
                hint=_AGAIN,
            )
        if not path.is_file():
            raise BadInputError(
                "A file that belongs to the evidence is missing.",
                where=str(path),
                expected=f"{ref.size} bytes, SHA-256 {ref.sha256}",
                found="no file",
                hint="copy the whole output folder of 'edgekit device build', not the document alone",
            )
        with foreign_os_errors(path, "read the evidence"):
            size = path.stat().st_size
        digest = digest_file(path)
        if (digest, size) != (ref.sha256, ref.size):
            raise IntegrityError(
                "A file that belongs to the evidence was changed.",
                where=str(path),
                expected=f"{ref.size} bytes, SHA-256 {ref.sha256}",
                found=f"{size} bytes, SHA-256 {digest}",
                hint=_AGAIN,
            )


def _check_beside(name: str, said: CandidateEvidence, evidence: DeviceEvidence, folder: Path, where: str) -> None:
    """Whether the document and the files beside it, which go into the release, say the same."""
    engine, verified = engine_file(Path(), name).as_posix(), verify_folder(folder, name)
    if said.engine != engine or engine not in evidence.files:
        raise IntegrityError(
            "The evidence does not name its own engine's file with its digest.",
            where=where,
            expected=engine,
            found=ascii(said.engine),
            hint=_AGAIN,
        )
    ran = read_json(verified / VERIFIED_NAME)
    same = (
        read_json(verified / SCORES_NAME) == said.scores
        and read_json(verified / VERDICT_NAME) == said.verdict
        and (ran["engine"], ran["findings"]) == (said.runtime, list(said.findings))
    )
    if not same:
        raise IntegrityError(
            "The evidence and the files beside it say different things.",
            where=where,
            expected=f"the scores, verdict and findings in {verified.name}",
            found="others",
            hint=_AGAIN,
        )


def _check_engine(
    plan: DevicePlan, build: PlannedBuild, said: CandidateEvidence, evidence: DeviceEvidence, folder: Path
) -> None:
    where = str(folder / said.engine)
    header, _ = read_plan(folder / said.engine)
    graph = _graph_of(plan, build, header)
    told = evidence.device
    planned = build.options.run
    for what, expected, found in (
        ("inspection", "the one in the engine's file", None if header.to_dict() == said.header else "another"),
        ("graph", f"SHA-256 {graph}", _other(header.graph_sha256, graph)),
        ("how it runs", planned.in_words(), _other(header.run.in_words(), planned.in_words())),
        ("how it was run", planned.in_words(), _other(_ran(said), planned.in_words())),
        ("DLA core", str(build.options.dla_core), _other(str(header.dla_core), str(build.options.dla_core))),
        ("TensorRT", told.tensorrt, _other(header.tensorrt, told.tensorrt)),
        # Where the device told its release to one of them alone, there is nothing to compare.
        ("Jetson Linux", told.l4t, _other(header.l4t, told.l4t) if header.l4t and told.l4t else None),
        ("GPU", str(told.gpu.get("name")), _other(header.device, str(told.gpu.get("name")))),
    ):
        if found is not None:
            raise IntegrityError(
                f"The engine is not the one that the evidence speaks of: {what}.",
                where=where,
                expected=expected,
                found=found,
                hint=_AGAIN,
            )


def _ran(said: CandidateEvidence) -> str:
    """How the engine ran that was verified, as its runner told."""
    details = said.runtime.get("details")
    run = RunOptions.from_dict(details.get("run")) if isinstance(details, dict) else None
    return "" if run is None else run.in_words()


def _graph_of(plan: DevicePlan, build: PlannedBuild, header: PlanHeader) -> str:
    """SHA-256 of the graph that an engine of this build is made from, on the path that its header speaks of."""
    precision = header.build.get("precision")
    calibrated = isinstance(precision, dict) and precision.get("calibrated") is True
    return plan.inputs[build.unrounded] if build.unrounded and calibrated else build.sha256


def _other(found: str, expected: str) -> str | None:
    return None if found == expected else found or "nothing"


def _check_scores(table: ScoreTable, golden: GoldenSet, where: str) -> None:
    views = golden.map_spec.views
    several = {view.name for view in views} if len(views) > 1 else set()
    for what, holds, expected, found in (
        (
            "samples",
            table.sample == golden.digests,
            f"{len(golden)} samples of the golden set",
            f"{len(table)} samples",
        ),
        ("labels", np.array_equal(table.label, golden.labels), "those of the golden set", "others"),
        ("classes", np.array_equal(table.teacher_class, golden.teacher_class), "the teacher's", "others"),
        ("metrics", set(table.metrics) == set(METRICS), ", ".join(sorted(METRICS)), ", ".join(sorted(table.metrics))),
        (
            "own classes",
            set(table.own_class_metrics) == set(METRICS),
            ", ".join(sorted(METRICS)),
            ", ".join(sorted(table.own_class_metrics)),
        ),
        ("maps", set(table.views) == several, ", ".join(sorted(several)) or "one map", ", ".join(sorted(table.views))),
        (
            "localisation",
            bool(table.localisation) == (golden.masks is not None),
            "scores exactly where the golden set has masks",
            ", ".join(sorted(table.localisation)) or "none",
        ),
    ):
        if not holds:
            raise IntegrityError(
                f"The evidence's scores are not complete: {what}.",
                where=where,
                expected=expected,
                found=found or "none",
                hint=_AGAIN,
            )
