"""Streaming statistics against numpy on everything at once, and that they hold no activations."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from explained_graphs import ArrayImages, random_images, residual

from edgekit.calibrate import observers
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import ExplainedGraph, parse_graph
from edgekit.calibrate.observers import ActivationStream, ExtremesObserver, HistogramObserver, activation_graph
from edgekit.calibrate.placement import place
from edgekit.errors import BadInputError

BINS = 512


@pytest.fixture(scope="module")
def graph() -> ExplainedGraph:
    return parse_graph(residual().SerializeToString(), where="test")


@pytest.fixture(scope="module")
def tensors(graph: ExplainedGraph) -> tuple[str, ...]:
    return place(graph, number_format("x86-u8s8")).observed


def all_at_once(graph: ExplainedGraph, tensors: tuple[str, ...], images: ArrayImages) -> dict[str, npt.NDArray]:
    session = onnxruntime.InferenceSession(activation_graph(graph, tensors).SerializeToString())
    wanted = [name for name in tensors if name != "image"]
    values = dict(zip(wanted, session.run(wanted, {"image": images.pixels}), strict=True))
    return values | {"image": images.pixels}


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_stream_sees_what_numpy_sees(graph: ExplainedGraph, tensors: tuple[str, ...], batch_size: int) -> None:
    images = random_images(11)
    stream = ActivationStream(graph, tensors, images, batch_size)
    extremes = stream.extremes()
    histograms = stream.histograms(extremes, BINS, centred=False)
    for name, values in all_at_once(graph, tensors, images).items():
        stats = histograms[name]
        assert stats.count == values.size
        np.testing.assert_allclose([stats.low, stats.high], [values.min(), values.max()], rtol=1e-5, atol=1e-6)
        assert stats.histogram.zeros == pytest.approx((values == 0).sum(), abs=3)
        assert stats.histogram.total == values.size
        expected, _ = np.histogram(values[values != 0], BINS, range=(stats.histogram.low, stats.histogram.high))
        # Where a value lies within rounding of an edge, kernels of other batch sizes may put it on the other side.
        assert np.abs(stats.histogram.counts - expected).sum() <= 0.01 * values.size
    assert images.passes == 2


def test_counts_are_exact() -> None:
    observer = ExtremesObserver("t")
    values = np.array([-1.0, -0.5, 0.0, 0.0, 0.25, 0.999, 3.0], dtype=np.float32)
    observer.update(values[:3])
    observer.update(values[3:])
    stats = observer.result()
    assert (stats.low, stats.high, stats.count) == (-1.0, 3.0, 7)
    counted = HistogramObserver(stats, 4, centred=False)
    counted.update(values[:4])
    counted.update(values[4:])
    # Bins [-1, 0), [0, 1), [1, 2), [2, 3]; zeros are kept apart.
    histogram = counted.result().histogram
    assert histogram.counts.tolist() == [2, 2, 0, 1]
    assert histogram.zeros == 2
    assert histogram.with_zeros().tolist() == [2, 4, 0, 1]
    centred = HistogramObserver(stats, 4, centred=True)
    centred.update(values)
    assert (centred.result().histogram.low, centred.result().histogram.high) == (-3.0, 3.0)
    assert centred.result().histogram.with_zeros().tolist() == [0, 2, 4, 1]


def test_a_dead_tensor_has_a_histogram() -> None:
    observer = ExtremesObserver("dead")
    observer.update(np.zeros(5, dtype=np.float32))
    counted = HistogramObserver(observer.result(), 8, centred=True)
    counted.update(np.zeros(5, dtype=np.float32))
    histogram = counted.result().histogram
    assert (histogram.zeros, int(histogram.counts.sum()), histogram.total) == (5, 0, 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_its_tensor(bad: float) -> None:
    observer = ExtremesObserver("layer3/conv2")
    with pytest.raises(BadInputError) as raised:
        observer.update(np.array([0.0, bad], dtype=np.float32))
    assert "layer3/conv2" in str(raised.value.where)


def test_other_images_in_the_second_pass_are_noticed(graph: ExplainedGraph) -> None:
    stream = ActivationStream(graph, ("image",), random_images(4), 2)
    extremes = stream.extremes()
    other = ActivationStream(graph, ("image",), ArrayImages(random_images(4).pixels * 2), 2)
    with pytest.raises(BadInputError, match="differ between"):
        other.histograms(extremes, BINS, centred=False)


class WatchedImages:
    """Makes each batch anew and counts how many of them somebody still holds."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.most_alive = 0
        self._made: list[weakref.ref[npt.NDArray[np.float32]]] = []

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(self.count))

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        for start in range(0, self.count, batch_size):
            alive = sum(reference() is not None for reference in self._made)
            self.most_alive = max(self.most_alive, alive)
            # Not from a pool: each is an allocation of its own that a reference can be watched by.
            batch = np.random.default_rng(start).normal(size=(batch_size, 3, 16, 16)).astype(np.float32)
            self._made.append(weakref.ref(batch))
            yield batch
            del batch


def test_no_batch_outlives_the_next(
    graph: ExplainedGraph, tensors: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = WatchedImages(40)
    stream = ActivationStream(graph, tensors, images, 2)
    made: list[weakref.ref[npt.NDArray[np.float32]]] = []
    most_alive = []
    plain = observers.run_session

    def watched(*arguments: Any) -> dict[str, npt.NDArray[np.float32]]:
        most_alive.append(sum(reference() is not None for reference in made))
        results = plain(*arguments)
        made.extend(weakref.ref(values) for values in results.values())
        return results

    monkeypatch.setattr(observers, "run_session", watched)
    stream.histograms(stream.extremes(), BINS, centred=False)
    assert len(made) == 2 * 20 * (len(tensors) - 1)
    # No activation is left when the next run begins, and no batch but the one that is being looked at.
    assert max(most_alive) == 0
    assert images.most_alive <= 1


def test_state_does_not_grow_with_the_images(graph: ExplainedGraph, tensors: tuple[str, ...]) -> None:
    def held(count: int) -> int:
        stream = ActivationStream(graph, tensors, random_images(count), 2)
        stats = stream.histograms(stream.extremes(), BINS, centred=False)
        return sum(item.histogram.counts.nbytes for item in stats.values())

    assert held(2) == held(32) == len(tensors) * BINS * 8


def test_large_activations_are_run_in_smaller_batches(graph: ExplainedGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Recorded(ArrayImages):
        def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
            sizes.append(batch_size)
            return super().batches(batch_size)

    images = Recorded(random_images(4).pixels)
    an_image = 4 * 3 * 16 * 16
    for budget, expected in ((3 * an_image, 3), (an_image // 2, 1), (100 * an_image, 8)):
        monkeypatch.setattr("edgekit.calibrate.observers._RUN_BYTES", budget)
        ActivationStream(graph, ("image",), images, 8).extremes()
        assert sizes.pop() == expected
