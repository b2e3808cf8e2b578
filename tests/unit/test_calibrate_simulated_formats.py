"""Fewer than eight bits: simulated, said to be so, and never a target's."""

from __future__ import annotations

import numpy as np
import pytest
from explained_graphs import random_images, residual
from onnx import numpy_helper

from edgekit.calibrate.formats import NUMBER_FORMATS, SIMULATED_FORMATS, number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph
from edgekit.targets.loader import resolve_target, target_names


@pytest.mark.parametrize("name", SIMULATED_FORMATS)
def test_a_simulated_format_says_so(name: str) -> None:
    assert SIMULATED_FORMATS[name].simulated
    assert number_format(name) is SIMULATED_FORMATS[name]
    assert not any(fmt.simulated for fmt in NUMBER_FORMATS.values())


def test_no_target_names_one() -> None:
    assert {resolve_target(name).number_format for name in target_names()} <= set(NUMBER_FORMATS)


@pytest.mark.parametrize(
    ("name", "activations", "weights"), [("x86-u6s6", 64, 63), ("x86-u4s4", 16, 15), ("x86-u8s4", 256, 15)]
)
def test_there_are_as_many_levels_as_the_bits_give(name: str, activations: int, weights: int) -> None:
    fmt = SIMULATED_FORMATS[name]
    assert fmt.qmax - fmt.qmin + 1 == activations
    graph = parse_graph(residual().SerializeToString(), where="test")
    model = quantise_graph(graph, random_images(), fmt, CalibrateOptions(method="minmax")).model
    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    integers = [values for key, values in stored.items() if values.dtype == np.int8 and key.endswith("/quantised")]
    assert integers
    assert all(np.abs(values).max() <= weights // 2 for values in integers)
    clips = [node for node in model.graph.node if node.output[0].endswith("/clipped")]
    assert bool(clips) == (activations < 256)
    for node in clips:
        low, high = (float(stored[key]) for key in node.input[1:])
        scale = float(stored[f"{node.input[0]}/scale"])
        assert (high - low) / scale == pytest.approx(activations - 1)
