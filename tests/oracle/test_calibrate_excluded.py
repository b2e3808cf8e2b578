"""Operations that are excluded stay in float where it counts: in the engine, and under TensorRT's rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from explained_graphs import GRAPHS, random_images
from precision_budgets import hard_weights

from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.placement import place
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.stage import quantise_graph
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES


def test_the_engine_does_not_round_what_was_left_in_float(tmp_path: Path) -> None:
    """ONNX Runtime would round the weights between two integer kernels, unasked and by one scale for all channels."""
    graph, images = parse_graph(hard_weights().SerializeToString(), where="x"), random_images(32)
    options = CalibrateOptions(method="minmax", exclude=("node_Conv_4",))
    result = quantise_graph(graph, images, number_format("x86-u8s8"), options)
    path = tmp_path / "model.onnx"
    path.write_bytes(serialise(result.model))
    maps = {}
    for name in ("reference", "ort-cpu"):
        with ENGINES.load(name).open(path, EngineOptions(threads=1)) as runner:
            maps[name] = runner.run(images.pixels, np.zeros(32, dtype=np.int32)).attribution
    scale = np.abs(maps["reference"]).max()
    # A step of a fused kernel here and there; rounded weights move maps by some twenty percent.
    assert np.abs(maps["ort-cpu"] - maps["reference"]).max() < 0.05 * scale


@pytest.mark.parametrize("name", GRAPHS)
def test_an_excluded_convolution_reads_what_was_not_rounded(name: str) -> None:
    """TensorRT has no kernel for rounded data and float weights."""
    graph, fmt = parse_graph(GRAPHS[name]().SerializeToString(), where=name), number_format("trt-s8s8")
    uses = place(graph, fmt).weights
    for use in uses if len(uses) > 1 else ():
        left = place(graph, fmt, (graph.nodes[use.node].name,))
        assert use not in left.weights
        readers = {edge.node for edges in left.dequantised_reads.values() for edge in edges}
        assert use.node not in readers
