"""Score tables on disk, so that a gate can recompute a verdict from the stored numbers, exactly.

The stored form is canonical JSON, one list a column. Floats are written so that they read back bit for bit, NaN is
null. Reading believes nothing: a table whose parts contradict each other was not written by a verification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.core.canonical import read_json, write_json
from edgekit.errors import IntegrityError
from edgekit.metrics.agreement import METRICS, worst_value
from edgekit.metrics.localisation import LOCALISATION
from edgekit.metrics.scores import STATES, ScoreTable

__all__ = [
    "LOCALISATION_SIDES",
    "SCORES_NAME",
    "check_scores",
    "read_scores",
    "scores_from_dict",
    "scores_to_dict",
    "write_scores",
]

SCORES_NAME = "scores.json"
# Whose map was held against the mask: the first half of a localisation column's name.
LOCALISATION_SIDES = ("centre-prior", "engine", "teacher")
_FORMAT = "edgekit.scores/1"
_COLUMNS = ("sample", "label", "teacher_class", "engine_class", "state")
_GROUPS = ("metrics", "own_class_metrics", "localisation")
# Present where an image has several maps, and only there.
_VIEWS = "views"


def check_scores(table: ScoreTable, *, where: str = "scores", classes: int | None = None) -> None:
    """Check that a table says nothing it could not have been written with.

    Every column has one entry a sample; states and column names are known; class indices are in range; metrics are in
    their range, NaN exactly where both maps are zero, and at their worst where a map vanished or is not finite.

    Args:
        table: The table.
        where: Named in messages.
        classes: Number of classes, where it is known.

    Raises:
        IntegrityError: It does not hold; the message names the column and the first sample.
    """
    _check_lengths(table, where)
    unknown = sorted(set(table.state) - set(STATES))
    if unknown:
        raise IntegrityError(
            "A score table holds an unknown state.", where=where, expected=", ".join(STATES), found=", ".join(unknown)
        )
    _check_classes(table, where, classes)
    _check_metrics(table, where)
    _check_views(table, where)
    known = tuple(f"{side}/{name}" for side in LOCALISATION_SIDES for name in LOCALISATION)
    for name, values in table.localisation.items():
        _refuse_unknown(name, known, f"{where}: localisation")
        _require(np.isnan(values) | ((values >= 0) & (values <= 1)), values, f"{where}: {name}", "null or 0 to 1")


def _check_lengths(table: ScoreTable, where: str) -> None:
    columns: dict[str, Any] = {name: getattr(table, name) for name in _COLUMNS}
    for group in _GROUPS:
        columns |= {f"{group}.{name}": values for name, values in getattr(table, group).items()}
    for name, values in columns.items():
        if len(values) != len(table):
            raise IntegrityError(
                "A column of a score table has the wrong length.",
                where=f"{where}: {name}",
                expected=f"{len(table)} entries",
                found=str(len(values)),
            )


def _check_classes(table: ScoreTable, where: str, classes: int | None) -> None:
    for name, values, least in (
        ("label", table.label, -1),
        ("teacher_class", table.teacher_class, 0),
        ("engine_class", table.engine_class, -1),
    ):
        holds = values >= least
        expected = f"at least {least}"
        if classes is not None:
            holds, expected = holds & (values < classes), f"{least} to {classes - 1}"
        _require(holds, values, f"{where}: {name}", expected)


def _check_metrics(table: ScoreTable, where: str) -> None:
    state = np.array(table.state, dtype=np.str_)
    own_absent = [np.isnan(values) for values in table.own_class_metrics.values()]
    if own_absent and table.own_class_metrics.keys() != table.metrics.keys():
        raise IntegrityError(
            "The two views of a score table hold different metrics.",
            where=where,
            expected=", ".join(sorted(table.metrics)),
            found=", ".join(sorted(table.own_class_metrics)),
        )
    for group, columns in (("metrics", table.metrics), ("own_class_metrics", table.own_class_metrics)):
        for name, values in columns.items():
            place = f"{where}: {group}.{name}"
            _refuse_unknown(name, tuple(METRICS), f"{where}: {group}")
            metric, absent = METRICS[name], np.isnan(values)
            low, high = sorted((metric.worst, metric.best))
            _require(absent | metric.within_range(values), values, place, f"null or {low:g} to {high:g}")
            if group == "metrics":
                _require(absent == (state == "both_zero"), values, place, 'null exactly where the state is "both_zero"')
                vanished = (state == "one_zero") | (state == "non_finite")
                _require(~vanished | (values == metric.worst), values, place, f"{metric.worst:g} where a map is lost")
            else:
                # Both maps are zero for the own class only where the teacher's map is, which "scored" excludes.
                _require(~(absent & (state == "scored")), values, place, "a value where the teacher's map is not zero")
                _require(absent == own_absent[0], values, place, "null for the same samples as the other metrics")


def _check_views(table: ScoreTable, where: str) -> None:
    for view, columns in table.views.items():
        place = f"{where}: {_VIEWS}.{view}"
        if columns.keys() != table.metrics.keys() or any(len(values) != len(table) for values in columns.values()):
            raise IntegrityError(
                "A map of a score table holds other metrics than the table.",
                where=place,
                expected=f"{len(table)} values each of " + ", ".join(sorted(table.metrics)),
                found=", ".join(f"{len(values)} of {name}" for name, values in sorted(columns.items())),
            )
        for name, values in columns.items():
            metric = METRICS[name]
            low, high = sorted((metric.worst, metric.best))
            within = np.isnan(values) | metric.within_range(values)
            _require(within, values, f"{place}.{name}", f"null or {low:g} to {high:g}")
    if table.views:
        for name, values in table.metrics.items():
            worst = worst_value(name, [columns[name] for columns in table.views.values()])
            same = (worst == values) | (np.isnan(worst) & np.isnan(values))
            _require(same, values, f"{where}: metrics.{name}", "the worst value over the sample's maps")


def _refuse_unknown(name: str, known: tuple[str, ...], where: str) -> None:
    if name not in known:
        raise IntegrityError(
            "A score table holds an unknown column.", where=where, expected=", ".join(known), found=repr(name)
        )


def _require(holds: npt.NDArray[np.bool_], values: npt.NDArray[Any], where: str, expected: str) -> None:
    if not holds.all():
        first = int(np.flatnonzero(~holds)[0])
        raise IntegrityError(
            "A value of a score table is impossible.",
            where=f"{where}, sample {first}",
            expected=expected,
            found=str(values[first]),
        )


def scores_to_dict(table: ScoreTable) -> dict[str, Any]:
    """JSON-ready form of a table, read back by `scores_from_dict`. Raises like `check_scores`."""
    check_scores(table)
    document: dict[str, Any] = {
        "format": _FORMAT,
        "sample": list(table.sample),
        "state": list(table.state),
        "label": table.label.tolist(),
        "teacher_class": table.teacher_class.tolist(),
        "engine_class": table.engine_class.tolist(),
    }
    for group in _GROUPS:
        document[group] = _written(getattr(table, group))
    if table.views:
        document[_VIEWS] = {view: _written(columns) for view, columns in table.views.items()}
    return document


def _written(columns: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, list[float | None]]:
    return {name: [None if np.isnan(value) else float(value) for value in values] for name, values in columns.items()}


def scores_from_dict(raw: object, *, where: str, classes: int | None = None) -> ScoreTable:
    """Read a stored table strictly.

    Args:
        raw: Parsed JSON.
        where: Named in messages.
        classes: Number of classes of the network, where it is known.

    Raises:
        IntegrityError: A key is missing, unknown or of the wrong type, or `check_scores` refuses the table.
    """
    known = {"format", *_COLUMNS, *_GROUPS}
    if not isinstance(raw, Mapping) or set(raw) - {_VIEWS} != known:
        found = ", ".join(sorted(map(str, raw))) if isinstance(raw, Mapping) else type(raw).__name__
        raise IntegrityError("A score table is malformed.", where=where, expected=", ".join(sorted(known)), found=found)
    if raw["format"] != _FORMAT:
        raise IntegrityError(
            "A score table has an unknown format.", where=where, expected=_FORMAT, found=repr(raw["format"])
        )
    groups = {group: _read_columns(raw[group], f"{where}: {group}") for group in _GROUPS}
    views = raw.get(_VIEWS, {})
    if not isinstance(views, Mapping) or (_VIEWS in raw and not views):
        raise IntegrityError("A score table is malformed.", where=f"{where}: {_VIEWS}", expected="an object of maps")

    def class_column(name: str) -> npt.NDArray[np.int64]:
        return np.array(_column(raw[name], _as_class, f"{where}: {name}"), dtype=np.int64)

    table = ScoreTable(
        sample=tuple(_column(raw["sample"], _as_digest, f"{where}: sample")),
        state=tuple(_column(raw["state"], _as_text, f"{where}: state")),
        label=class_column("label"),
        teacher_class=class_column("teacher_class"),
        engine_class=class_column("engine_class"),
        metrics=groups["metrics"],
        own_class_metrics=groups["own_class_metrics"],
        localisation=groups["localisation"],
        views={str(view): _read_columns(columns, f"{where}: {_VIEWS}.{view}") for view, columns in views.items()},
    )
    check_scores(table, where=where, classes=classes)
    return table


def _read_columns(raw: object, where: str) -> dict[str, npt.NDArray[np.float64]]:
    if not isinstance(raw, Mapping):
        raise IntegrityError("A score table is malformed.", where=where, expected="an object")
    return {
        str(name): np.array(_column(values, _as_float, f"{where}.{name}"), dtype=np.float64)
        for name, values in raw.items()
    }


def _column(values: object, convert: Callable[[object], Any], where: str) -> list[Any]:
    if not isinstance(values, list):
        raise IntegrityError("A score table is malformed.", where=where, expected="a list", found=type(values).__name__)
    try:
        return [convert(value) for value in values]
    except (TypeError, ValueError, OverflowError) as cause:
        raise IntegrityError("A score table is malformed.", where=where, found=str(cause)) from cause


def _as_float(value: object) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124
        raise TypeError(f"not a number or null: {value!r}")
    return float(value)


def _as_class(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**31:
        raise TypeError(f"not a class index: {value!r}")
    return value


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"not text: {value!r}")
    return value


def _as_digest(value: object) -> str:
    text = _as_text(value)
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"not a SHA-256 in lower-case hexadecimal: {text[:80]!r}")
    return text


def write_scores(path: Path, table: ScoreTable) -> None:
    """Write a table as canonical JSON, atomically."""
    write_json(path, scores_to_dict(table))


def read_scores(path: Path, *, classes: int | None = None) -> ScoreTable:
    """Read a table. Raises like `scores_from_dict`, and `BadInputError` where the file cannot be read."""
    return scores_from_dict(read_json(path), classes=classes, where=str(path))
