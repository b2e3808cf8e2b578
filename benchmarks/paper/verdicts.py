"""All results of a run, and whether what is claimed of matching holds in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paper.collect import AGREEMENT, Group, References, group_of, margin, references_of
from paper.context import Context
from paper.sweeps import Sweep, sweeps_of

__all__ = ["SCOPE", "Results", "Verdict", "collected", "verdicts_of"]

# What the markdown shows and verdicts are about; the JSON has all scopes.
SCOPE = "held-out/common"
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
