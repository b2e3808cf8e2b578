"""Graphs that take one number of images: engines and calibration feed them whatever number there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported import exported
from hypothesis import given
from hypothesis import strategies as st
from networks import CASES
from onnxruntime_gpu_stand_in import gpu_stand_in
from tensorrt_stand_ins import PAIRS, stand_in

from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.observers import ActivationStream
from edgekit.core.digests import digest_array
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.registry import ENGINES
from edgekit.export.explained import cleaned_onnx
from edgekit.interface.batches import batch_places, filled

CASE, BATCH = CASES["inverted"], 4


@given(count=st.integers(1, 40), batch=st.none() | st.integers(1, 9))
def test_every_image_is_in_exactly_one_run(count: int, batch: int | None) -> None:
    rows = np.arange(count)
    parts = [rows[place] for place in batch_places(count, batch)]
    assert np.array_equal(np.concatenate(parts), rows)
    for part in parts:
        full = filled(part, batch)
        assert len(full) == (batch or count)
        assert np.array_equal(full[: len(part)], part)
        assert set(full[len(part) :]) <= {part[-1]}


def written(batch: int) -> bytes:
    """The case's graph, of a fixed batch or, with 0, of any."""
    graph, _ = cleaned_onnx(replace(exported("inverted", "last")), lambda _model: None, batch=batch)
    return graph.model.SerializeToString()


@pytest.fixture(scope="module")
def graphs() -> dict[int, bytes]:
    return {batch: written(batch) for batch in (0, BATCH)}


ON_GPUS = [(name, "stand-in", "") for name in ("ort-cuda", "ort-tensorrt")]


@pytest.fixture(params=[*((name, "", "") for name in ENGINES), *(("tensorrt", *pair) for pair in PAIRS[3:]), *ON_GPUS])
def runners(
    request: pytest.FixtureRequest, graphs: dict[int, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[int, Runner]]:
    name, version, interface = request.param
    engine = ENGINES.load(name)
    with ExitStack() as stack:
        if version == "stand-in":
            stack.enter_context(gpu_stand_in(monkeypatch))
        elif version:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
            stack.enter_context(stand_in(version, interface, monkeypatch))
        if not engine.availability().available:
            pytest.skip(engine.availability().reason)
        opened = {}
        for batch, content in graphs.items():
            graph, artifact = tmp_path / f"{batch}.onnx", tmp_path / f"{batch}.built"
            graph.write_bytes(content)
            engine.build(graph, artifact)
            opened[batch] = stack.enter_context(engine.open(artifact, EngineOptions()))
        yield opened


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH])
def test_an_engine_of_a_fixed_batch_answers_any_number(runners: dict[int, Runner], count: int) -> None:
    images = CASE.images(count, seed=count).numpy()
    asked = np.arange(count, dtype=np.int32) % 5 - 1
    free, fixed = (runners[batch].run(images, asked) for batch in (0, BATCH))
    assert fixed.logits.shape == (count, 4)
    np.testing.assert_allclose(fixed.logits, free.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fixed.attribution, free.attribution, rtol=1e-4, atol=1e-6)
    assert free.attribution.max() > 0


class _Images:
    def __init__(self, count: int) -> None:
        self._images = CASE.images(count, seed=2).numpy()

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest_array(image) for image in self._images)

    def batches(self, batch_size: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self._images), batch_size):
            yield self._images[start : start + batch_size]


def test_calibration_counts_every_image_once(graphs: dict[int, bytes]) -> None:
    """Images that fill up the last run must not be seen: they would weigh twice in the histogram."""
    found = {}
    for batch, content in graphs.items():
        graph = parse_graph(content, where="test")
        assert graph.batch == (batch or None)
        tensor = graph.nodes[next(index for index in graph.forward if graph.nodes[index].op_type == "Conv")].output[0]
        stream = ActivationStream(graph, (tensor,), _Images(BATCH + 1), batch_size=16)
        extremes = stream.extremes()
        found[batch] = stream.histograms(extremes, 64, centred=False)[tensor]
    free, fixed = found[0], found[BATCH]
    assert (fixed.count, fixed.low, fixed.high) == (free.count, pytest.approx(free.low), pytest.approx(free.high))
    assert fixed.histogram is not None
    assert free.histogram is not None
    assert fixed.histogram.counts.sum() == free.histogram.counts.sum()
