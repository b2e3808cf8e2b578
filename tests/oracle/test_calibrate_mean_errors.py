"""What rounding weights does to mean outputs, against torch's convolutions and products of every image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from attribution_solutions import context_of
from explained_graphs import GRAPHS, random_images

from edgekit.calibrate.attribution.judge import table_of
from edgekit.calibrate.attribution.quick import with_mean_shifts
from edgekit.calibrate.attribution.workbench import Workbench
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import IMAGE, ExplainedGraph
from edgekit.calibrate.observers import activation_graph
from edgekit.calibrate.placement import WeightUse
from edgekit.calibrate.qdq import quantised_weight
from edgekit.calibrate.runtime import open_session, run_session
from edgekit.calibrate.scale_table import ScaleTable

FORMAT = number_format("x86-u8s4")


def values_of(graph: ExplainedGraph, tensor: str, images: np.ndarray) -> np.ndarray:
    if tensor == IMAGE:
        return images
    session = open_session(activation_graph(graph, (tensor,)))
    step = graph.batch or len(images)
    runs = [images[start : start + step] for start in range(0, len(images), step)]
    return np.concatenate([run_session(session, [tensor], {IMAGE: run})[tensor] for run in runs])


def rounded(weight: np.ndarray, table: ScaleTable, name: str) -> np.ndarray:
    entry = table.weights[name]
    shape = [1] * weight.ndim
    shape[entry.axis] = -1
    return quantised_weight(weight, entry, FORMAT) * np.asarray(entry.scales, dtype=np.float32).reshape(shape)


def mean_outputs(graph: ExplainedGraph, use: WeightUse, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of each output channel over images and places, by torch, in float64."""
    x, w = torch.from_numpy(values.astype(np.float64)), torch.from_numpy(weight.astype(np.float64))
    if graph.nodes[use.node].op_type != "Conv":
        matrix = w if use.axis == 1 else w.T
        return (x @ matrix).reshape(-1, matrix.shape[1]).mean(0).numpy()
    pads = graph.attribute(use.node, "pads", [0, 0, 0, 0])
    x = torch.nn.functional.pad(x, (pads[1], pads[3], pads[0], pads[2]))
    made = torch.nn.functional.conv2d(
        x,
        w,
        stride=tuple(graph.attribute(use.node, "strides", [1, 1])),
        dilation=tuple(graph.attribute(use.node, "dilations", [1, 1])),
        groups=graph.attribute(use.node, "group", 1),
    )
    return made.mean((0, 2, 3)).numpy()


@pytest.mark.parametrize("name", sorted(GRAPHS))
def test_shifted_biases_keep_every_mean_output(name: str) -> None:
    images = random_images(12)
    context = context_of(name, images, fmt=FORMAT.name)
    bench = Workbench(context, 12, 12)
    view = bench.view()
    plain = view.weighted()
    solution = with_mean_shifts(bench.context, view, plain)
    graph, table = context.graph, table_of(bench.context, plain)
    seen = 0
    for use in context.placement.weights:
        if use.bias not in solution.adjustments.bias_shifts:
            continue
        values = values_of(graph, use.data, view.training.pixels)
        weight = graph.constant(use.weight)
        exact = mean_outputs(graph, use, weight, values)
        found = mean_outputs(graph, use, rounded(weight, table, use.weight), values)
        shift = np.asarray(solution.adjustments.bias_shifts[use.bias])
        lost = np.abs(found - exact).max()
        assert np.abs(found + shift - exact).max() <= 1e-4 * max(lost, 1e-3), graph.nodes[use.node].name
        seen += lost > 0
    biases = [use.bias for use in context.placement.weights if use.bias is not None]
    assert seen == sum(biases.count(bias) == 1 for bias in biases)
    # All else is what it was.
    assert replace(solution, adjustments=plain.adjustments) == plain


def test_a_bias_that_two_layers_add_is_left_alone() -> None:
    images = random_images(4)
    context = context_of("residual", images, fmt=FORMAT.name)
    first, second, *others = (use for use in context.placement.weights if use.bias is not None)
    tied = (first, replace(second, bias=first.bias), *others)
    bench = Workbench(replace(context, placement=replace(context.placement, weights=tied)), 4, 4)
    view = bench.view()
    shifts = with_mean_shifts(bench.context, view, view.weighted()).adjustments.bias_shifts
    assert first.bias not in shifts
    assert {use.bias for use in others} <= shifts.keys()
