"""The verdict in one sentence that can be quoted without the page around it."""

from __future__ import annotations

from edgekit.policy.result import ClauseResult
from edgekit.report.data import ReportData

__all__ = ["headline", "judged_name"]


def judged_name(data: ReportData) -> str | None:
    """The candidate whose scores are told: the one that was named, else the one that shipped."""
    return data.judged or next((item.name for item in data.candidates if item.shipped), None)


def headline(data: ReportData) -> str:
    """What was judged, under which policy, on how many samples, with which outcome; what else one must know of it."""
    weak = [control.name for control in data.controls if not control.caught]
    sentence = _verdict(data)
    if data.status == "released" and weak:
        sentence += f" The policy is too weak to tell this engine from nonsense: it does not fail {_and(weak)}."
    return sentence


def _verdict(data: ReportData) -> str:
    results = data.verdict.clauses
    name = judged_name(data)
    what = f"{data.title}{f' ({name})' if name else ''} for {data.target}"
    samples = f"{data.verdict.samples} golden sample{'' if data.verdict.samples == 1 else 's'}"
    policy = f"the policy “{data.verdict.policy.name}”"
    if data.status == "released":
        held = sum(result.outcome == "pass" for result in results)
        demands = "the one demand" if len(results) == 1 else f"{held} of {len(results)} demands"
        left = ", and the rest could not be measured" if held < len(results) else ""
        return f"Released: {what} meets {demands} of {policy} on {samples}, measured with the engine that ships{left}."
    if data.status == "inconclusive":
        asked = _listed(results, "inconclusive")
        return f"Not released: {samples} cannot decide {asked} of {policy} about {what}; {_needed(results)}"
    if not any(result.outcome == "fail" for result in results):
        return f"Blocked: nothing is released of {what} on {samples}, though no demand of {policy} was shown to fail."
    return f"Blocked: {what} misses {_listed(results, 'fail')} of {policy} on {samples}."


def _listed(results: tuple[ClauseResult, ...], outcome: str) -> str:
    chosen = [result for result in results if result.outcome == outcome]
    if len(chosen) == 1:
        return f"the demand “{chosen[0].text}”"
    return f"{len(chosen)} of {len(results)} demands"


def _needed(results: tuple[ClauseResult, ...]) -> str:
    needed = [result.samples_needed for result in results if result.outcome == "inconclusive"]
    known = [count for count in needed if count is not None]
    if len(known) < len(needed) or not known:
        return "no practical number of samples would, as the numbers stand."
    return f"{max(known)} samples would, if what they show stays the same."


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
