"""How much each operation's rounding moves maps and logits: the order in which operations are lifted.

Rounding is measured as `edgekit.blame` measures it, on its bench and by its account of which operations round a
tensor. What is ranked differs. Blame orders tensors, since it tells what moved the maps; an assignment lifts
operations, and all tensors that one rounds count together. Nor does the order need blame's intervals over images: the
search measures what it suggests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.blame.exclusion import nodes_that_round
from edgekit.blame.rounding import RoundingBench, SampleDrift, own_classes
from edgekit.calibrate.drift import Drift, relative_drift
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import place
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

    Rounding is simulated in float by blame's bench; maps are of the FP32 graph's answer. The order is that of means:
    what it is wrong about, the search finds out, at the price of a few more questions.

    Args:
        graph: The FP32 graph, before adjustment.
        table: The table of the full INT8 graph.
        operations: As `quantised_operations` gives them for the adjusted graph.
        images: Prepared, float32 [N, 3, H, W], N at least 1.
        observer: Told of the progress.

    Raises:
        BadInputError: The FP32 graph's answers to the images are not finite.
        IntegrityError: The rounded graph's answers are not.
    """
    bench = RoundingBench(graph, table, images, own_classes(graph, images, 1))
    probed, placement = bench.probe.graph, bench.placement
    rounders = [(unit, frozenset(nodes_that_round(probed, placement, unit))) for unit in bench.units]
    full, unlifted = _means(bench.together()), table.provenance.exclude
    found = []
    for operation in track(operations, "precision: rank operations", observer):
        only = _means(bench.only(*(unit for unit, nodes in rounders if not nodes.isdisjoint(operation.nodes))))
        if any(use.node not in operation.nodes for use in placement.weights):
            lifted = place(probed, bench.probe.fmt, exclude_patterns(unlifted, [operation.name]))
            without = _means(bench.placed(lifted))
        else:
            # No weights are left to quantise: the FP32 graph, adjusted.
            without = _means(bench.adjusted())
        found.append(Ranked(operation, only, without, relative_drift(only, full), relative_drift(without, full)))
    return tuple(sorted(found, key=lambda item: (-item.share, item.operation.nodes)))


def _means(drift: SampleDrift) -> Drift:
    return Drift(**{name: float(values.mean()) for name, values in drift.items()})


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
