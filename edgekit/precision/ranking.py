"""How much each operation's rounding moves maps and logits: the order in which operations are lifted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.drift import Drift, drift_of, relative_drift
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import ACTIVATION_OPS, Placement, place
from edgekit.calibrate.probe import Probe, float_answers
from edgekit.calibrate.scale_table import ScaleTable
from edgekit.core.canonical import read_json, write_json
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.errors import EdgekitError
from edgekit.precision.assignment import Operation, exclude_patterns

__all__ = ["Ranked", "rank_operations", "recalled_ranking", "store_ranking"]


@dataclass(frozen=True)
class Ranked:
    """One operation's part in the drift of the full INT8 graph.

    Attributes:
        operation: The operation.
        only: Drift when only what it reads, its weights and what it puts out are rounded.
        without: Drift of the full INT8 graph when this one operation is lifted out of it.
        share: `only` as a share of the full INT8 graph's drift (`relative_drift`); operations are ranked by it.
        remaining: `without` as such a share; 1 where lifting it alone changes nothing.
    """

    operation: Operation
    only: Drift
    without: Drift
    share: float
    remaining: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "name": self.operation.name,
            "kind": self.operation.kind,
            "only": self.only.to_dict(),
            "without": self.without.to_dict(),
            "share": self.share,
            "remaining": self.remaining,
        }


def rank_operations(
    graph: ExplainedGraph,
    table: ScaleTable,
    operations: Sequence[Operation],
    images: npt.NDArray[np.float32],
    observer: Observer = NULL_OBSERVER,
) -> tuple[Ranked, ...]:
    """Rank operations by their drift, the most harmful first; equals keep the graph's order.

    Rounding is simulated in float (`probe`), with the switches of single tensors; maps are of the FP32 graph's answer.

    Args:
        graph: The FP32 graph, before adjustment.
        table: The table of the full INT8 graph.
        operations: As `quantised_operations` gives them for the adjusted graph.
        images: Prepared, float32 [N, 3, H, W].
        observer: Told of the progress.
    """
    reference = float_answers(graph, images)
    classes = reference.classes
    probe = Probe(graph, table)
    placement = place(probe.graph, probe.fmt, table.provenance.exclude)
    parts = _Parts(probe.graph, placement)

    def drift(activations: Collection[str], weights: Collection[str]) -> Drift:
        return drift_of(reference, probe.run(images, classes, probe.setting(activations, weights)))

    full = drift(probe.activations, probe.weights)
    found = []
    for operation in track(operations, "precision: rank operations", observer):
        only = drift(parts.activations(operation), parts.weights(operation))
        exclude = exclude_patterns(table.provenance.exclude, [operation.name])
        if len(operations) > 1 and parts.leaves_weights(operation):
            left = place(probe.graph, probe.fmt, exclude)
            weights = {use.weight for use in left.weights}
            without = drift(set(probe.activations) & set(left.activations), set(probe.weights) & weights)
        else:
            without = drift((), ())
        found.append(Ranked(operation, only, without, relative_drift(only, full), relative_drift(without, full)))
    return tuple(sorted(found, key=lambda item: (-item.share, item.operation.nodes)))


def store_ranking(path: Path, ranking: Sequence[Ranked]) -> None:
    """Keep a ranking for a process that goes on after a kill."""
    write_json(path, [item.to_dict() for item in ranking])


def recalled_ranking(path: Path, operations: Sequence[Operation]) -> tuple[Ranked, ...] | None:
    """What `store_ranking` kept of these operations, or None where there is nothing sound."""
    if not path.is_file():
        return None
    known = {item.name: item for item in operations}
    try:
        found = tuple(
            Ranked(
                known[raw["name"]],
                Drift(**raw["only"]),
                Drift(**raw["without"]),
                float(raw["share"]),
                float(raw["remaining"]),
            )
            for raw in read_json(path)
        )
    except (EdgekitError, KeyError, TypeError, ValueError):
        return None
    return found if len(found) == len(known) == len({item.operation.name for item in found}) else None


class _Parts:
    """Which rounded tensors belong to an operation."""

    def __init__(self, graph: ExplainedGraph, placement: Placement) -> None:
        self._placement = placement
        self._writers = {name: _writer(graph, placement, name) for name in placement.activations}

    def activations(self, operation: Operation) -> set[str]:
        """Activations that it reads and that it puts out, with all that hold the same integers."""
        nodes = set(operation.nodes)
        own = {
            name
            for name, edges in self._placement.dequantised_reads.items()
            if self._writers[name] in nodes or any(edge.node in nodes for edge in edges)
        }
        roots = {self._placement.range_of[name] for name in own}
        return {name for name in self._placement.activations if self._placement.range_of[name] in roots}

    def weights(self, operation: Operation) -> set[str]:
        """Its weights."""
        return {use.weight for use in self._placement.weights if use.node in operation.nodes}

    def leaves_weights(self, operation: Operation) -> bool:
        """Whether other operations with weights remain when it is lifted."""
        return any(use.node not in operation.nodes for use in self._placement.weights)


def _writer(graph: ExplainedGraph, placement: Placement, name: str) -> int | None:
    """The quantised operation whose result a tensor is, behind a folded Relu or Clip or not."""
    index = graph.producer.get(name)
    if index is not None and index not in placement.quantised and graph.nodes[index].op_type in ACTIVATION_OPS:
        index = graph.producer.get(graph.nodes[index].input[0])
    return index if index in placement.quantised else None
