"""The scale table of an assignment, out of the table in which nothing is lifted.

One calibration serves all assignments: a tensor's range says what the tensor holds, whoever reads it. Where rounding
stops, corrections of its errors stop too; what merely makes equal graphs (channel factors, the input's grid) stays.
"""

from __future__ import annotations

from dataclasses import replace

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import Adjustments
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import ExplainedGraph
from edgekit.calibrate.placement import Placement, place
from edgekit.calibrate.scale_table import ScaleTable

__all__ = ["lifted_table"]


def lifted_table(graph: ExplainedGraph, table: ScaleTable, exclude: tuple[str, ...]) -> ScaleTable | None:
    """The table with more operations left in float.

    Args:
        graph: The FP32 graph, before adjustment.
        table: Its table.
        exclude: All patterns of names that stay in float, the table's own included.

    Returns:
        The table, or None where the new placement rounds a tensor whose range `table` does not know: then it has to be
        calibrated anew.

    Raises:
        BadInputError: A pattern matches nothing, or nothing is left to quantise.
    """
    fmt = number_format(table.number_format)
    placement = place(apply_adjustments(graph, table.adjustments), fmt, exclude)
    if not _is_covered(placement, table):
        return None
    return replace(
        table,
        provenance=replace(table.provenance, exclude=exclude),
        # By the tensor that decides: what shared its integers with another may now stand alone.
        activations={name: table.activations[placement.range_of[name]] for name in placement.activations},
        weights={use.weight: table.weights[use.weight] for use in placement.weights},
        adjustments=_remaining(table.adjustments, placement),
    )


def _is_covered(placement: Placement, table: ScaleTable) -> bool:
    return set(placement.observed) <= set(table.activations) and all(
        use.weight in table.weights for use in placement.weights
    )


def _remaining(adjustments: Adjustments, placement: Placement) -> Adjustments:
    biases = {use.bias for use in placement.weights}
    weights = {use.weight for use in placement.weights}
    return replace(
        adjustments,
        bias_shifts={name: shift for name, shift in adjustments.bias_shifts.items() if name in biases},
        rounding={name: offsets for name, offsets in adjustments.rounding.items() if name in weights},
    )
