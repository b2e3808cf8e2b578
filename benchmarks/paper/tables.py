"""Tables and figures of a run: `paper.json` with every number, `paper.md` to read, and `paper-*.png`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.core.canonical import write_json
from edgekit.core.environment import environment_print
from edgekit.core.files import write_bytes
from paper.collect import Group
from paper.context import Context
from paper.figures import draw_figures
from paper.text import text_of
from paper.verdicts import SCOPE, collected

__all__ = ["make_tables"]

_FORMAT = "edgekit.benchmark.paper/1"


def make_tables(context: Context, results: Path) -> None:
    """Write the tables of what is there by now."""
    found = collected(context)
    if not found.groups:
        print("no students of all losses are there yet: no tables")
        return
    results.mkdir(parents=True, exist_ok=True)
    names = draw_figures(context, found, results)
    profile = context.settings
    told = {
        "format": _FORMAT,
        "profile": profile.name,
        "beta": profile.beta,
        "evaluation": asdict(profile.evaluation),
        "students": [_group_dict(context, group) for group in found.groups],
        "references": [asdict(reference) for reference in found.references],
        "verdicts": [{**asdict(verdict), "holds": verdict.holds} for verdict in found.verdicts],
        "sweeps": [asdict(sweep) for sweep in found.sweeps],
        "environment": environment_print(),
    }
    write_json(results / "paper.json", _plain(told))
    write_bytes(results / "paper.md", text_of(context, found, SCOPE, names).encode())


def _group_dict(context: Context, group: Group) -> dict[str, Any]:
    recipe = context.settings.recipe(group.dataset, group.network, group.kind)
    return {**asdict(group), "recipe": asdict(recipe)}


def _plain(value: Any) -> Any:
    """JSON has no NaN: a number that does not exist is null. Six digits are more than any of them is good for."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
