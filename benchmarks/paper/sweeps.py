"""Students with other weights of the matching term than the profile's, where some were made with `--sweep`."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgekit.core.canonical import read_json
from paper.collect import Numbers
from paper.context import Context
from paper.units import Unit
from paper.work import read_unit

__all__ = ["Sweep", "sweeps_of"]

_SHOWN = ("grad-cam/agreement/cosine", "grad-cam/agreement/spearman", "grad-cam/pixel-auc")


@dataclass(frozen=True)
class Sweep:
    """One student at several betas.

    Attributes:
        betas: Increasing; 0 is no matching.
        values: Metric to its value at each beta, over the pairs of val and test that this student and the one without
            matching predict.
    """

    dataset: str
    network: str
    kind: str
    loss: str
    seed: int
    betas: tuple[float, ...]
    values: Numbers


def sweeps_of(context: Context) -> tuple[Sweep, ...]:
    """All sweeps of which results are there under the present settings."""
    found: dict[Unit, set[float]] = {}
    for path in sorted((context.work / "units").glob("student-*-beta*/unit.json")):
        unit = Unit(**read_json(path)["unit"])
        if context.folder(unit) == path.parent and unit.beta is not None:
            found.setdefault(replace(unit, beta=None), set()).add(unit.beta)
    sweeps = [_sweep(context, unit, betas) for unit, betas in sorted(found.items(), key=lambda e: e[0].name)]
    return tuple(sweep for sweep in sweeps if sweep is not None)


def _sweep(context: Context, unit: Unit, betas: set[float]) -> Sweep | None:
    plain = replace(unit, loss="none")
    if not (context.done(unit) and context.done(plain)):
        return None
    units = {0.0: plain, context.settings.beta: unit, **{beta: replace(unit, beta=beta) for beta in betas}}
    values: dict[str, list[float]] = {name: [] for name in ("accuracy", *_SHOWN)}
    for beta in sorted(units):
        found = read_unit(units[beta], context)
        values["accuracy"].append(found.facts["answers"]["held-out"]["accuracy"])
        rows = read_unit(plain, context).columns["predicted"] > 0
        rows &= found.columns["predicted"] > 0
        for name in _SHOWN:
            if name in found.columns:
                values[name].append(float(found.columns[name][rows].mean()))
    kept = {name: numbers for name, numbers in values.items() if numbers}
    return Sweep(unit.dataset, unit.network, unit.kind, unit.loss, unit.seed, tuple(sorted(units)), kept)
