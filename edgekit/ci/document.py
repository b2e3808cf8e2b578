"""The JSON documents, for programs. Their keys are a contract: a change of meaning is another `format`."""

from __future__ import annotations

from typing import Any

from edgekit.ci.comparison import Comparison
from edgekit.ci.escaping import escape_json
from edgekit.ci.subject import GateReport
from edgekit.core.canonical import dump_canonical

__all__ = ["COMPARISON_FORMAT", "GATE_FORMAT", "comparison_json", "gate_dict", "gate_json"]

GATE_FORMAT = "edgekit.gate/1"
COMPARISON_FORMAT = "edgekit.comparison/1"


def gate_dict(report: GateReport) -> dict[str, Any]:
    """The gate's document. "notice" and "changes" are there only where there is something to say."""
    document: dict[str, Any] = {
        "format": GATE_FORMAT,
        "bundle": report.manifest.digest,
        "status": report.manifest.status,
        "exit_code": int(report.result.exit_code),
        **report.result.to_dict(),
        "worst_samples": {
            item.identity: [sample.to_dict() for sample in item.worst] for item in report.clauses if item.worst
        },
    }
    if report.notice:
        document["notice"] = report.notice
    if report.changes is not None:
        document["changes"] = report.changes.to_dict()
    return document


def gate_json(report: GateReport) -> str:
    """`gate_dict` as JSON."""
    return escape_json(dump_canonical(gate_dict(report)).decode("utf-8"))


def comparison_json(comparison: Comparison) -> str:
    """A comparison as JSON."""
    return escape_json(dump_canonical({"format": COMPARISON_FORMAT, **comparison.to_dict()}).decode("utf-8"))
