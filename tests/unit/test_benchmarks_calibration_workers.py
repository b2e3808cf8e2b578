"""Workers of the benchmark of calibrators, as processes, on a graph of a few nodes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration.answers import engine_answers
from calibration.child import Child, NotRunError
from calibration.workers.serving import Images, map_only_nodes
from explained_graphs import gradient_head, random_images, residual

from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import read_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise
from edgekit.calibrate.stage import quantise_graph
from edgekit.interface.card import InputSpec, ModelCard

ROOT = Path(__file__).resolve().parents[2]
WORKERS = ROOT / "benchmarks" / "calibration" / "workers"
COUNT = 5


@pytest.fixture
def request_of(tmp_path):
    """A request for the small graph, with options."""
    graph = tmp_path / "graph.onnx"
    onnx.save(residual(), graph)
    np.save(tmp_path / "images.npy", random_images(8).pixels)

    def made(**options):
        output = tmp_path / "quantised.onnx"
        return {
            "graph": str(graph),
            "images": str(tmp_path / "images.npy"),
            "count": COUNT,
            "output": str(output),
            "options": options,
        }

    return made


def test_images_are_read_slice_by_slice(tmp_path):
    pixels = random_images(7).pixels
    np.save(tmp_path / "images.npy", pixels)
    read = Images(tmp_path / "images.npy", 5)
    for _ in range(2):
        parts = list(read.batches(2))
        assert [len(part) for part in parts] == [2, 2, 1]
        np.testing.assert_array_equal(np.concatenate(parts), pixels[:5])
    assert len(Images(tmp_path / "images.npy", 0)) == 7


@pytest.mark.parametrize("make", [residual, gradient_head])
def test_what_only_the_map_needs_is_what_can_go_without_touching_the_logits(make):
    model = make()
    named = set(map_only_nodes(model.graph.node))
    assert named
    # Removing exactly these leaves a graph that still makes the logits; removing one more does not.
    for node in model.graph.node:
        left = [each for each in model.graph.node if each.name not in named | {node.name}]
        whole = _makes_logits(model, left)
        assert whole == (node.name in named)


def _makes_logits(model, nodes) -> bool:
    known = {item.name for item in [*model.graph.initializer, *model.graph.input]} | {""}
    for node in nodes:
        if set(node.input) <= known:
            known |= set(node.output)
    return "logits" in known


def test_onnxruntime_quantises_for_the_benchmark_and_leaves_the_map_in_float(request_of, tmp_path):
    pytest.importorskip("onnxruntime")
    counts = []
    for in_float in (True, False):
        request = request_of(method="MinMax", map_in_float=in_float)
        with Child(sys.executable, WORKERS / "onnxruntime_static.py", request, tmp_path) as child:
            assert child.told["package"] == "onnxruntime"
            told = child.ask("calibrate")
            again = child.ask("calibrate")
        assert told["seconds"] > 0
        assert again["seconds"] > 0
        assert told["peak_bytes"] >= 0
        quantised = onnx.load(request["output"])
        counts.append(sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node))
        images = random_images(8).pixels[:COUNT]  # others would be clipped, rightly
        reference = engine_answers(Path(request["graph"]), images, None)
        classes = reference.classes.astype(np.int32)
        found = engine_answers(Path(request["output"]), images, classes)
        assert np.abs(found.logits - reference.logits).max() < 0.1 * np.abs(reference.logits).max()
        assert not np.array_equal(found.logits, reference.logits)
        assert found.asked.shape == reference.asked.shape
    assert 0 < counts[0] < counts[1]


def test_our_worker_writes_what_a_user_would_get(request_of, tmp_path):
    card = ModelCard(InputSpec(16, 16), ("a", "b", "c", "d"))
    images = random_images(8)
    told = {"method": "minmax", "number_format": "x86-u8s8", "digests": list(images.digests), "card": card.to_dict()}
    request = request_of(**told)
    with Child(sys.executable, WORKERS / "edgekit_own.py", request, tmp_path, imports=ROOT) as child:
        child.ask("calibrate")
    images.pixels = images.pixels[:COUNT]
    expected = quantise_graph(
        read_graph(Path(request["graph"])),
        images,
        number_format("x86-u8s8"),
        CalibrateOptions(method="minmax", images=0),
        input_spec=card.input,
    )
    assert Path(request["output"]).read_bytes() == serialise(expected.model)


def test_a_tool_that_is_not_there_is_said(request_of, tmp_path):
    child = Child(str(tmp_path / "no-python"), WORKERS / "onnxruntime_static.py", request_of(), tmp_path)
    with pytest.raises(NotRunError, match="no Python of its environment"), child:
        pass


def test_a_tool_that_fails_leaves_its_last_words_without_the_places_of_this_machine(request_of, tmp_path):
    request = {**request_of(method="MinMax", map_in_float=True), "graph": str(tmp_path / "deep" / "nowhere.onnx")}
    with (
        Child(sys.executable, WORKERS / "onnxruntime_static.py", request, tmp_path) as child,
        pytest.raises(NotRunError) as caught,
    ):
        child.ask("calibrate")
    assert "ended with 1" in str(caught.value)
    assert "nowhere.onnx" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_tool_that_hangs_is_ended(request_of, tmp_path):
    script = tmp_path / "hangs.py"
    script.write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(NotRunError, match="killed"), Child(sys.executable, script, request_of(), tmp_path, seconds=0.3):
        pass


def test_tools_see_nothing_of_edgekit(request_of, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    script = tmp_path / "asks.py"
    script.write_text("import json, os\nprint(json.dumps({'path': os.environ.get('PYTHONPATH', '')}))\ninput()\n")
    with Child(sys.executable, script, request_of(), tmp_path) as child:
        assert child.told == {"path": ""}
    assert os.environ["PYTHONPATH"] == str(ROOT)


def test_workers_of_other_tools_import_nothing_of_edgekit():
    for script in WORKERS.glob("*.py"):
        if script.name != "edgekit_own.py":
            lines = script.read_text(encoding="utf-8").splitlines()
            assert not [line for line in lines if line.lstrip().startswith(("import edgekit", "from edgekit"))]
