"""From finished units to the rows of the tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.context import Context
from calibration.prepared import Prepared
from calibration.profiles import REAL_FORMAT
from calibration.units import Unit, all_units, method_named
from calibration.verdicts import Row, Verdict, verdicts
from calibration.work import read_columns, read_unit

__all__ = ["Found", "collected"]


@dataclass(frozen=True)
class Found:
    """What a run has found by now.

    Attributes:
        networks: Those that have rows.
        rows: Of the scored units.
        memory: Of the units that measure memory alone.
        verdicts: Of the claimed methods, in every format and number of images.
        missing: Units that were not done yet.
    """

    networks: tuple[Prepared, ...]
    rows: tuple[Row, ...]
    memory: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]
    missing: int

    def of(self, number_format: str, images: int) -> tuple[Row, ...]:
        """The rows of one format and number of images."""
        return tuple(row for row in self.rows if (row.number_format, row.images) == (number_format, images))

    def main_verdicts(self, calibrated: int) -> tuple[Verdict, ...]:
        """Those that the claim is about: real eight bits, the usual number of images."""
        return tuple(
            verdict for verdict in self.verdicts if (verdict.number_format, verdict.images) == (REAL_FORMAT, calibrated)
        )


def collected(context: Context) -> Found:
    """Read every unit of the profile that is there."""
    units = list(dict.fromkeys(all_units(context.profile)))
    done = [unit for unit in units if context.done(unit)]
    rows = {part: tuple(_row(unit, context) for unit in done if unit.part == part) for part in ("scores", "memory")}
    names = dict.fromkeys(unit.network for unit in done)
    return Found(
        networks=tuple(context.prepared(name) for name in names),
        rows=rows["scores"],
        memory=rows["memory"],
        verdicts=verdicts(rows["scores"]),
        missing=len(units) - len(done),
    )


def _row(unit: Unit, context: Context) -> Row:
    told: dict[str, Any] = read_unit(unit, context)
    return Row(
        unit.network,
        unit.method,
        method_named(unit.method).tool,
        unit.number_format,
        unit.images,
        numbers=told.get("numbers", {}),
        seconds=told.get("seconds", math.nan),
        ratio=told.get("ratio", math.nan),
        peak_bytes=told.get("peak_bytes", math.nan),
        not_run=told.get("not_run", ""),
        facts=told.get("facts"),
        version=told.get("tool", {}).get("version", ""),
        disagreeing=_disagreeing(unit, context) if "numbers" in told else frozenset(),
    )


def _disagreeing(unit: Unit, context: Context) -> frozenset[int]:
    agrees = read_columns(unit, context)["agrees"]
    return frozenset(int(place) for place in np.flatnonzero(agrees == 0))
