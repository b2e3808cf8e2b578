"""Controls on disk: one table a control and a document that says which there are, and reading them back strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.core.canonical import JsonValue, dump_canonical, parse_strict
from edgekit.core.digests import digest_bytes
from edgekit.errors import IntegrityError
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import scores_from_dict, scores_to_dict
from edgekit.verify.control_scores import controlled_rows, side_tables
from edgekit.verify.controls import CONTROLS, PERMUTED_MAPS, RANDOM_WEIGHTS, StoredControls

__all__ = ["CONTROLS_FOLDER", "CONTROLS_NAME", "control_file", "control_files", "controls_from_files"]

CONTROLS_NAME = "controls.json"
CONTROLS_FOLDER = "controls"
_FORMAT = "edgekit.controls/1"
_KEYS = {"format", "state", "tables", "missing"}
_AGAIN = "run 'edgekit verify', or the build, again"
# What mathematical libraries of two machines may part by; a control that somebody touched is off by far more.
_ROUNDING = 1e-6


def control_file(name: str) -> str:
    """Where a control's scores lie, beside the document."""
    return f"{CONTROLS_FOLDER}/{name}.json"


def control_files(controls: StoredControls) -> dict[str, bytes]:
    """What is written: relative name to content. The document names every table with its digest."""
    tables = {name: dump_canonical(scores_to_dict(table)) for name, table in controls.tables.items()}
    document: dict[str, JsonValue] = {
        "format": _FORMAT,
        "state": controls.state,
        "tables": {name: digest_bytes(data) for name, data in tables.items()},
        "missing": {**controls.missing},
    }
    return {CONTROLS_NAME: dump_canonical(document), **{control_file(name): data for name, data in tables.items()}}


def controls_from_files(
    document: bytes, read: Callable[[str], bytes], golden: GoldenSet, engine: ScoreTable, *, where: str
) -> StoredControls:
    """Read what `control_files` wrote, and compute again what can be.

    The centre prior and the random weights follow from the golden set alone. The permuted maps do not: the engine's
    maps are not stored beside its scores. Their table is held against what else is known.

    Args:
        document: Content of `CONTROLS_NAME`.
        read: The content of a file beside it; raises an `EdgekitError` where there is none.
        golden: What the controls claim to be about.
        engine: The scores that they were made beside.
        where: Named in messages.

    Raises:
        IntegrityError: A control is missing or unknown, or its table is not about this golden set and this engine, or
            holds other numbers than it must.
    """
    raw = _checked(parse_strict(document, where=where), where)
    if raw["state"] == "off":
        return StoredControls("off")
    for name, reason in raw["missing"].items():
        _check_missing(name, str(reason), golden, where)
    rows = controlled_rows(golden)
    tables, made, judged = {}, side_tables(golden, engine, rows), engine.part(rows)
    for name, digest in raw["tables"].items():
        data, place = read(control_file(name)), f"{where}: {name}"
        if digest_bytes(data) != digest:
            raise _refused("A control is not the one that was verified.", place, f"SHA-256 {digest}", "another file")
        table = scores_from_dict(parse_strict(data, where=place), where=place, classes=len(golden.card.classes))
        _check_table(name, table, judged, place)
        if name in made:
            _check_same(table, made[name], place)
        tables[name] = table
    return StoredControls("ran", tables, {str(name): str(reason) for name, reason in raw["missing"].items()})


def _checked(raw: object, where: str) -> dict[str, Any]:
    """The document's form: known keys, a known state, and every control either there or missing for a reason."""
    sound = (
        isinstance(raw, dict)
        and set(raw) == _KEYS
        and raw["format"] == _FORMAT
        and all(isinstance(raw[key], dict) for key in ("tables", "missing"))
    )
    if not sound:
        raise _refused("The document of the controls is malformed.", where, f"{_FORMAT}, {', '.join(sorted(_KEYS))}")
    assert isinstance(raw, dict)
    named = sorted([*raw["tables"], *raw["missing"]])
    wanted = {"ran": sorted(CONTROLS), "off": []}.get(str(raw["state"]))
    if named != wanted:
        raise _refused(
            "The controls are not whole.",
            where,
            "state off, or " + ", ".join(CONTROLS),
            f"state {raw['state']!a} with {', '.join(map(ascii, named)) or 'none'}",
        )
    return raw


def _check_missing(name: str, reason: str, golden: GoldenSet, where: str) -> None:
    """A control may only be missing where the golden set does not hold what it is made of."""
    possible = {RANDOM_WEIGHTS: golden.random is not None, PERMUTED_MAPS: len(golden) > 1}.get(name, True)
    if possible:
        raise _refused(
            f"The control {name} is missing, and the golden set holds what it is made of.", where, "its table", reason
        )


def _check_table(name: str, table: ScoreTable, engine: ScoreTable, where: str) -> None:
    if not (
        table.sample == engine.sample
        and np.array_equal(table.label, engine.label)
        and np.array_equal(table.teacher_class, engine.teacher_class)
    ):
        raise _refused("A control is about other samples than the golden set.", where, f"{len(engine)} samples")
    for what, found, wanted in (
        ("metrics", table.metrics, engine.metrics),
        ("metrics of own classes", table.own_class_metrics, engine.own_class_metrics),
        ("localisation", table.localisation, engine.localisation),
        ("maps", table.views, engine.views),
    ):
        if found.keys() != wanted.keys():
            raise _refused(f"A control's table is not whole: {what}.", where, ", ".join(wanted), ", ".join(found))
    if name != RANDOM_WEIGHTS and not np.array_equal(table.engine_class, engine.engine_class):
        raise _refused("A control does not keep the engine's answers.", where, "the classes in its scores")


def _check_same(stored: ScoreTable, made: ScoreTable, where: str) -> None:
    if stored.state != made.state or not np.array_equal(stored.engine_class, made.engine_class):
        raise _refused("A control's table is not what its golden set gives.", where, "the states and classes it gives")
    for stored_group, made_group in (
        (stored.metrics, made.metrics),
        (stored.own_class_metrics, made.own_class_metrics),
        (stored.localisation, made.localisation),
        *((stored.views[view], made.views[view]) for view in stored.views),
    ):
        _check_columns(stored_group, made_group, where)


def _check_columns(
    stored: Mapping[str, npt.NDArray[np.float64]], made: Mapping[str, npt.NDArray[np.float64]], where: str
) -> None:
    for name, values in stored.items():
        if name in made and not np.allclose(values, made[name], rtol=0, atol=_ROUNDING, equal_nan=True):
            raise _refused(f"A control's table is not what its golden set gives: {name}.", where, "the same values")


def _refused(message: str, where: str, expected: str, found: str = "others") -> IntegrityError:
    return IntegrityError(message, where=where, expected=expected, found=found, hint=_AGAIN)
