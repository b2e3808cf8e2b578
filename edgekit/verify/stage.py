"""The verify stage: run the engine, score it, judge it, and write all of that down."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet, read_golden
from edgekit.core.canonical import JsonValue, write_json
from edgekit.core.environment import environment_print
from edgekit.core.files import write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.engines.protocol import EngineInfo, EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import scores_to_dict
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import Verdict, judge
from edgekit.verify.answers import EngineAnswers, answer_golden
from edgekit.verify.diagnose import diagnose
from edgekit.verify.finding import Finding
from edgekit.verify.score import score_answers

__all__ = [
    "EVIDENCE_NAME",
    "LOGITS_NAME",
    "MAPS_NAME",
    "SCORES_NAME",
    "VERDICT_NAME",
    "Verification",
    "VerifyRequest",
    "verify",
    "verify_engine",
    "write_verification",
]

SCORES_NAME = "scores.json"
VERDICT_NAME = "verdict.json"
EVIDENCE_NAME = "evidence.json"
MAPS_NAME = "engine_maps.npy"
LOGITS_NAME = "engine_logits.npy"
_VERSION = 1


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
    """

    engine: str
    artifact: Path
    golden: Path
    policy: Policy
    options: EngineOptions = field(default_factory=EngineOptions)
    candidate: str = ""


@dataclass(frozen=True)
class Verification:
    """The outcome of running an engine over a golden set."""

    info: EngineInfo
    answers: EngineAnswers
    table: ScoreTable
    verdict: Verdict
    findings: tuple[Finding, ...]


def verify_engine(request: VerifyRequest, golden: GoldenSet, observer: Observer = NULL_OBSERVER) -> Verification:
    """Run, score and judge an engine. Quality is the result, never an exception.

    Raises:
        UnavailableError: The engine's runtime is not here.
        IntegrityError: The artifact is not an engine, or does not fit the golden set.
    """
    with ENGINES.load(request.engine).open(request.artifact, request.options) as runner:
        answers = answer_golden(runner, golden, observer)
        table = score_answers(golden, answers)
        findings = diagnose(golden, answers, table, runner)
        info = runner.info
    return Verification(info, answers, table, judge(request.policy.of_scores(), table), findings)


def write_verification(verification: Verification, folder: Path) -> None:
    """Write scores, verdict, evidence and the engine's answers into `folder`.

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
        },
    )
    answers = verification.answers
    _write_array(folder / MAPS_NAME, np.stack([answers.maps, answers.own_maps]))
    for number, pair in enumerate(zip(answers.further, answers.own_further, strict=True)):
        _write_array(folder / f"engine_maps_{number + 2}.npy", np.stack(pair))
    _write_array(folder / LOGITS_NAME, answers.logits)


def _write_array(path: Path, array: npt.NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


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
    table, verdict = verification.table, verification.verdict
    cosine = table.metrics["cosine"]
    mean = float(np.mean(cosine[table.compared])) if table.compared.any() else None
    agreement = float(np.mean(table.agrees))
    told = "no map to compare" if mean is None else f"mean cosine {mean:.3f}"
    return {
        "outcome": verdict.outcome,
        "agreement": agreement,
        "mean_cosine": mean,
        "findings": [finding.fault for finding in verification.findings],
        "summary": f"{verdict.outcome}: {told}, agreement {agreement:.1%} on {len(table)} samples",
    }
