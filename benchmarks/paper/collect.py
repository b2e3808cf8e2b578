"""From units' results to numbers by seed: which pairs count, and means over them.

"common" pairs are those that all compared networks predict: the teacher and the students of all losses, of one data
set, network, kind and seed. "all" pairs are all. Each over the test split and over val and test together, on neither
of which anything was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.metrics.agreement import METRICS
from paper.context import Context
from paper.floors import FLOORS
from paper.units import SEEDS, Unit, int8_of, teacher_of
from paper.work import Found, read_unit

__all__ = [
    "AGREEMENT",
    "LOWER_IS_BETTER",
    "SCOPES",
    "Group",
    "Numbers",
    "References",
    "group_of",
    "margin",
    "references_of",
]

SCOPES = ("held-out/common", "held-out/all", "test/common", "test/all")
AGREEMENT = tuple(METRICS)
LOWER_IS_BETTER = frozenset({name for name, metric in METRICS.items() if metric.better == "lower"} | {"deletion"})

# Metric to its value for each seed.
Numbers = Mapping[str, list[float]]
_Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Students of one data set, network and kind.

    Attributes:
        seeds: Those of which every loss is there.
        losses: Compared losses.
        values: Scope to loss to numbers.
        pairs: Scope to the number of pairs of each seed.
    """

    dataset: str
    network: str
    kind: str
    seeds: tuple[int, ...]
    losses: tuple[str, ...]
    values: Mapping[str, Mapping[str, Numbers]]
    pairs: Mapping[str, list[int]]


@dataclass(frozen=True)
class References:
    """What students are read against: scope to name to numbers.

    Names are "teacher", the floors, and "int8" (the engine without training) where there is one.
    """

    dataset: str
    network: str
    seeds: tuple[int, ...]
    values: Mapping[str, Mapping[str, Numbers]]


def group_of(context: Context, key: tuple[str, str, str], losses: Sequence[str]) -> Group | None:
    """The numbers of students, or None where no seed is complete.

    Args:
        context: The run.
        key: Data set, network, kind.
        losses: What is compared.
    """
    dataset, network, kind = key
    units = {seed: {loss: Unit("student", dataset, network, seed, kind, loss) for loss in losses} for seed in SEEDS}
    seeds = tuple(seed for seed, each in units.items() if all(context.done(unit) for unit in each.values()))
    if not seeds:
        return None
    values: dict[str, dict[str, dict[str, list[float]]]] = {scope: {loss: {} for loss in losses} for scope in SCOPES}
    pairs: dict[str, list[int]] = {scope: [] for scope in SCOPES}
    for seed in seeds:
        found = {loss: read_unit(unit, context) for loss, unit in units[seed].items()}
        teacher = read_unit(teacher_of(units[seed][losses[0]]), context)
        for scope, rows in _scopes(context, teacher_of(units[seed][losses[0]]), [teacher, *found.values()]).items():
            pairs[scope].append(int(rows.sum()))
            for loss, one in found.items():
                _gather(values[scope][loss], _numbers(one, rows, scope))
    return Group(dataset, network, kind, seeds, tuple(losses), values, pairs)


def references_of(context: Context, dataset: str, network: str) -> References | None:
    """Teachers and floors; "common" pairs are those that the teacher and its retrained like predict."""
    floors = [Unit("floors", dataset, network, seed) for seed in SEEDS]
    done = [unit for unit in floors if context.done(unit)]
    if not done:
        return None
    values: dict[str, dict[str, dict[str, list[float]]]] = {scope: {} for scope in SCOPES}
    for unit in done:
        teacher, floor = read_unit(teacher_of(unit), context), read_unit(unit, context)
        retrained = Found({}, {"predicted": floor.columns["retrained/predicted"]})
        for scope, rows in _scopes(context, teacher_of(unit), [teacher, retrained]).items():
            _gather(values[scope].setdefault("teacher", {}), _numbers(teacher, rows, scope))
            for name in FLOORS:
                prefix = f"{name}/"
                columns = {k.removeprefix(prefix): v for k, v in floor.columns.items() if k.startswith(prefix)}
                _gather(values[scope].setdefault(name, {}), _numbers(Found({}, columns), rows, scope))
            if context.done(int8_of(unit)):
                int8 = read_unit(int8_of(unit), context)
                _gather(values[scope].setdefault("int8", {}), _numbers(int8, rows, scope))
    return References(dataset, network, tuple(unit.seed for unit in done), values)


def _scopes(context: Context, teacher: Unit, compared: Sequence[Found]) -> dict[str, _Rows]:
    of_test = context.setting(teacher).asked.of_test
    everything = np.ones(len(of_test), dtype=np.bool_)
    common = np.all([found.columns["predicted"] > 0 for found in compared], axis=0)
    return {
        f"{split}/{which}": rows & predicted
        for split, rows in (("held-out", everything), ("test", of_test))
        for which, predicted in (("common", common), ("all", everything))
    }


def _numbers(found: Found, rows: _Rows, scope: str) -> dict[str, float]:
    """Means over rows, and the answers of the scope's images."""
    numbers = dict(found.facts.get("answers", {}).get(scope.split("/", maxsplit=1)[0], {}))
    for name, column in found.columns.items():
        kept = column[rows]
        kept = kept[~np.isnan(kept)]
        numbers[name] = float(kept.mean()) if len(kept) else float("nan")
    return numbers


def _gather(into: dict[str, list[float]], numbers: Mapping[str, float]) -> None:
    for name, value in numbers.items():
        into.setdefault(name, []).append(value)


def margin(metric: str, ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """By how much ours is better, seed by seed; below 0 where it is worse."""
    sign = -1.0 if metric.rsplit("/", 1)[-1] in LOWER_IS_BETTER else 1.0
    return [sign * (one - other) for one, other in zip(ours, others, strict=True)]
