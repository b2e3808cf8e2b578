"""The report as one JSON document. The page is drawn from it alone, so it holds every number the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit import __version__
from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.policy.result import ClauseResult
from edgekit.report.costs import (
    describe_candidates,
    describe_compression,
    describe_engines,
    finite_or_none,
    measured_on,
)
from edgekit.report.data import ReportData
from edgekit.report.distributions import describe_distributions
from edgekit.report.quality import (
    describe_answers,
    describe_classes,
    describe_localisation,
    describe_own_class,
    describe_states,
    describe_views,
)
from edgekit.report.samples import describe_samples
from edgekit.report.selection import SampleSelection

__all__ = ["REPORT_FORMAT", "headline", "report_document"]

REPORT_FORMAT = "edgekit.report/1"
_UNITS = {
    "share": "share",
    "agreement": "share",
    "undefined": "share",
    "wrong-evidence": "share",
    "accuracy-drop": "points",
}


def report_document(data: ReportData, selection: SampleSelection) -> dict[str, Any]:
    """Everything the report says, as it reads back from `report.json`.

    Raises:
        DefectError: Something in `data` cannot be written as JSON.
    """
    golden = data.golden
    document = {
        "format": REPORT_FORMAT,
        "edgekit": __version__,
        "title": data.title,
        "target": data.target,
        "status": data.status,
        "headline": headline(data),
        "judged": data.judged or next((item.name for item in data.candidates if item.shipped), None),
        "measured_on": measured_on(data),
        "model": {
            "card": golden.card.to_dict(),
            "map": golden.map_spec.to_dict(),
            "teacher_sha256": golden.teacher,
        },
        "answers": describe_answers(data.table),
        "ranked_mean": _ranked_mean(data, selection),
        "verdict": {
            "outcome": data.verdict.outcome,
            "policy": data.verdict.policy.to_dict(),
            "clauses": [_clause(result) for result in data.verdict.clauses],
        },
        "controls": dict(data.controls),
        "findings": [_finding(finding) for finding in data.findings],
        "stages": [
            {
                "stage": record.stage,
                "key": record.key,
                "summary": str(record.facts.get("summary", "")),
                "options": dict(record.options),
                "outputs": {name: {"sha256": ref.sha256, "size": ref.size} for name, ref in record.outputs.items()},
            }
            for record in data.stages
        ],
        "compression": describe_compression(data.compression),
        "engines": describe_engines(data),
        "latency": None if data.latency is None else {name: dict(stats) for name, stats in data.latency.items()},
        "candidates": describe_candidates(data.candidates),
        "engines_absent": [dict(item) for item in data.engines_absent],
        "distributions": describe_distributions(data.table, data.verdict.policy),
        "samples": describe_samples(data, selection),
        "classes": describe_classes(golden, data.table),
        "localisation": describe_localisation(golden, data.table),
        "states": describe_states(data.table),
        "own_class": describe_own_class(data.table),
        "views": describe_views(data.table),
        "reproduce": _commands(data),
        "engine": dict(data.engine),
        "environment": dict(data.environment),
        "recipe": dict(data.recipe),
    }
    # Read back at once: the page is drawn from what a reader of the file gets, lists for tuples included.
    parsed: dict[str, Any] = parse_strict(dump_canonical(_without_nan(document)), where="report.json")
    return parsed


def headline(data: ReportData) -> str:
    """The verdict in one sentence."""
    results = data.verdict.clauses
    samples = f"{data.verdict.samples} golden sample{'' if data.verdict.samples == 1 else 's'}"
    if data.status == "released":
        held = sum(result.outcome == "pass" for result in results)
        demands = "the policy's one demand holds" if len(results) == 1 else f"{held} of {len(results)} demands hold"
        left = " and the rest could not be measured" if held < len(results) else ""
        return f"Released: {demands}{left}, measured on {samples} with the engine that ships."
    too_weak = data.controls.get("too_weak", [])
    if data.status == "inconclusive" and data.verdict.outcome == "pass" and too_weak:
        return f"Not released: the policy is too weak. It does not fail {', '.join(too_weak)} either."
    if data.status == "inconclusive":
        return f"Not released: {samples} cannot decide {_listed(results, 'inconclusive')}; {_needed(results)}"
    failed = [result for result in results if result.outcome == "fail"]
    if not failed:
        return f"Blocked: nothing is released on the evidence of {samples}, though no demand was shown to fail."
    return f"Blocked: {_listed(results, 'fail')} not met on {samples}."


def _listed(results: tuple[ClauseResult, ...], outcome: str) -> str:
    chosen = [result for result in results if result.outcome == outcome]
    if len(chosen) == 1:
        return f"the demand “{chosen[0].text}”" + (" is" if outcome == "fail" else "")
    return f"{len(chosen)} of {len(results)} demands" + (" are" if outcome == "fail" else "")


def _needed(results: tuple[ClauseResult, ...]) -> str:
    needed = [result.samples_needed for result in results if result.outcome == "inconclusive"]
    known = [count for count in needed if count is not None]
    if len(known) < len(needed) or not known:
        return "no practical number of samples would, as the numbers stand."
    return f"{max(known)} samples would, if what they show stays the same."


def _clause(result: ClauseResult) -> dict[str, Any]:
    return {
        "text": result.text,
        "explanation": result.explanation,
        "unit": _UNITS.get(result.clause.kind, "score"),
        "better": result.better,
        **result.to_dict(),
    }


def _commands(data: ReportData) -> list[str]:
    seed = data.recipe.get("seed")
    seeded = f" --seed {seed}" if isinstance(seed, int) and not isinstance(seed, bool) else ""
    # Where engines competed, time decided; the command names the one it decided for.
    competed = len({item.engine for item in data.candidates}) > 1
    named = f" --engine {data.engine['engine']}" if competed and "engine" in data.engine else ""
    return [
        f"edgekit build MODEL --target {data.target}{named} --data DIR --recipe recipe.json{seeded}",
        "edgekit gate BUNDLE",
        "edgekit verify BUNDLE",
    ]


def _finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fault": str(finding["fault"]),
        "text": str(finding["text"]),
        "before": finite_or_none(finding.get("before")),
        "after": finite_or_none(finding.get("after")),
    }


def _ranked_mean(data: ReportData, selection: SampleSelection) -> dict[str, Any] | None:
    if selection.metric is None:
        return None
    values = data.table.metrics[selection.metric]
    present = values[~np.isnan(values)]
    return {"metric": selection.metric, "mean": float(present.mean()) if present.size else None}


def _without_nan(value: Any) -> Any:
    """NaN and infinities as null, numpy scalars as Python's: facts of other stages pass through here unseen."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return finite_or_none(value) if isinstance(value, float) else value
