"""Which candidate ships: the cheapest that holds, and in words why the others do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from edgekit.errors import DefectError
from edgekit.verify.options import SelectOptions

__all__ = ["Candidate", "Judged", "Selection", "Status", "select"]

Status: TypeAlias = Literal["released", "blocked", "inconclusive"]

_RANK = {"pass": 0, "inconclusive": 1, "fail": 2}


@dataclass(frozen=True)
class Candidate:
    """A measured engine.

    Attributes:
        name: "int8" or "fp32".
        outcome: Of its verdict: "pass", "fail" or "inconclusive".
        agreement: Share of golden samples on which its top-1 is the teacher's.
        accuracy: On the labelled golden samples; None when there are none.
        latency_p50_ms: Median latency at batch 1 on this machine; None when it was not measured.
        latency_ratio: Median over rounds of its latency to FP32's in the same round, which a machine that is slow for
            a while does not change; None when it was not measured.
        bytes: Size of the artifact.
    """

    name: str
    outcome: str
    agreement: float
    accuracy: float | None
    latency_p50_ms: float | None
    latency_ratio: float | None
    bytes: int


@dataclass(frozen=True)
class Judged:
    """A candidate with what was decided about it and why."""

    candidate: Candidate
    holds: bool
    reason: str

    def to_dict(self, *, shipped: bool) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self.candidate), "holds": self.holds, "reason": self.reason, "shipped": shipped}


@dataclass(frozen=True)
class Selection:
    """The outcome.

    Attributes:
        chosen: Name of the candidate that goes into the bundle.
        status: "released" when it holds; else "inconclusive" or "blocked" after its verdict.
        judged: Every candidate, in order of preference.
    """

    chosen: str
    status: Status
    judged: tuple[Judged, ...]

    def ships(self, name: str) -> bool:
        """True for the one candidate that is released; nothing ships from a build that was not."""
        return self.status == "released" and name == self.chosen

    @property
    def reason(self) -> str:
        """Why the chosen one was chosen."""
        return next(item.reason for item in self.judged if item.candidate.name == self.chosen)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "chosen": self.chosen,
            "status": self.status,
            "candidates": [item.to_dict(shipped=self.ships(item.candidate.name)) for item in self.judged],
        }


def select(candidates: Mapping[str, Candidate], options: SelectOptions) -> Selection:
    """Choose among measured candidates.

    INT8 is preferred; it is passed over when its verdict is not pass, when it is slower than FP32 beyond the recipe's
    ratio, or less accurate beyond the recipe's bound. When nothing holds, the candidate with the better verdict is
    kept as evidence and not released.

    Args:
        candidates: By name; "fp32" must be among them, since it is what INT8 is measured against.
        options: The recipe's bounds.
    """
    if "fp32" not in candidates:
        raise DefectError("A selection needs the FP32 candidate to compare with.")
    baseline = candidates["fp32"]
    ordered = [candidates[name] for name in ("int8", "fp32") if name in candidates]
    judged = tuple(_judge(candidate, baseline, options) for candidate in ordered)
    holding = [item for item in judged if item.holds]
    if holding:
        return Selection(holding[0].candidate.name, "released", judged)
    best = min(judged, key=lambda item: _RANK[item.candidate.outcome])
    status: Status = "inconclusive" if best.candidate.outcome == "inconclusive" else "blocked"
    return Selection(best.candidate.name, status, judged)


def _judge(candidate: Candidate, baseline: Candidate, options: SelectOptions) -> Judged:
    against = [f"its verdict is {candidate.outcome}"] if candidate.outcome != "pass" else []
    if candidate is not baseline:
        against += _costs(candidate, baseline, options)
    if against:
        return Judged(candidate, False, f"not shipped: {'; '.join(against)}")
    return Judged(candidate, True, "holds: " + "; ".join(["its verdict is pass", *_gains(candidate, baseline)]))


def _costs(candidate: Candidate, baseline: Candidate, options: SelectOptions) -> list[str]:
    costs = []
    ratio = candidate.latency_ratio
    if ratio is not None and ratio > options.max_latency_ratio:
        costs.append(
            f"it takes {ratio:.2f} times the latency of FP32 here, and the recipe allows {options.max_latency_ratio:g}"
        )
    drop, measure = _quality_drop(candidate, baseline)
    if drop > options.max_accuracy_drop:
        costs.append(
            f"it loses {100 * drop:.1f} points of {measure} to FP32, and the recipe allows "
            f"{100 * options.max_accuracy_drop:.1f}"
        )
    return costs


def _gains(candidate: Candidate, baseline: Candidate) -> list[str]:
    if candidate is baseline:
        return []
    gains = []
    ratio = candidate.latency_ratio
    if ratio is not None:
        gains.append(f"{ratio:.2f} times the latency of FP32 here")
    gains.append(f"{candidate.bytes / max(baseline.bytes, 1):.2f} times its size")
    drop, measure = _quality_drop(candidate, baseline)
    gains.append(f"{100 * drop:+.1f} points of {measure} lost")
    return gains


def _quality_drop(candidate: Candidate, baseline: Candidate) -> tuple[float, str]:
    if candidate.accuracy is None or baseline.accuracy is None:
        return baseline.agreement - candidate.agreement, "agreement with the teacher"
    return baseline.accuracy - candidate.accuracy, "accuracy"
