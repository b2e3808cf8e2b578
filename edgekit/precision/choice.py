"""The choice among measured candidates: the cheapest that holds, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.precision.candidate import Candidate
from edgekit.precision.latency import CandidateLatency
from edgekit.precision.pareto import FP32_NAME, INT8_NAME, fewest_lifted

__all__ = ["Choice", "choose", "slower_in_words"]


@dataclass(frozen=True)
class Choice:
    """The outcome.

    Attributes:
        name: The chosen candidate, None where none holds.
        outcome: "pass", or what the FP32 graph's verdict is where nothing holds.
        reason: Why, in words.
    """

    name: str | None
    outcome: str
    reason: str


def choose(candidates: Mapping[str, Candidate], latency: CandidateLatency) -> Choice:
    """Choose the candidate that holds and is fastest; without latencies the one with the fewest lifted operations.

    A candidate with more lifted operations is preferred only where it is faster beyond noise.
    """
    holding = fewest_lifted(candidates)
    if not holding:
        return _nothing_holds(candidates)
    chosen = first = holding[0]
    for name in holding[1:]:
        if latency.is_faster(name, chosen):
            chosen = name
    reason = _told(chosen, candidates[chosen])
    if chosen != first:
        reason += f"; {first} lifts less and takes {latency.in_words(first, chosen)}"
    elif not latency.known and len(holding) > 1:
        reason += "; chosen by the fewest lifted operations, since latency is not measured"
    return Choice(chosen, "pass", reason)


def _told(name: str, candidate: Candidate) -> str:
    if name == INT8_NAME:
        return "full INT8 keeps the policy: nothing is lifted"
    if candidate.is_fp32:
        return "the FP32 graph is what keeps the policy at the least cost: nothing is INT8"
    count = len(candidate.lifted)
    return f"{count} operation{'' if count == 1 else 's'} lifted out of INT8 keep{'s' if count == 1 else ''} the policy"


def _nothing_holds(candidates: Mapping[str, Candidate]) -> Choice:
    fp32 = candidates[FP32_NAME]
    said = "; ".join(fp32.reasons[:3])
    if fp32.outcome == "inconclusive":
        return Choice(None, "inconclusive", f"not even the FP32 graph can be shown to keep the policy: {said}")
    return Choice(None, "fail", f"not even the FP32 graph keeps the policy, so no assignment can be asked to: {said}")


def slower_in_words(
    candidates: Mapping[str, Candidate], latency: CandidateLatency, chosen: str | None
) -> tuple[str, ...]:
    """A sentence for full INT8, the fewest lifted operations that hold, and the choice, where FP32 is faster."""
    names = dict.fromkeys((INT8_NAME, *fewest_lifted(candidates)[:1], chosen))
    where = "by the cost table" if latency.source == "cost table" else "on this target's engine, here"
    return tuple(
        f"{name} is SLOWER than FP32 {where}: it takes {latency.in_words(name, FP32_NAME)}"
        for name in names
        if name is not None and name != FP32_NAME and latency.is_faster(FP32_NAME, name)
    )
