"""The probe against the Q/DQ graphs that it stands for, on every wiring and in every number format."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from explained_graphs import GRAPHS, random_images

from edgekit.calibrate.formats import NUMBER_FORMATS, SIMULATED_FORMATS, fake_quantise
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.probe import Answers, Probe, answers_of, float_answers
from edgekit.calibrate.qdq import write_qdq
from edgekit.calibrate.stage import QuantisedGraph, quantise_graph

FORMATS = {**NUMBER_FORMATS, **SIMULATED_FORMATS}
IMAGES = random_images(6, seed=3).pixels
CLASSES = np.array([0, 1, 2, 3, 4, 0], dtype=np.int32)


def quantised(name: str, fmt: str) -> tuple[ExplainedGraph, QuantisedGraph]:
    graph = parse_graph(GRAPHS[name]().SerializeToString(), where="test")
    return graph, quantise_graph(graph, random_images(), FORMATS[fmt], CalibrateOptions(method="minmax"))


def plainly_run(model: Any) -> Answers:
    """The graph as it is written, without fusion into integer kernels."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits, *maps = session.run(None, {"image": IMAGES, "class_index": CLASSES})
    return Answers(logits, tuple(maps))


def assert_close(found: Answers, expected: Answers, share: float) -> None:
    for ours, theirs in zip((found.logits, *found.maps), (expected.logits, *expected.maps), strict=True):
        assert np.abs(ours - theirs).max() <= share * max(float(np.abs(theirs).max()), 1e-3)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", GRAPHS)
def test_with_everything_rounded_it_is_the_written_graph(name: str, fmt: str) -> None:
    graph, result = quantised(name, fmt)
    probe = Probe(graph, result.table)
    assert_close(probe.run(IMAGES, CLASSES, probe.setting()), plainly_run(result.model), 1e-4)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", GRAPHS)
def test_with_nothing_rounded_it_is_the_float_graph(name: str, fmt: str) -> None:
    graph, result = quantised(name, fmt)
    probe = Probe(graph, result.table)
    assert_close(probe.run(IMAGES, CLASSES, probe.setting((), ())), plainly_run(graph.model), 1e-5)


def test_another_scale_is_another_table() -> None:
    graph, result = quantised("residual", "trt-s8s8")
    probe, name = Probe(graph, result.table), result.placement.observed[1]
    wide = replace(result.table.activations[name], scale=float(np.float32(result.table.activations[name].scale * 40)))
    same = [other for other, source in result.placement.range_of.items() if source == name]
    table = replace(result.table, activations={**result.table.activations, **dict.fromkeys(same, wide)})
    setting = probe.setting()
    for other in same:
        setting = setting.with_params(other, wide.params)
    found = probe.run(IMAGES, CLASSES, setting)
    assert_close(found, plainly_run(write_qdq(graph, table)), 1e-4)
    assert np.abs(found.logits - probe.run(IMAGES, CLASSES, probe.setting()).logits).max() > 0.01


@pytest.mark.parametrize("fmt", FORMATS)
def test_one_rounded_image_is_an_image_rounded_beforehand(fmt: str) -> None:
    graph, result = quantised("padded-shortcut", fmt)
    probe, entry = Probe(graph, result.table), result.table.activations["image"]
    limits = [
        np.float32(end - entry.zero_point) * np.float32(entry.scale) for end in (FORMATS[fmt].qmin, FORMATS[fmt].qmax)
    ]
    rounded = fake_quantise(np.clip(IMAGES, *limits), entry.params, FORMATS[fmt])
    options = ort.SessionOptions()
    session = ort.InferenceSession(graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits, *maps = session.run(None, {"image": rounded, "class_index": CLASSES})
    assert_close(probe.run(IMAGES, CLASSES, probe.setting(("image",), ())), Answers(logits, tuple(maps)), 1e-4)


def test_weights_and_biases_are_what_is_fed() -> None:
    graph, result = quantised("residual", "x86-u8s8")
    probe = Probe(graph, result.table)
    setting = probe.setting((), ())
    before = probe.run(IMAGES, CLASSES, setting)
    last = result.placement.weights[-1]
    assert last.bias is not None
    moved = probe.run(IMAGES, CLASSES, setting.with_bias(last.bias, setting.biases[last.bias] + 1))
    np.testing.assert_allclose(moved.logits, before.logits + 1, rtol=1e-5)
    silent = probe.run(IMAGES, CLASSES, setting.with_weight(last.weight, np.zeros_like(setting.weights[last.weight])))
    np.testing.assert_allclose(
        silent.logits, np.broadcast_to(setting.biases[last.bias], silent.logits.shape), rtol=1e-6
    )


def test_answers_are_those_of_the_runtime_whatever_the_batch() -> None:
    graph, result = quantised("residual", "x86-u8s8")
    images = random_images(70, seed=5).pixels
    found = answers_of(result.model, images, None)
    assert len(found.logits) == len(found.maps[0]) == 70
    alone = answers_of(result.model, images[64:65], None)
    np.testing.assert_allclose(alone.logits[0], found.logits[64], atol=1e-5)
    assert (float_answers(graph, images).classes == float_answers(graph, images).logits.argmax(1)).all()
