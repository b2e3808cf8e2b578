"""SARIF 2.1.0 (OASIS standard), for code scanning: a rule a clause and a control, a result for each that does not hold.

A result points at the stored scores inside the bundle, since that is where the evidence lies; the samples that speak
against a clause most are related locations.
"""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from edgekit import __version__
from edgekit.bundle.layout import GOLDEN_INDEX, SCORES
from edgekit.ci.escaping import LONGEST_NAME, escape_json, visible
from edgekit.ci.gate_sections import control_words
from edgekit.ci.subject import GateReport, JudgedClause
from edgekit.core.digests import digest_bytes
from edgekit.verify.controls import ControlResult

__all__ = ["gate_sarif"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def gate_sarif(report: GateReport) -> str:
    """A gate as a SARIF log."""
    clauses = [item for item in report.clauses if item.result.outcome in ("fail", "inconclusive")]
    results = [_clause_result(report, item) for item in clauses]
    results += [_control_result(report, control) for control in report.weak_controls]
    if report.result.outcome != "pass" and not results:
        # Nothing was measured. A log without results would be read as a pass.
        results.append(_result(report, "verdict", report.headline, report.result.outcome))
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "edgekit", "version": __version__, "rules": _rules(report)}},
        "automationDetails": {"id": f"edgekit-gate/{report.manifest.target}/"},
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": int(report.result.exit_code),
                "exitCodeDescription": report.result.outcome,
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": results,
        "properties": {
            "bundle": report.manifest.digest,
            "outcome": report.result.outcome,
            "policy": report.result.verdict.policy.name,
            **({"notice": report.notice} if report.notice else {}),
            **({"changes": report.changes.to_dict()} if report.changes is not None else {}),
        },
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return escape_json(json.dumps(log, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def _rules(report: GateReport) -> list[dict[str, Any]]:
    rules = [(item.identity, item.result.text) for item in report.clauses]
    rules += [
        (f"control/{control.name}", f"the policy fails the control {control.name}")
        for control in report.result.controls
    ]
    rules.append(("verdict", "the verdict of the policy is pass"))
    return [
        {
            "id": identity,
            "shortDescription": {"text": visible(text)},
            "defaultConfiguration": {"level": "error"},
        }
        for identity, text in rules
    ]


def _clause_result(report: GateReport, item: JudgedClause) -> dict[str, Any]:
    result = item.result
    raw = _result(report, item.identity, f"{result.text}: {result.explanation}", result.outcome)
    raw["properties"] |= {"observed": result.observed, "lower": result.lower, "upper": result.upper}
    related = [
        {
            "id": number,
            "message": {"text": _sample_words(sample.name, sample.value)},
            "physicalLocation": _physical(report, GOLDEN_INDEX),
            "logicalLocations": [{"name": visible(sample.name), "fullyQualifiedName": sample.digest, "kind": "object"}],
        }
        for number, sample in enumerate(item.worst)
    ]
    return raw | ({"relatedLocations": related} if related else {})


def _sample_words(name: str, value: float | None) -> str:
    return visible(name, LONGEST_NAME) + ("" if value is None else f": {value:.4f}")


def _control_result(report: GateReport, control: ControlResult) -> dict[str, Any]:
    words = f"The policy is too weak to fail the control {control.name}: {control_words(control)}."
    return _result(report, f"control/{control.name}", words, "too weak")


def _result(report: GateReport, rule: str, message: str, outcome: str) -> dict[str, Any]:
    # SARIF has the kind "open" for what could not be decided, but demands level "none" beside it, and code scanning
    # lets that pass. An undecided clause must not.
    policy = report.result.verdict.policy.name
    fingerprint = digest_bytes("\0".join((rule, policy, report.manifest.target)).encode("utf-8"))
    return {
        "ruleId": rule,
        "level": "error",
        "kind": "fail",
        "message": {"text": visible(message)},
        "locations": [{"physicalLocation": _physical(report, SCORES)}],
        "partialFingerprints": {"clause/v1": fingerprint},
        "properties": {"outcome": outcome},
    }


def _physical(report: GateReport, name: str) -> dict[str, Any]:
    """A file of the bundle. Of a tar file it is the tar file: viewers open no archives."""
    source = report.source if report.packed else f"{report.source}/{name}"
    path = PurePath(source)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix(), safe="/")
    return {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}
