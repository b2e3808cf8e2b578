"""Tables and figures of a run: `calibration.json` with every number, `calibration.md` to read, `calibration-*.png`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from calibration.collect import Found, collected
from calibration.context import Context
from calibration.figures import draw_figures
from calibration.text import text_of
from calibration.verdicts import Row
from edgekit.core.canonical import write_json
from edgekit.core.environment import environment_print
from edgekit.core.files import write_bytes

__all__ = ["make_tables", "plain", "told"]

_FORMAT = "edgekit.benchmark.calibration/1"


def make_tables(context: Context, results: Path) -> None:
    """Write the tables of what is there by now."""
    found = collected(context)
    if not found.rows:
        print("no unit is there yet: no tables")
        return
    results.mkdir(parents=True, exist_ok=True)
    machine = environment_print()
    names = draw_figures(found, context.profile, results)
    write_json(results / "calibration.json", told(found, context, machine))
    text = text_of(
        found, context.profile, f"{machine['processor']}, {machine['logical_cpus']} logical processors", names
    )
    write_bytes(results / "calibration.md", text.encode())
    for claim in found.main_verdicts(context.profile.calibrated):
        print(f"{claim.network}, {claim.method}: {', '.join(claim.misses) or 'holds'}")


def told(found: Found, context: Context, machine: Mapping[str, Any]) -> Any:
    """`calibration.json`."""
    networks = [
        {
            "name": each.network.name,
            "about": each.network.about,
            **{key: each.told[key] for key in ("accuracy", "map", "form")},
            "calibration_images": each.told["calibration"][: context.profile.calibrated],
            "held_out_images": len(each.told["evaluation"]),
        }
        for each in found.networks
    ]
    return plain(
        {
            "format": _FORMAT,
            "profile": asdict(context.profile),
            "tools": dict(context.versions),
            "networks": networks,
            "rows": [_row(row) for row in found.rows],
            "memory": [_row(row) for row in found.memory],
            "verdicts": [verdict.to_dict() for verdict in found.verdicts],
            "missing_units": found.missing,
            "environment": dict(machine),
        }
    )


def _row(row: Row) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name != "disagreeing"}


def plain(value: Any) -> Any:
    """JSON has no NaN: a number that does not exist is null. Six digits are more than any of them is good for."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value
