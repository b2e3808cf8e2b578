"""What can be said of any clause, also of kinds that come later: its name, its metric's column, its good samples.

Asked by attribute and not by class, so that a new kind of clause appears in every format without a line here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import METRICS
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.clauses import Clause

__all__ = ["clause_column", "clause_identities", "good_samples"]

# What a clause may be about, besides its kind.
_ABOUT = ("metric", "cost", "of")


def clause_identities(clauses: Sequence[Clause]) -> tuple[str, ...]:
    """A name a clause, such as "share/cosine"; of several of a kind, the later ones get a number."""
    seen: dict[str, int] = {}
    names = []
    for clause in clauses:
        about = next((value for key in _ABOUT if isinstance(value := getattr(clause, key, None), str) and value), "")
        name = f"{clause.kind}/{about}" if about else clause.kind
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return tuple(names)


def clause_column(clause: Clause, table: ScoreTable) -> npt.NDArray[np.float64] | None:
    """The values that a clause about a metric looks at, float64 [N]; None where there are none."""
    metric = getattr(clause, "metric", None)
    if not isinstance(metric, str):
        return None
    own = getattr(clause, "view", "teacher-class") == "own-class"
    return (table.own_class_metrics if own else table.metrics).get(metric)


def good_samples(clause: Clause, table: ScoreTable) -> npt.NDArray[np.float64] | None:
    """1 where a sample is good by a clause that counts samples, 0 where not, NaN where it does not count; [N].

    None for clauses that count nothing, such as means.
    """
    if clause.kind == "agreement":
        return table.agrees.astype(np.float64)
    column, threshold = clause_column(clause, table), getattr(clause, "threshold", None)
    if column is None or not isinstance(threshold, float):
        return None
    good = METRICS[str(getattr(clause, "metric"))].reaches(column, threshold)  # noqa: B009 - not of every clause
    return np.where(np.isnan(column), np.nan, good.astype(np.float64))
