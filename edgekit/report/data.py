"""What a report is made from: everything the pipeline knows at the end, already computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.core.stages import StageRecord
from edgekit.errors import DefectError
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.verdict import Verdict

__all__ = ["STATUSES", "CandidateSummary", "ControlSummary", "ControlsState", "ReportData", "Status"]

Status: TypeAlias = Literal["released", "blocked", "inconclusive"]
ControlsState: TypeAlias = Literal["ran", "off", "absent"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class CandidateSummary:
    """A measured engine that could have shipped.

    Attributes:
        name: Such as "int8"; also its key in `ReportData.latency`.
        precision: "int8" or "fp32".
        bytes: Size of the artifact.
        outcome: Of its verdict: "pass", "fail" or "inconclusive".
        agreement: Share of golden samples on which its top-1 is the teacher's, 0 to 1.
        accuracy: On the labelled golden samples, 0 to 1; None when there are none.
        means: Metric name to the mean over the samples compared; NaN where none was.
        latency_p50_ms: Median latency at batch 1, milliseconds; None when it was not measured.
        shipped: True for the one in the bundle.
        reason: Why it ships or does not, in words.
        latency_ratio: Its latency over that of the first FP32 candidate, above 0, as the bench found it round by round;
            None leaves the ratio of the two medians, which a machine that was slow for a while distorts.
        engine: Registry name of its engine, empty where it is not known.
    """

    name: str
    precision: str
    bytes: int
    outcome: str
    agreement: float
    accuracy: float | None
    means: Mapping[str, float]
    latency_p50_ms: float | None
    shipped: bool
    reason: str
    latency_ratio: float | None = None
    engine: str = ""


@dataclass(frozen=True)
class ControlSummary:
    """What the policy says about answers that no policy may let pass.

    Attributes:
        name: Such as "permuted-maps".
        outcome: Of its verdict: "pass", "fail" or "inconclusive". Only one that fails is caught.
        failed: The demands that catch it, in words.
    """

    name: str
    outcome: str
    failed: tuple[str, ...] = ()

    @property
    def caught(self) -> bool:
        """The policy fails it. One it is merely not sure about is not caught."""
        return self.outcome == "fail"


@dataclass(frozen=True)
class ReportData:
    """One build, ready to be told.

    Attributes:
        title: What was built, such as the model's name.
        target: Name of the target.
        status: Of the bundle; "released" only with a verdict that passes.
        golden: The inputs and the teacher's answers.
        table: The judged engine's scores on them.
        verdict: What the policy says about those scores.
        findings: What the diagnosis found: fault, text, before and after each.
        engine_maps: float32 [N, h, w], the engine's maps of the teacher's top-1.
        own_maps: float32 [N, h, w], the engine's maps of its own top-1.
        candidates: Every engine that was measured; at most one shipped.
        stages: Records of the stages, in order.
        latency: Candidate name to its latencies at batch 1: "p50", "p90" and "p99" in milliseconds ("p50_ms" and so on
            are read too), "power_w", "energy_mj" of one image and "peak_memory_bytes" where they were measured, other
            numbers and words kept as they are; None when nothing was measured.
        environment: `core.environment.environment_print` of the machine that measured.
        recipe: The resolved recipe, JSON-ready.
        compression: The compress stage's facts: "before" and "after" with "parameters" and "macs" each, and
            "sparsity" with "weights" and "zeros" where some are held at zero; or "skipped".
        engine: `EngineInfo.to_dict` of the engine that was verified; empty when it is not known.
        engine_logits: float32 [N, classes], the engine's; None leaves its probabilities out.
        judged: Name of the candidate whose scores these are; None takes the one that shipped.
        controls: What the policy says about the controls that were verified beside the engine.
        controls_state: Whether they ran; without any it is told that nothing shows that the policy can fail.
        blame: The document of `blame.json` about this bundle; None where nothing was blamed.
    """

    title: str
    target: str
    status: Status
    golden: GoldenSet
    table: ScoreTable
    verdict: Verdict
    findings: tuple[Mapping[str, Any], ...]
    engine_maps: npt.NDArray[np.float32]
    own_maps: npt.NDArray[np.float32]
    candidates: tuple[CandidateSummary, ...]
    stages: tuple[StageRecord, ...]
    latency: Mapping[str, Mapping[str, Any]] | None
    environment: Mapping[str, Any]
    recipe: Mapping[str, Any]
    compression: Mapping[str, Any]
    engine: Mapping[str, Any] = field(default_factory=dict)
    engine_logits: npt.NDArray[np.float32] | None = None
    judged: str | None = None
    engines_absent: tuple[Mapping[str, str], ...] = ()
    controls: tuple[ControlSummary, ...] = ()
    controls_state: ControlsState = "absent"
    blame: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        golden = self.golden
        logits = golden.logits if self.engine_logits is None else self.engine_logits
        names = [item.name for item in self.candidates]
        for holds, what, expected, found in (
            (self.status in STATUSES, "status", ", ".join(STATUSES), self.status),
            (
                self.status != "released" or self.verdict.outcome == "pass",
                "status",
                "a verdict that passes behind a release",
                self.verdict.outcome,
            ),
            (self.verdict.samples == len(self.table), "verdict", f"{len(self.table)} samples", self.verdict.samples),
            (self.table.sample == golden.digests, "score table", "the samples of the golden set", "other ones"),
            (self.judged in (None, *names), "judged candidate", ", ".join(names), self.judged),
            (self.engine_maps.shape == golden.maps.shape, "maps", golden.maps.shape, self.engine_maps.shape),
            (self.own_maps.shape == golden.maps.shape, "own maps", golden.maps.shape, self.own_maps.shape),
            (logits.shape == golden.logits.shape, "logits", golden.logits.shape, logits.shape),
            (bool(self.controls) == (self.controls_state == "ran"), "controls", "some where they ran", "others"),
        ):
            if not holds:
                raise DefectError(
                    f"A report cannot be made: its {what} does not fit.", expected=str(expected), found=str(found)
                )
