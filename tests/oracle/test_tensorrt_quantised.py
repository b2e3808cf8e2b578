"""Graphs that our calibration quantised for TensorRT, through builder and runner, against ONNX Runtime.

Over stand-ins, which compute with ONNX Runtime: what agrees here is what goes in and comes out, not TensorRT's numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from explained_graphs import GRAPHS, random_images
from tensorrt_stand_ins import PAIRS, stand_in

from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.stage import quantise_graph
from edgekit.engines.tensorrt.build import build_plan
from edgekit.engines.tensorrt.onnx_outline import read_outline
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.run import open_plan

CASES = [(name, *PAIRS[index % len(PAIRS)]) for index, name in enumerate(GRAPHS)]


@pytest.mark.parametrize(("name", "version", "interface"), CASES)
def test_a_quantised_graph_answers_as_it_does_elsewhere(
    name: str, version: str, interface: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where=name)
    calibration = CalibrateOptions(method="minmax")
    path.write_bytes(serialise(quantise_graph(graph, random_images(), number_format("trt-s8s8"), calibration).model))
    wanted = read_outline(path.read_bytes(), name).quantised_nodes()
    given = np.random.default_rng(3).normal(size=(5, 3, 16, 16)).astype(np.float32)
    asked = np.array([-1, 0, 1, -1, 0], np.int32)
    with stand_in(version, interface, monkeypatch):
        header = build_plan(path, tmp_path / "engine.plan", BuildOptions(batches=(1, 2, 3)))
        with open_plan(tmp_path / "engine.plan") as runner:
            found = runner.run(given, asked)
    # The very session that the stand-in makes: another one rounds some values the other way.
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    logits, maps = session.run(["logits", "attribution"], {"image": given, "class_index": asked})
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.attribution, maps, rtol=1e-5, atol=1e-6)
    assert maps.max() > 0
    layers = header.build["layers"]
    assert wanted
    assert layers["by_precision"]["int8"] >= len(wanted)
    assert layers["unmatched"]["count"] == layers["fell_back"]["count"] == 0
