"""From blame to a remedy: which operations must stay in float so that a tensor is not rounded, and what that gains.

A pair stands where an integer operation makes a tensor or reads it, so a tensor is only left alone once those
operations are float, and with them go their weights and what else only they rounded. What is left is measured by
switching those roundings off; the scales of the rest stay as they are, as they do in a new calibration by a method that
looks at one tensor at a time.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.blame.options import METRICS
from edgekit.blame.resampling import Interval, intervals
from edgekit.blame.rounding import RoundingBench, SampleDrift
from edgekit.blame.tensors import Blame
from edgekit.blame.units import Unit
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import ACTIVATION_OPS, Placement, place
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError

__all__ = ["Exclusion", "ExclusionStep", "exclude_until", "exclude_worst", "nodes_that_round"]


@dataclass(frozen=True)
class ExclusionStep:
    """One unit that is left in float.

    Attributes:
        unit: Name of the unit.
        nodes: Names of the operations that had to be excluded for it, beside those of earlier steps.
        floats: Names of further units that are no longer rounded because of it.
        unscaled: Tensors that were not rounded and will be, now that another operation is the last to be computed in
            integers. The table has no scale for them, so `left` does not hold what they will add.
        left: Each of `METRICS` of what is still rounded, against the FP32 graph.
    """

    unit: str
    nodes: tuple[str, ...]
    floats: tuple[str, ...]
    unscaled: tuple[str, ...]
    left: Mapping[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "unit": self.unit,
            "nodes": list(self.nodes),
            "floats": list(self.floats),
            "unscaled": list(self.unscaled),
            "left": {name: interval.to_dict() for name, interval in self.left.items()},
        }


@dataclass(frozen=True)
class Exclusion:
    """A list for `calibrate.exclude`.

    Attributes:
        before: Patterns that the scale table was made with.
        steps: What was excluded, in order.
        skipped: Unit to the reason why it could not be excluded.
        reached: Whether the drift fell to what was asked for; None where no such value was asked for.
    """

    before: tuple[str, ...]
    steps: tuple[ExclusionStep, ...]
    skipped: Mapping[str, str]
    reached: bool | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        """The whole list, as a recipe holds it: each name as a pattern that matches nothing else."""
        added = (glob.escape(node) for step in self.steps for node in step.nodes)
        return tuple(dict.fromkeys((*self.before, *added)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "before": list(self.before),
            "exclude": list(self.patterns),
            "steps": [step.to_dict() for step in self.steps],
            "skipped": dict(self.skipped),
            "reached": self.reached,
        }


def exclude_worst(bench: RoundingBench, blame: Blame, count: int, observer: Observer = NULL_OBSERVER) -> Exclusion:
    """Leave the `count` worst units in float. Those that a worse one takes along count for themselves."""
    excluding = _Excluding(bench)
    for number, item in enumerate(blame.units[:count]):
        observer.advanced("excluding", number, min(count, len(blame.units)))
        excluding.add(item.unit)
    observer.advanced("excluding", min(count, len(blame.units)), min(count, len(blame.units)))
    return excluding.result(None)


def exclude_until(
    bench: RoundingBench, blame: Blame, metric: str, value: float, observer: Observer = NULL_OBSERVER
) -> Exclusion:
    """Leave one unit after the other in float, worst first, until the mean drift of what is left is small enough.

    Args:
        bench: What `blame` was measured on.
        blame: The order.
        metric: One of `METRICS`.
        value: The largest drift that is accepted, at least 0.
        observer: Told of the progress.

    Returns:
        With `reached` False where it stays larger with all that can be excluded excluded.

    Raises:
        BadInputError: There is no such metric, or the value is negative.
    """
    if metric not in METRICS or not value >= 0:
        raise BadInputError(
            "Drift cannot be brought down to that.",
            expected=f"one of {', '.join(METRICS)}, and a value of at least 0",
            found=f"{metric} {value}",
        )
    excluding = _Excluding(bench)
    reached = blame.together[metric].mean <= value
    for number, item in enumerate(blame.units):
        observer.advanced("excluding", number, len(blame.units))
        if reached:
            break
        excluding.add(item.unit)
        reached = excluding.left(blame.together)[metric].mean <= value
    return excluding.result(reached)


def nodes_that_round(graph: ExplainedGraph, placement: Placement, unit: Unit) -> tuple[int, ...]:
    """Indices of the integer operations because of which a unit is rounded, in graph order.

    For a weight, the operations that read it; for an activation, those that read the integers and the one that makes
    them, be it behind a Relu or Clip that is folded into it.
    """
    if unit.kind == "weight":
        return tuple(sorted({use.node for use in placement.weights if use.weight in unit.tensors}))
    found: set[int] = set()
    for name in (tensor for tensor in unit.tensors if tensor in placement.dequantised_reads):
        found.update(edge.node for edge in placement.dequantised_reads[name])
        index = graph.producer.get(name)
        while index is not None and index not in placement.quantised and _is_activation(graph, index):
            index = graph.producer.get(graph.nodes[index].input[0])
        if index is not None:
            found.add(index)
        # Integers that are rounded before an activation instead of behind it are made for what reads them there.
        for edge in placement.dequantised_reads[name]:
            if edge.node not in placement.quantised and _is_activation(graph, edge.node):
                behind = graph.readers.get(graph.nodes[edge.node].output[0], ())
                found.update(item.node for item in behind)
    return tuple(sorted(found & placement.quantised))


def _is_activation(graph: ExplainedGraph, index: int) -> bool:
    return graph.nodes[index].op_type in ACTIVATION_OPS


class _Excluding:
    """A list that grows by one unit at a time."""

    def __init__(self, bench: RoundingBench) -> None:
        self._bench = bench
        self._graph = bench.probe.graph
        self._before = tuple(bench.probe.table.provenance.exclude)
        self._names: list[str] = []
        self._placement = bench.placement
        self._steps: list[ExclusionStep] = []
        self._skipped: dict[str, str] = {}
        named: dict[str, int] = {}
        for node in self._graph.nodes:
            named[node.name] = named.get(node.name, 0) + 1
        self._own_names = {name for name, count in named.items() if name and count == 1}

    def add(self, unit: Unit) -> None:
        """Exclude what has to be for `unit` to stay in float, unless it does already or cannot."""
        if not self._is_rounded(unit, self._placement):
            return
        names = [self._graph.nodes[index].name for index in nodes_that_round(self._graph, self._placement, unit)]
        try:
            placement = self._placed(names)
        except BadInputError:
            self._skipped[unit.name] = "without it nothing would be left to quantise"
            return
        if not set(names) <= self._own_names:
            self._skipped[unit.name] = "an operation that rounds it has no name of its own"
            return
        if self._is_rounded(unit, placement):
            self._skipped[unit.name] = "other operations round it as well"
            return
        names, placement = self._fewest(unit, names, placement)
        floats = [
            other.name
            for other in self._bench.units
            if other is not unit and self._is_rounded(other, self._placement) and not self._is_rounded(other, placement)
        ]
        self._names += names
        self._placement = placement
        known = self._bench.probe.table.activations
        unscaled = tuple(name for name in placement.activations if name not in known)
        left = _intervals(self._bench.placed(placement))
        self._steps.append(ExclusionStep(unit.name, tuple(names), tuple(floats), unscaled, left))

    def left(self, otherwise: Mapping[str, Interval]) -> Mapping[str, Interval]:
        """The drift after the last step, `otherwise` before the first."""
        return self._steps[-1].left if self._steps else otherwise

    def result(self, reached: bool | None) -> Exclusion:
        return Exclusion(self._before, tuple(self._steps), self._skipped, reached)

    def _placed(self, names: Sequence[str]) -> Placement:
        """What is rounded without these operations and those of earlier steps."""
        patterns = (*self._before, *(glob.escape(name) for name in (*self._names, *names)))
        return place(self._graph, self._bench.probe.fmt, patterns)

    def _fewest(self, unit: Unit, names: list[str], placement: Placement) -> tuple[list[str], Placement]:
        """Without the operations whose exclusion the unit does not need."""
        kept = list(names)
        for name in names:
            fewer = [other for other in kept if other != name]
            if not fewer:
                continue
            tried = self._placed(fewer)
            if not self._is_rounded(unit, tried):
                kept, placement = fewer, tried
        return kept, placement

    @staticmethod
    def _is_rounded(unit: Unit, placement: Placement) -> bool:
        if unit.kind == "weight":
            return any(use.weight in unit.tensors for use in placement.weights)
        return not set(unit.tensors).isdisjoint(placement.activations)


def _intervals(drift: SampleDrift) -> dict[str, Interval]:
    return {name: intervals(drift[name][None])[0] for name in METRICS}
