"""The report as one JSON document. The page is drawn from it alone, so it holds every number the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit import __version__
from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.report.classes import describe_classes
from edgekit.report.clauses import describe_clause
from edgekit.report.controls import describe_controls
from edgekit.report.costs import (
    describe_candidates,
    describe_compression,
    describe_engines,
    finite_or_none,
    measured_on,
)
from edgekit.report.data import ReportData
from edgekit.report.distributions import describe_distributions
from edgekit.report.headline import headline, judged_name
from edgekit.report.hops import describe_hops
from edgekit.report.quality import (
    describe_answers,
    describe_localisation,
    describe_own_class,
    describe_states,
    describe_views,
)
from edgekit.report.reproduce import describe_reproduction
from edgekit.report.samples import describe_samples
from edgekit.report.selection import SampleSelection

__all__ = ["REPORT_FORMAT", "report_document"]

REPORT_FORMAT = "edgekit.report/1"


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
        "judged": judged_name(data),
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
            "clauses": [describe_clause(result, golden.card.classes) for result in data.verdict.clauses],
        },
        "controls": describe_controls(data),
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
        "classes": describe_classes(golden, data.table, data.verdict.policy, selection.metric),
        "localisation": describe_localisation(golden, data.table),
        "states": describe_states(data.table),
        "own_class": describe_own_class(data.table),
        "views": describe_views(data.table),
        "hops": describe_hops(data.blame, selection.metric),
        "reproduce": describe_reproduction(data),
        "engine": dict(data.engine),
        "environment": dict(data.environment),
        "recipe": dict(data.recipe),
    }
    # Read back at once: the page is drawn from what a reader of the file gets, lists for tuples included.
    parsed: dict[str, Any] = parse_strict(dump_canonical(_without_nan(document)), where="report.json")
    return parsed


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
