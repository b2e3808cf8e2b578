"""Tables and figures of a run: `paper.json` with every number, `paper.md` to read, and `paper-*.png`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.canonical import write_json
from edgekit.core.environment import environment_print
from edgekit.core.files import write_bytes
from paper.collect import AGREEMENT, Group, References, group_of, margin, references_of
from paper.context import Context
from paper.figures import draw_figures
from paper.sweeps import Sweep, sweeps_of
from paper.text import text_of

__all__ = ["SCOPE", "Results", "Verdict", "collected", "make_tables", "verdicts_of"]

# What the markdown shows and verdicts are about; the JSON has all scopes.
SCOPE = "held-out/common"
_FORMAT = "edgekit.benchmark.paper/1"
_ACCURACY_ALLOWANCE = 0.005


@dataclass(frozen=True)
class Verdict:
    """Whether one loss does for one kind what is claimed: better maps at an accuracy that is as good.

    Attributes:
        margins: Metric to its margin over no matching, seed by seed; above 0 is better.
        lost: Metrics whose mean margin is not above 0.
        accuracy_held: Whether the mean accuracy is within 0.5 points of no matching's, or better.
    """

    dataset: str
    network: str
    kind: str
    loss: str
    margins: Mapping[str, list[float]]
    lost: tuple[str, ...]
    accuracy_held: bool

    @property
    def holds(self) -> bool:
        """Whether nothing is lost."""
        return not self.lost and self.accuracy_held


@dataclass(frozen=True)
class Results:
    """Everything that tables are made of."""

    groups: tuple[Group, ...]
    references: tuple[References, ...]
    verdicts: tuple[Verdict, ...]
    sweeps: tuple[Sweep, ...]


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


def collected(context: Context) -> Results:
    """Read everything that is there."""
    kinds = context.settings.kinds
    keys = [((*key, kind), losses) for key, row in kinds.items() for kind, losses in row.items()]
    groups = tuple(group for key, losses in keys if (group := group_of(context, key, losses)) is not None)
    references = tuple(found for key in kinds if (found := references_of(context, *key)) is not None)
    return Results(groups, references, verdicts_of(groups), sweeps_of(context))


def verdicts_of(groups: Sequence[Group]) -> tuple[Verdict, ...]:
    """Each loss against no matching, on the pairs that all share."""
    return tuple(_verdict(group, loss) for group in groups for loss in group.losses if loss != "none")


def _verdict(group: Group, loss: str) -> Verdict:
    ours, others = group.values[SCOPE][loss], group.values[SCOPE]["none"]
    margins = {metric: margin(metric, ours[metric], others[metric]) for metric in ours if metric in others}
    claimed = [f"grad-cam/agreement/{name}" for name in AGREEMENT] + ["grad-cam/pixel-auc"]
    lost = tuple(metric for metric in claimed if metric in margins and not np.mean(margins[metric]) > 0)
    held = bool(np.mean(margins["accuracy"]) >= -_ACCURACY_ALLOWANCE)
    return Verdict(group.dataset, group.network, group.kind, loss, margins, lost, held)


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
