"""The JSON schema of policies, made of the clauses themselves: the same ranges, and the words of their docstrings.

The schema refuses what the reader refuses in one clause or key. What it cannot say is left to the reader: that no two
clauses are alike when one spells out a default, and that 3.0 is no whole number.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from edgekit.config.schema import described_attributes
from edgekit.core.canonical import write_json
from edgekit.metrics.agreement import METRICS, Metric
from edgekit.policy.clauses import BESIDE_THE_SCORES, CLAUSES, Clause
from edgekit.policy.fields import (
    VIEWS,
    Choice,
    Count,
    Flag,
    MetricBound,
    MetricMargin,
    MetricName,
    Number,
    has_default,
    kind_of,
)
from edgekit.policy.map_clauses import PerClass
from edgekit.policy.policy import POLICY_FORMAT, Policy
from edgekit.policy.release_clauses import ANSWERS, BaselineClause, LocalisationClause

__all__ = ["policy_schema", "write_policy_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a policy document."""
    described = described_attributes(Policy)
    confidence = {"type": "number", "minimum": 0.5, "exclusiveMaximum": 1}
    keys: dict[str, dict[str, Any]] = {
        "name": {"type": "string", "pattern": r"\S"},
        "confidence": confidence,
        "min_samples": {"type": "integer", "minimum": 1},
        "family_confidence": {"anyOf": [confidence, {"type": "null"}]},
        "sequential": {"type": "boolean"},
        "clauses": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": _one_of_the_kinds(),
            "contains": {"not": {"required": ["kind"], "properties": {"kind": {"enum": list(BESIDE_THE_SCORES)}}}},
        },
    }
    return {
        "$schema": _DIALECT,
        "title": "edgekit policy",
        "description": _first_line(Policy),
        "type": "object",
        "properties": {
            "format": {"const": POLICY_FORMAT},
            **{name: {**node, "description": described[name]} for name, node in keys.items()},
        },
        "required": ["name", "confidence", "min_samples", "clauses"],
        "additionalProperties": False,
        "if": {"required": ["sequential"], "properties": {"sequential": {"const": True}}},
        "then": {"properties": {"clauses": {"items": _may_be_watched()}}},
        "$defs": {kind: _clause_schema(cls) for kind, cls in CLAUSES.items()},
    }


def write_policy_schema(path: Path) -> None:
    """Write the schema where editors find it: `calibration/policy.schema.json` in the repository."""
    write_json(path, policy_schema())


def _may_be_watched() -> dict[str, Any]:
    """What `edgekit.policy.clauses.may_be_watched` says."""
    exact = {"kind": {"enum": ["mean", "quantile"]}, "interval": {"const": "exact"}}
    return {
        "anyOf": [
            {"properties": {"kind": {"enum": ["share", "agreement", "wrong-evidence", "budget"]}}},
            {"required": ["interval"], "properties": exact},
        ]
    }


def _one_of_the_kinds() -> dict[str, Any]:
    """By its kind, so that an editor complains about the key that is wrong and not about ten kinds of clauses."""
    return {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(CLAUSES)}},
        "allOf": [
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": kind}}},
                "then": {"$ref": f"#/$defs/{kind}"},
            }
            for kind in CLAUSES
        ],
    }


def _clause_schema(cls: type[Clause]) -> dict[str, Any]:
    described = described_attributes(cls)
    if issubclass(cls, PerClass):
        described = {**described_attributes(PerClass), **described}
    properties: dict[str, Any] = {"kind": {"const": cls.kind}}
    for item in fields(cls):
        node = _value_schema(item)
        if has_default(item):
            node["default"] = item.default
        properties[item.name] = {**node, "description": described[item.name]}
    schema: dict[str, Any] = {
        "description": _first_line(cls),
        "type": "object",
        "properties": properties,
        "required": ["kind", *(item.name for item in fields(cls) if not has_default(item))],
        "additionalProperties": False,
    }
    rules = [*_metric_rules(cls), *_rules_between_keys(cls)]
    return {**schema, "allOf": rules} if rules else schema


def _value_schema(item: Field[Any]) -> dict[str, Any]:
    kind = kind_of(item)
    if isinstance(kind, Number):
        node: dict[str, Any] = {"type": "number"}
        node["minimum" if kind.with_low else "exclusiveMinimum"] = kind.low
        if kind.high < math.inf:
            node["maximum" if kind.with_high else "exclusiveMaximum"] = kind.high
        return {"anyOf": [node, {"type": "null"}]} if kind.optional else node
    if isinstance(kind, Choice):
        return {"enum": list(kind.options)}
    if isinstance(kind, Count):
        return {"type": "integer", "minimum": kind.least}
    if isinstance(kind, Flag):
        return {"type": "boolean"}
    if isinstance(kind, MetricName):
        return {"enum": [*kind.others, *METRICS]}
    # Whose range depends on the metric: see `_metric_rules`.
    return {"type": "number"} | ({"minimum": 0} if isinstance(kind, MetricMargin) else {})


def _metric_rules(cls: type[Clause]) -> list[dict[str, Any]]:
    """The range of what is about a metric, metric by metric."""
    kinds = {item.name: kind_of(item) for item in fields(cls)}
    rules = []
    for name, kind in kinds.items():
        if isinstance(kind, MetricBound):
            rules += [_when("metric", metric.name, {name: _range(metric)}) for metric in METRICS.values()]
        elif isinstance(kind, MetricMargin):
            widths = {metric.name: abs(metric.best - metric.worst) for metric in METRICS.values()}
            widths |= dict.fromkeys(ANSWERS, 1.0)
            rules += [_when("of", what, {name: {"exclusiveMaximum": width}}) for what, width in widths.items()]
    return rules


def _range(metric: Metric) -> dict[str, float]:
    if metric.better == "higher":
        return {"exclusiveMinimum": metric.worst, "maximum": metric.best}
    return {"minimum": metric.best, "exclusiveMaximum": metric.worst}


def _when(key: str, value: str, then: Mapping[str, Any]) -> dict[str, Any]:
    return {"if": {"required": [key], "properties": {key: {"const": value}}}, "then": {"properties": dict(then)}}


def _rules_between_keys(cls: type[Clause]) -> list[dict[str, Any]]:
    if issubclass(cls, PerClass):
        idle = {item.name: {"const": item.default} for item in fields(PerClass) if item.name != "over"}
        over = {"required": ["over"], "properties": {"over": {"const": "class"}}}
        return [{"if": {"not": over}, "then": {"properties": idle}}]
    if cls is LocalisationClause:
        given = [
            {"required": [name], "properties": {name: {"type": "number"}}}
            for name in ("bound", "drop", "above_centre_prior")
        ]
        return [{"oneOf": given}]
    if cls is BaselineClause:
        of_answers = {"required": ["of"], "properties": {"of": {"enum": list(ANSWERS)}}}
        return [{"if": of_answers, "then": {"properties": {"view": {"const": VIEWS[0]}}}}]
    return []


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
