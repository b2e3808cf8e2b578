"""Lifting operations out of tables that adjust the graph: corrections of rounding go along, equal graphs stay so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from explained_graphs import ArrayImages
from precision_budgets import SPEC, chain, smooth_pixels

from edgekit.calibrate.adjusted import apply_adjustments
from edgekit.calibrate.adjustments import Adjustments, ChannelFactors, stored_offsets
from edgekit.calibrate.calibrator import CalibrationContext
from edgekit.calibrate.drift import drift_of
from edgekit.calibrate.formats import Range, number_format
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.input_grid import grid_of
from edgekit.calibrate.minmax import minmax_from_options
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.probe import answers_of, float_answers
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.scale_table import Provenance, ScaleTable, table_from_ranges
from edgekit.calibrate.solution import Solution
from edgekit.interface.preprocess import preprocess
from edgekit.precision.assignment import leaves_nothing, quantised_operations
from edgekit.precision.lifting import lifted_table
from edgekit.precision.ranking import rank_operations

FMT = number_format("x86-u8s8")
LIFTED = ("node_Conv_0", "node_Conv_4")


def images() -> npt.NDArray[np.float32]:
    return preprocess(smooth_pixels(24), SPEC)


@pytest.fixture(scope="module")
def graph() -> ExplainedGraph:
    return parse_graph(chain().SerializeToString(), where="x")


def adjusted_table(graph: ExplainedGraph, **changes: object) -> ScaleTable:
    """Min-max ranges of the adjusted graph, with a grid, channel factors, bias shifts and rounding, all of them."""
    convs = [graph.nodes[index] for index in graph.forward if graph.nodes[index].op_type == "Conv"]
    grid = grid_of(SPEC, FMT)
    assert grid is not None
    factors = np.linspace(0.5, 2.0, 16)
    adjustments = Adjustments(
        input_grid=grid,
        factors=(
            ChannelFactors(convs[1].input[1], 0, tuple(factors)),
            ChannelFactors(convs[1].input[2], 0, tuple(factors)),
            ChannelFactors(convs[2].input[1], 1, tuple(1 / factors)),
        ),
        bias_shifts={conv.input[2]: (0.01,) * graph.constant_shape(conv.input[2])[0] for conv in convs},
        rounding={
            conv.input[1]: stored_offsets(np.ones(graph.constant_shape(conv.input[1]), dtype=np.int8)) for conv in convs
        },
    )
    adjustments = replace(adjustments, **changes)  # type: ignore[arg-type]
    adjusted = apply_adjustments(graph, adjustments)
    options = CalibrateOptions(method="minmax")
    context = CalibrationContext(adjusted, place(adjusted, FMT), FMT, ArrayImages(images()), options)
    ranges = dict(minmax_from_options(options).solve(context).ranges)
    if adjustments.input_grid is not None:
        ranges["image/pixels"] = Range(0.0, 255.0)
    solution = Solution(ranges, adjustments=adjustments)
    return table_from_ranges(
        adjusted, context.placement, FMT, solution, Provenance(graph.digest, "0" * 64, "minmax", {})
    )


def test_corrections_of_what_is_not_rounded_go(graph: ExplainedGraph) -> None:
    table = adjusted_table(graph)
    lifted = lifted_table(graph, table, LIFTED)
    assert lifted is not None
    nodes = {node.name: node for node in graph.nodes}
    gone = {nodes[name].input[1] for name in LIFTED}
    assert set(table.weights) - set(lifted.weights) == gone
    assert set(table.adjustments.rounding) - set(lifted.adjustments.rounding) == gone
    shifts = set(table.adjustments.bias_shifts) - set(lifted.adjustments.bias_shifts)
    assert shifts == {nodes[name].input[2] for name in LIFTED}
    assert lifted.adjustments.factors == table.adjustments.factors
    assert lifted.adjustments.input_grid == table.adjustments.input_grid
    assert lifted.provenance.exclude == LIFTED
    write_qdq(graph, lifted)


def test_everything_but_one_lifted_is_nearly_the_fp32_graph(graph: ExplainedGraph) -> None:
    """Without its shifts and offsets: what is left of the adjustments changes nothing but by float arithmetic."""
    table = adjusted_table(graph)
    adjusted = apply_adjustments(graph, table.adjustments)
    names = {graph.nodes[index].name for index in graph.forward}
    operations = quantised_operations(adjusted, place(adjusted, FMT), names, joins=True)
    others = tuple(item.name for item in operations if item.name != "node_Gemm_12")
    assert not leaves_nothing(operations, others)
    lifted = lifted_table(graph, table, others)
    assert lifted is not None
    assert lifted.adjustments.bias_shifts.keys() == lifted.adjustments.rounding.keys() == set()
    reference = float_answers(graph, images())
    found = answers_of(write_qdq(graph, lifted), images(), reference.classes)
    full = answers_of(write_qdq(graph, table), images(), reference.classes)
    assert drift_of(reference, found).cosine < 1e-5
    assert drift_of(reference, full).cosine > 1e-3


def test_a_table_with_adjustments_is_ranked(graph: ExplainedGraph) -> None:
    table = adjusted_table(graph)
    adjusted = apply_adjustments(graph, table.adjustments)
    names = {graph.nodes[index].name for index in graph.forward}
    operations = quantised_operations(adjusted, place(adjusted, FMT), names, joins=True)
    assert all(item.name in names for item in operations)
    ranking = rank_operations(graph, table, operations, images())
    assert {item.operation for item in ranking} == set(operations)
    assert [item.share for item in ranking] == sorted((item.share for item in ranking), reverse=True)
