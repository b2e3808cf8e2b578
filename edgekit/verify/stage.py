"""The verify stage: run the engine, score it, judge it, and write all of that down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet, read_golden
from edgekit.bundle.layout import GOLDEN
from edgekit.bundle.open import Bundle
from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.environment import environment_print
from edgekit.core.files import foreign_os_errors, write_bytes
from edgekit.core.mapped import release
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.engines.protocol import EngineInfo, EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import scores_to_dict
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import Verdict, judge
from edgekit.verify.answers import EngineAnswers, answer_golden
from edgekit.verify.bundled_student import bundled_student
from edgekit.verify.control_files import CONTROLS_NAME, control_files
from edgekit.verify.control_scores import ControlScoring, make_controls
from edgekit.verify.controls import StoredControls
from edgekit.verify.diagnose import diagnose
from edgekit.verify.finding import Finding, Maps
from edgekit.verify.gate import GateResult, bundle_policy, with_controls
from edgekit.verify.score import ScoreBuilder, Yardstick, answered_classes

__all__ = [
    "CONTROLS_NAME",
    "EVIDENCE_NAME",
    "LOGITS_NAME",
    "MAPS_NAME",
    "SCORES_NAME",
    "VERDICT_NAME",
    "Verification",
    "VerifyRequest",
    "verify",
    "verify_bundle",
    "verify_engine",
    "write_verification",
]

SCORES_NAME = "scores.json"
VERDICT_NAME = "verdict.json"
EVIDENCE_NAME = "evidence.json"
MAPS_NAME = "engine_maps.npy"
LOGITS_NAME = "engine_logits.npy"
_VERSION = 2
_WRITTEN_AT_ONCE = 1024


@dataclass(frozen=True)
class VerifyRequest:
    """What is verified against what.

    Attributes:
        engine: Registry name of the engine.
        artifact: The file that ships.
        golden: Folder of the golden set.
        policy: What is demanded. Budgets and the comparison with a baseline are left to whoever knows of them.
        options: How the engine runs.
        candidate: Which of a build's engines this is, such as "int8", for people.
        student: SHA-256 of the student's file that the engine has to be made of; empty where that is not known. It
            decides nothing but what the diagnosis can tell.
        controls: Whether controls are scored beside the engine; that they were switched off shows in the evidence.
    """

    engine: str
    artifact: Path
    golden: Path
    policy: Policy
    options: EngineOptions = field(default_factory=EngineOptions)
    candidate: str = ""
    student: str = ""
    controls: bool = True


@dataclass(frozen=True)
class Verification:
    """The outcome of running an engine over a golden set."""

    info: EngineInfo
    answers: EngineAnswers
    table: ScoreTable
    verdict: Verdict
    findings: tuple[Finding, ...]
    controls: StoredControls

    @property
    def judged(self) -> GateResult:
        """The verdict with what the policy says about the controls."""
        return with_controls(self.verdict, self.controls)


def verify_engine(request: VerifyRequest, golden: GoldenSet, observer: Observer = NULL_OBSERVER) -> Verification:
    """Run, score and judge an engine. Quality is the result, never an exception.

    Raises:
        UnavailableError: The engine's runtime is not here.
        IntegrityError: The artifact is not an engine, or does not fit the golden set.
    """
    with ENGINES.load(request.engine).open(request.artifact, request.options) as runner:
        scoring = _Scoring(golden, controls=request.controls)
        answers = answer_golden(runner, golden, observer, taken=scoring)
        table = scoring.engine.table(golden, answered_classes(answers.logits))
        findings = diagnose(golden, answers, table, runner, request.student)
        info = runner.info
    controls = StoredControls("off")
    if scoring.controls is not None:
        controls = make_controls(golden, answers, table, scoring.controls)
    return Verification(info, answers, table, judge(request.policy.of_scores(), table), findings, controls)


def verify_bundle(
    opened: Bundle,
    policy: Policy | None = None,
    options: EngineOptions | None = None,
    *,
    controls: bool = True,
    observer: Observer = NULL_OBSERVER,
) -> Verification:
    """Run a bundle's engine over its golden set; see `VerifyRequest`. The bundle's own policy unless one is given.

    Raises:
        EvidenceNeededError: The device has yet to build the engine.
        UnavailableError: The engine's runtime is not here.
        IntegrityError: The bundle changed since it was opened, or its parts do not fit.
    """
    request = VerifyRequest(
        engine=opened.manifest.engine,
        artifact=opened.model_path,
        golden=opened.folder / GOLDEN,
        policy=policy or bundle_policy(opened),
        options=options or EngineOptions(),
        student=bundled_student(opened),
        controls=controls,
    )
    return verify_engine(request, opened.golden(), observer)


class _Scoring:
    """Scores answers, and the controls beside them, while the engine works on the next."""

    def __init__(self, golden: GoldenSet, *, controls: bool) -> None:
        self._golden = golden
        self._with_controls = controls
        self._begin()

    def _begin(self) -> None:
        self.engine = ScoreBuilder()
        self.controls = ControlScoring(self._golden) if self._with_controls else None

    def __call__(self, start: int, maps: Sequence[Maps], own_maps: Sequence[Maps]) -> None:
        if start == 0:
            self._begin()
        stop = start + len(maps[0])
        yardstick = Yardstick.of(self._golden, start, stop)
        self.engine.add(yardstick, maps, own_maps)
        if self.controls is not None:
            self.controls.add(yardstick, start, stop)


def write_verification(verification: Verification, folder: Path) -> None:
    """Write scores, verdict, evidence, controls and the engine's answers into `folder`.

    `engine_maps.npy` is float32 [2, N, h, w]: the maps of the teacher's class, then those of the engine's own. Where
    an image has several maps, `engine_maps_2.npy` and so on hold the others.
    """
    write_json(folder / SCORES_NAME, scores_to_dict(verification.table))
    write_json(folder / VERDICT_NAME, verification.verdict.to_dict())
    write_json(
        folder / EVIDENCE_NAME,
        {
            "engine": verification.info.to_dict(),
            "environment": environment_print(),
            "findings": [finding.to_dict() for finding in verification.findings],
            "controls": verification.controls.state,
            "asked_both_ways": verification.answers.asked_both_ways,
        },
    )
    for name, data in control_files(verification.controls).items():
        with foreign_os_errors(folder / name, "write the controls"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, data)
    answers = verification.answers
    _write_array(folder / MAPS_NAME, answers.maps, answers.own_maps)
    for number, pair in enumerate(zip(answers.further, answers.own_further, strict=True)):
        _write_array(folder / f"engine_maps_{number + 2}.npy", *pair)
    _write_array(folder / LOGITS_NAME, answers.logits)


def _write_array(path: Path, *parts: npt.NDArray[np.float32]) -> None:
    """Write an array, or several of one shape as one, without holding any of them in memory."""
    shape = parts[0].shape if len(parts) == 1 else (len(parts), *parts[0].shape)
    staging = path.with_name(f".{path.name}.part")
    with foreign_os_errors(path, "write the engine's answers"):
        with staging.open("wb") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for part in parts:
                for start in range(0, len(part), _WRITTEN_AT_ONCE):
                    stream.write(np.ascontiguousarray(part[start : start + _WRITTEN_AT_ONCE], "<f4").tobytes())
                    release(part)
            stream.flush()
            os.fsync(stream.fileno())
        staging.replace(path)


def verify(request: VerifyRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Verify an engine and write scores, verdict, evidence and maps into `destination`.

    The environment is part of the stage's key: a verification made elsewhere is never taken for one made here.

    Raises:
        UnavailableError: The engine's runtime is not here.
        IntegrityError: The artifact is not an engine, or does not fit the golden set.
    """
    options: dict[str, JsonValue] = {
        "engine": request.engine,
        "policy": request.policy.of_scores().to_dict(),
        "run": asdict(request.options),
        "controls": request.controls,
        "environment": environment_print(),
    }
    name = f"verify-{request.candidate}" if request.candidate else "verify"
    stage = Stage(name, _VERSION, options, {"artifact": request.artifact, "golden": request.golden})

    def body(folder: Path) -> Mapping[str, Any]:
        verification = verify_engine(request, read_golden(request.golden), observer)
        write_verification(verification, folder)
        return _facts(verification)

    return run_stage(stage, destination, body, observer)


def _facts(verification: Verification) -> Mapping[str, Any]:
    table, judged = verification.table, verification.judged
    cosine = table.metrics["cosine"]
    mean = float(np.mean(cosine[table.compared])) if table.compared.any() else None
    agreement = float(np.mean(table.agrees))
    told = "no map to compare" if mean is None else f"mean cosine {mean:.3f}"
    weak = f"; the policy does not fail {', '.join(judged.too_weak)}" if judged.too_weak else ""
    return {
        "outcome": judged.outcome,
        "agreement": agreement,
        "mean_cosine": mean,
        "findings": [finding.fault for finding in verification.findings],
        "controls": {"state": judged.controls_state, "too_weak": list(judged.too_weak)},
        "summary": f"{judged.outcome}: {told}, agreement {agreement:.1%} on {len(table)} samples{weak}",
    }
