"""The verify stage: run the engine, score it, judge it, and write all of that down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

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
from edgekit.engines.protocol import EngineInfo, EngineOptions, Runner
from edgekit.engines.registry import ENGINES
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import scores_to_dict
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import Verdict, judge
from edgekit.verify.answers import EngineAnswers, answer_golden
from edgekit.verify.bundled_student import bundled_student
from edgekit.verify.control_files import CONTROLS_NAME, control_files
from edgekit.verify.control_scores import make_controls
from edgekit.verify.controls import StoredControls
from edgekit.verify.diagnosis.diagnose import diagnose
from edgekit.verify.diagnosis.finding import Finding, Maps
from edgekit.verify.gate import GateResult, bundle_policy, with_controls
from edgekit.verify.score import ScoreBuilder, Yardstick, answered_classes, score_answers
from edgekit.verify.sequence import looks, verification_order

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
    """The outcome of running an engine over a golden set.

    Attributes:
        info: The engine.
        answers: What it said.
        table: The scores of that: of the whole golden set, or under a sequential policy of the samples until it was
            decided, in the order of `edgekit.verify.sequence.verification_order`.
        verdict: Of the policy, without budgets and baseline.
        findings: What the diagnosis found.
        controls: Scored beside it.
        golden_samples: Samples of the golden set.
    """

    info: EngineInfo
    answers: EngineAnswers
    table: ScoreTable
    verdict: Verdict
    findings: tuple[Finding, ...]
    controls: StoredControls
    golden_samples: int

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
        run = _watched if request.policy.sequential else _whole
        seen, answers, table, controls = run(request, golden, runner, observer)
        findings = diagnose(seen, answers, table, runner, request.student)
        info = runner.info
    verdict = judge(request.policy.of_scores(), table)
    return Verification(info, answers, table, verdict, findings, controls, len(golden))


# What was looked at of the golden set, what the engine said of it, the scores of that, and the controls beside it.
_Ran: TypeAlias = tuple[GoldenSet, EngineAnswers, ScoreTable, StoredControls]


def _whole(request: VerifyRequest, golden: GoldenSet, runner: Runner, observer: Observer) -> _Ran:
    scoring = _Scoring(golden)
    answers = answer_golden(runner, golden, observer, taken=scoring)
    table = scoring.builder.table(golden, answered_classes(answers.logits))
    return golden, answers, table, _controls(request, golden, answers, table)


def _controls(request: VerifyRequest, golden: GoldenSet, answers: EngineAnswers, table: ScoreTable) -> StoredControls:
    return make_controls(golden, answers, table) if request.controls else StoredControls("off")


def _watched(request: VerifyRequest, golden: GoldenSet, runner: Runner, observer: Observer) -> _Ran:
    """Samples of the random order until the verdict is decided and, where it is a pass, the controls fail as well."""
    policy, order = request.policy.of_scores(), verification_order(golden)
    said: list[EngineAnswers] = []
    scored: list[ScoreTable] = []
    for start, stop in looks(len(golden)):
        part = golden.part(order[start:stop])
        said.append(answer_golden(runner, part))
        scored.append(score_answers(part, said[-1]))
        table = ScoreTable.joined(scored)
        observer.advanced("golden samples, until decided", stop, len(golden))
        outcome = judge(policy, table).outcome
        if outcome == "inconclusive" and stop < len(golden):
            continue
        seen, answers = golden.part(order[:stop]), EngineAnswers.joined(said)
        controls = _controls(request, seen, answers, table)
        # A policy that is not too weak fails the controls as well, if it may look at them long enough.
        if outcome == "fail" or stop == len(golden) or not with_controls(judge(policy, table), controls).too_weak:
            break
    observer.advanced("golden samples, until decided", len(seen), len(seen))
    return seen, answers, table, controls


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
    """Scores answers part by part as they come."""

    def __init__(self, golden: GoldenSet) -> None:
        self._golden = golden
        self.builder = ScoreBuilder()

    def __call__(self, start: int, maps: Sequence[Maps], own_maps: Sequence[Maps]) -> None:
        if start == 0:
            self.builder = ScoreBuilder()
        self.builder.add(Yardstick.of(self._golden, start, start + len(maps[0])), maps, own_maps)


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
            "samples": {"verified": len(verification.table), "golden": verification.golden_samples},
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
    if len(table) < verification.golden_samples:
        told += f", decided after {len(table)} of {verification.golden_samples} samples"
    weak = f"; the policy does not fail {', '.join(judged.too_weak)}" if judged.too_weak else ""
    return {
        "outcome": judged.outcome,
        "agreement": agreement,
        "mean_cosine": mean,
        "findings": [finding.fault for finding in verification.findings],
        "controls": {"state": judged.controls_state, "too_weak": list(judged.too_weak)},
        "summary": f"{judged.outcome}: {told}, agreement {agreement:.1%} on {len(table)} samples{weak}",
    }
