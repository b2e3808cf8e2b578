"""Which candidate ships: the cheapest that holds, and in words why the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from edgekit.bench.result import LatencyReport
from edgekit.errors import DefectError
from edgekit.verify.options import SelectOptions

__all__ = ["AbsentEngine", "Candidate", "Judged", "Selection", "Status", "select"]

Status: TypeAlias = Literal["released", "blocked", "inconclusive"]

_RANK = {"pass": 0, "inconclusive": 1, "fail": 2}


@dataclass(frozen=True)
class Candidate:
    """A measured engine.

    Attributes:
        name: Such as "int8" or "int8-openvino".
        engine: Registry name of its engine.
        precision: "int8", "fp16" or "fp32".
        outcome: Of its verdict: "pass", "fail" or "inconclusive".
        agreement: Share of golden samples on which its top-1 is the teacher's.
        accuracy: On the labelled golden samples; None when there are none.
        latency_p50_ms: Median latency at batch 1 on this machine; None when it was not measured.
        latency_ratio: Median over rounds of its latency to that of FP32 on the same engine in the same round, which a
            machine that is slow for a while does not change; None when it was not measured.
        bytes: Size of the artifact.
    """

    name: str
    engine: str
    precision: str
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
class AbsentEngine:
    """An engine of the target that did not compete.

    Attributes:
        engine: Registry name.
        reason: Why it did not.
        hint: What would make it available, empty where nothing would.
    """

    engine: str
    reason: str
    hint: str = ""


@dataclass(frozen=True)
class Selection:
    """The outcome.

    Attributes:
        chosen: Name of the candidate that goes into the bundle.
        status: "released" when it holds; else "inconclusive" or "blocked" after its verdict.
        judged: Every candidate, in order of preference.
        absent: Engines that could have competed and did not.
    """

    chosen: str
    status: Status
    judged: tuple[Judged, ...]
    absent: tuple[AbsentEngine, ...] = ()

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
            "engines_absent": [dict(vars(item)) for item in self.absent],
        }


def select(
    candidates: Mapping[str, Candidate],
    options: SelectOptions,
    *,
    timed: LatencyReport | None = None,
    absent: Sequence[AbsentEngine] = (),
) -> Selection:
    """Choose among measured candidates.

    On each engine INT8 is preferred; it is passed over when its verdict is not pass, when it is slower than FP32
    beyond the recipe's ratio, or less accurate beyond the recipe's bound. FP16, where there is one, is held to the same
    and comes next; it takes INT8's place where it was faster. Of what the engines are left with the
    fastest ships: an engine takes the place of one that is preferred to it where it was faster in three rounds of four
    at least, since less is the machine's noise. When nothing holds, the candidate with the better verdict is kept as
    evidence and not released.

    Args:
        candidates: By name, the preferred engine's first; every engine has an "fp32" among them, since it is what INT8
            is measured against.
        options: The recipe's bounds.
        timed: The candidates beside each other; without it the preferred engine that holds ships.
        absent: Engines that did not compete, to be told of.
    """
    engines = list(dict.fromkeys(candidate.engine for candidate in candidates.values()))
    groups = [_judged_engine(engine, candidates, options) for engine in engines]
    picks = [_pick(group, timed) for group in groups if any(item.holds for item in group)]
    judged = tuple(_passed_over(item, picks, timed) for group in groups for item in group)
    if picks:
        chosen = _fastest(picks, timed)
        told = {item.candidate.name: _beside(item, chosen, picks, timed) for item in picks}
        judged = tuple(told.get(item.candidate.name, item) for item in judged)
        return Selection(chosen.candidate.name, "released", judged, tuple(absent))
    best = min(judged, key=lambda item: _RANK[item.candidate.outcome])
    status: Status = "inconclusive" if best.candidate.outcome == "inconclusive" else "blocked"
    return Selection(best.candidate.name, status, judged, tuple(absent))


def _judged_engine(engine: str, candidates: Mapping[str, Candidate], options: SelectOptions) -> tuple[Judged, ...]:
    """One engine's candidates, each against FP32 on it."""
    found = {item.precision: item for item in candidates.values() if item.engine == engine}
    if "fp32" not in found:
        raise DefectError("A selection needs the FP32 candidate to compare with.", where=engine)
    ordered = [found[precision] for precision in ("int8", "fp16", "fp32") if precision in found]
    return tuple(_judge(candidate, found["fp32"], options) for candidate in ordered)


def _pick(group: Sequence[Judged], timed: LatencyReport | None) -> Judged:
    """What an engine is left with: FP32 where nothing smaller holds, else the faster of what is smaller."""
    holding = [item for item in group if item.holds]
    smaller = [item for item in holding if item.candidate.precision != "fp32"]
    return _fastest(smaller or holding, timed)


def _passed_over(item: Judged, picks: Sequence[Judged], timed: LatencyReport | None) -> Judged:
    """INT8 or FP16 that holds, and is not what its engine is left with, is told of beside what is."""
    pick = next((each for each in picks if each.candidate.engine == item.candidate.engine), None)
    if pick is None or item is pick or not item.holds or item.candidate.precision == "fp32":
        return item
    return _beside(item, pick, (item, pick), timed)


def _fastest(picks: Sequence[Judged], timed: LatencyReport | None) -> Judged:
    best = picks[0]
    for item in picks[1:]:
        if timed is not None and timed.ratio(item.candidate.name, best.candidate.name).quartiles[1] < 1:
            best = item
    return best


def _beside(item: Judged, chosen: Judged, picks: Sequence[Judged], timed: LatencyReport | None) -> Judged:
    """What an engine is left with, told beside what the others are left with."""
    others = [other for other in picks if other is not item] if item is chosen else [chosen]
    if not others:
        return item
    words = [
        f"not timed beside {name}"
        if timed is None
        else f"{timed.ratio(item.candidate.name, name).median:.2f} times as long as {name} here"
        for name in (other.candidate.name for other in others)
    ]
    return replace(item, reason="; ".join([item.reason, *words]))


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
