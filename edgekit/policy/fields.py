"""What a value of a clause may be, written beside the field: one description that checks it and makes the schema.

The description stands in the metadata of the dataclass field. `check_fields` refuses what it does not allow, with the
value as found; the published JSON schema of policies is written from the same descriptions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, TypeAlias

from edgekit.errors import BadInputError
from edgekit.metrics.agreement import METRICS, Metric, metric_named

__all__ = [
    "VIEWS",
    "Choice",
    "Count",
    "Flag",
    "MetricBound",
    "MetricMargin",
    "MetricName",
    "Number",
    "check_fields",
    "described",
    "has_default",
    "kind_of",
    "left_out",
    "metric_of",
    "stored_values",
]

# Whose class the engine's map explains: the teacher's top-1, so that a moved map is told from a flipped answer, or
# the engine's own top-1, as it explains itself when deployed.
VIEWS = ("teacher-class", "own-class")

_KEY = "edgekit.policy"
_LEFT_OUT = "edgekit.policy.left-out"


@dataclass(frozen=True)
class Number:
    """A finite number between two ends, which are not allowed themselves unless said; `optional` allows None."""

    low: float
    high: float
    with_low: bool = False
    with_high: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    options: tuple[str, ...]
    what: str


@dataclass(frozen=True)
class Count:
    """A whole number of at least `least`."""

    least: int


@dataclass(frozen=True)
class Flag:
    """True or false."""


@dataclass(frozen=True)
class MetricName:
    """Name of a metric, or one of `others`."""

    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricBound:
    """A value in the range of the clause's metric. Its worst demands nothing and is refused; its best is allowed."""


@dataclass(frozen=True)
class MetricMargin:
    """From 0, allowed, to the width of the range of what the clause's `of` names, which would allow everything."""


Kind: TypeAlias = Number | Choice | Count | Flag | MetricName | MetricBound | MetricMargin


def described(kind: Kind) -> Mapping[str, Any]:
    """Metadata for a field that is always written down."""
    return {_KEY: kind}


def left_out(kind: Kind) -> Mapping[str, Any]:
    """Metadata for a field that is written down only where it is not at its default.

    What policies could already say must be stored as it always was, byte for byte, or old verdicts would not be what
    their policies say. So every key that comes later is one of these.
    """
    return {_KEY: kind, _LEFT_OUT: True}


def stored_values(clause: Any) -> dict[str, Any]:
    """The clause's fields as they are stored."""
    return {
        item.name: getattr(clause, item.name)
        for item in fields(clause)
        if not (item.metadata.get(_LEFT_OUT) and getattr(clause, item.name) == item.default)
    }


def kind_of(item: Field[Any]) -> Kind:
    """What a field's value may be."""
    kind: Kind = item.metadata[_KEY]
    return kind


def check_fields(clause: Any) -> None:
    """Check every field of a clause, and store numbers as float: whole ones come from JSON and YAML as int.

    Raises:
        BadInputError: A value is of the wrong type, out of range or unknown.
    """
    for item in fields(clause):
        kind, value = kind_of(item), getattr(clause, item.name)
        if isinstance(kind, Number):
            if not (kind.optional and value is None):
                _check_number(clause, item.name, kind)
        elif isinstance(kind, Choice):
            _check_choice(value, kind)
        elif isinstance(kind, Count):
            _check_count(clause, item.name, kind)
        elif isinstance(kind, Flag):
            _check_flag(clause, item.name)
        elif isinstance(kind, MetricName):
            _check_metric_name(clause, item.name, kind)
        elif isinstance(kind, MetricBound):
            _check_metric_bound(clause, item.name)
        else:
            _check_metric_margin(clause, item.name)


def metric_of(clause: Any) -> Metric:
    """The metric that a clause is about. Only of a clause whose name was checked."""
    return METRICS[clause.metric]


def has_default(item: Field[Any]) -> bool:
    """Whether a document may leave the key out."""
    return item.default is not MISSING


def _finite(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _check_number(clause: Any, name: str, kind: Number) -> None:
    value = getattr(clause, name)
    within = _finite(value) and (
        (kind.low < value or (kind.with_low and value == kind.low))
        and (value < kind.high or (kind.with_high and value == kind.high))
    )
    if not within:
        low = f"{'of at least' if kind.with_low else 'above'} {kind.low:g}"
        high = "" if kind.high == math.inf else f" and {'at most' if kind.with_high else 'below'} {kind.high:g}"
        raise _out_of_range(clause, name, f"a number {low}{high}", value)
    object.__setattr__(clause, name, float(value))


def _check_choice(value: object, kind: Choice) -> None:
    if not isinstance(value, str) or value not in kind.options:
        raise BadInputError(
            f"There is no {kind.what} called {value!r}.",
            expected="one of " + ", ".join(kind.options),
            found=repr(value),
        )


def _check_count(clause: Any, name: str, kind: Count) -> None:
    value = getattr(clause, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < kind.least:
        raise _out_of_range(clause, name, f"a whole number of at least {kind.least}", value)


def _check_flag(clause: Any, name: str) -> None:
    value = getattr(clause, name)
    if not isinstance(value, bool):
        raise BadInputError(
            f"A policy value has the wrong type: {name} of a {clause.kind!r} clause.",
            expected="true or false",
            found=repr(value),
        )


def _check_metric_name(clause: Any, name: str, kind: MetricName) -> None:
    value = getattr(clause, name)
    if not isinstance(value, str):
        raise BadInputError(
            f"The metric of a {clause.kind!r} clause is not a name.",
            expected="one of " + ", ".join((*kind.others, *METRICS)),
            found=repr(value),
        )
    if value in kind.others:
        return
    if value not in METRICS and kind.others:
        raise BadInputError(
            f"There is nothing called {value!r} to compare.",
            expected="one of " + ", ".join((*kind.others, *METRICS)),
            found=repr(value),
        )
    metric_named(value)


def _check_metric_bound(clause: Any, name: str) -> None:
    value, metric = getattr(clause, name), metric_of(clause)
    low, high = sorted((metric.worst, metric.best))
    if not (_finite(value) and low <= value <= high and value != metric.worst):
        raise BadInputError(
            f"A policy value is out of range: {name} of a {clause.kind!r} clause about {metric.name}.",
            expected=f"{low:g} to {high:g}, and not {metric.worst:g}, which every sample reaches",
            found=repr(value),
        )
    object.__setattr__(clause, name, float(value))


def _check_metric_margin(clause: Any, name: str) -> None:
    value = getattr(clause, name)
    width = abs(METRICS[clause.of].best - METRICS[clause.of].worst) if clause.of in METRICS else 1.0
    if not (_finite(value) and 0 <= value < width):
        raise _out_of_range(clause, name, f"a number of at least 0 and below {width:g}", value)
    object.__setattr__(clause, name, float(value))


def _out_of_range(clause: Any, name: str, expected: str, value: object) -> BadInputError:
    return BadInputError(
        f"A policy value is out of range: {name} of a {clause.kind!r} clause.", expected=expected, found=repr(value)
    )
