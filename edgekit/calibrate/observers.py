"""Streaming observers: one pass over the images for extremes, a second one for histograms over the known range.

Nothing here keeps activations: each batch is reduced and let go, so memory does not grow with the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgekit.calibrate.graph import IMAGE, ExplainedGraph
from edgekit.calibrate.images import CalibrationImages, check_batch
from edgekit.calibrate.runtime import open_session, run_session
from edgekit.calibrate.tensor_stats import Histogram, TensorStats
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError, DefectError
from edgekit.interface.batches import filled

__all__ = ["ActivationStream", "ExtremesObserver", "HistogramObserver", "activation_graph"]

# Activations of one run, all observed tensors together; larger runs are cut into smaller ones.
_RUN_BYTES = 256 * 1024 * 1024
# Values binned at once: the temporaries then stay in the processor's cache, which halves the time.
_CHUNK = 65536


class ExtremesObserver:
    """Smallest and largest value of one tensor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._low, self._high, self._count = math.inf, -math.inf, 0

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Take one batch into account.

        Raises:
            BadInputError: A value is NaN or infinite.
        """
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise BadInputError(
                "An activation is not finite, so no range covers it.",
                where=f"tensor {self.name!r}",
                expected="finite values",
                found=f"values from {low} to {high}",
                hint="check the weights for NaN or overflow and the images' normalisation",
            )
        self._low, self._high = min(self._low, low), max(self._high, high)
        self._count += values.size

    def result(self) -> TensorStats:
        """What was seen."""
        if self._count == 0:
            raise DefectError("A tensor was never observed.", where=self.name)
        return TensorStats(self.name, self._low, self._high, self._count)


class HistogramObserver:
    """Counts of one tensor's values in fixed bins over its known extremes.

    Args:
        stats: The extremes, from the first pass.
        bins: Number of bins.
        centred: The bins span [-amax, amax] instead of [low, high].

    The bin of a value is `floor((value - low) * bins / (high - low))` in float64; the last bin contains its right edge.
    """

    def __init__(self, stats: TensorStats, bins: int, *, centred: bool) -> None:
        self.stats = stats
        limits = stats.extremes
        amax = limits.amax or 1.0
        self._low = -amax if centred else limits.low
        self._high = amax if centred or limits.amax == 0 else limits.high
        self._counts = np.zeros(bins, dtype=np.int64)
        self._zeros = 0

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Take one batch into account.

        Raises:
            BadInputError: The batch holds values that the first pass did not see.
        """
        flat = values.reshape(-1)
        if float(flat.min()) < self.stats.low or float(flat.max()) > self.stats.high:
            raise BadInputError(
                "The calibration images differ between the first and the second pass.",
                where=f"tensor {self.stats.name!r}",
                expected=f"values from {self.stats.low} to {self.stats.high}",
                found=f"values from {flat.min()} to {flat.max()}",
            )
        for start in range(0, flat.size, _CHUNK):
            self._counts += np.bincount(self._bins_of(flat[start : start + _CHUNK]), minlength=len(self._counts))
        zeros = flat.size - int(np.count_nonzero(flat))
        self._counts[self._bins_of(np.zeros(1, dtype=np.float32))[0]] -= zeros
        self._zeros += zeros

    def _bins_of(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        bins = len(self._counts)
        position = (values.astype(np.float64) - self._low) * (bins / (self._high - self._low))
        return np.minimum(position.astype(np.intp), bins - 1)

    def result(self) -> TensorStats:
        """The extremes together with the histogram."""
        seen = self.stats
        histogram = Histogram(self._low, self._high, self._counts.copy(), self._zeros)
        return TensorStats(seen.name, seen.low, seen.high, seen.count, histogram)


def activation_graph(graph: ExplainedGraph, tensors: tuple[str, ...]) -> Any:
    """The part of the forward path that computes `tensors`, with them as its outputs and `image` as its input."""
    needed = sorted(graph.ancestors(tensors))
    nodes = [graph.nodes[index] for index in needed]
    used = {name for node in nodes for name in node.input}
    model = onnx.ModelProto()
    model.ir_version = graph.model.ir_version
    model.opset_import.extend(graph.model.opset_import)
    model.graph.name = "activations"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(item for item in graph.model.graph.initializer if item.name in used)
    model.graph.input.extend(value for value in graph.model.graph.input if value.name == IMAGE)
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors if name != IMAGE
    )
    return model


@dataclass(frozen=True)
class ActivationStream:
    """Runs the FP32 graph over the calibration images and hands out the activations batch by batch.

    Attributes:
        graph: The FP32 graph.
        tensors: The activations wanted.
        images: The calibration images.
        batch_size: Images a run at most; fewer where the activations would take more than 256 MiB.
        observer: Told of the progress.
    """

    graph: ExplainedGraph
    tensors: tuple[str, ...]
    images: CalibrationImages
    batch_size: int
    observer: Observer = NULL_OBSERVER

    def extremes(self) -> Mapping[str, TensorStats]:
        """First pass."""
        observers = {name: ExtremesObserver(name) for name in self.tensors}
        self._feed(observers, "calibrate: extremes")
        return {name: item.result() for name, item in observers.items()}

    def histograms(self, extremes: Mapping[str, TensorStats], bins: int, *, centred: bool) -> Mapping[str, TensorStats]:
        """Second pass."""
        observers = {name: HistogramObserver(extremes[name], bins, centred=centred) for name in self.tensors}
        self._feed(observers, "calibrate: histograms")
        return {name: item.result() for name, item in observers.items()}

    def _feed(self, observers: Mapping[str, ExtremesObserver] | Mapping[str, HistogramObserver], task: str) -> None:
        for activations in self.run(task):
            # Let go one by one: a loop's variable would hold a whole run while the next one is computed.
            for name in tuple(activations):
                observers[name].update(activations.pop(name))

    def run(self, task: str) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """One pass: tensor name to float32 [n, ...] for each batch, which is the caller's to empty.

        Raises:
            BadInputError: No images, images of another size or type, or another number of them than was announced.
            UnavailableError: ONNX Runtime failed.
        """
        wanted = [name for name in self.tensors if name != IMAGE]
        session = open_session(activation_graph(self.graph, self.tensors)) if wanted else None
        total, done = len(self.images.digests), 0
        self.observer.advanced(task, 0, total)
        for batch in self.images.batches(self._images_a_run()):
            check_batch(batch, self.graph.input_shape)
            # In graph order: what is wrong with an image is found in the image, not in what was computed from it.
            yield ({IMAGE: batch} if IMAGE in self.tensors else {}) | self._computed(session, wanted, batch)
            done += len(batch)
            self.observer.advanced(task, done, total)
        if done != total:
            raise BadInputError(
                "The calibration set holds another number of images than it says.",
                expected=f"{total} images",
                found=str(done),
            )

    def _computed(
        self, session: Any, wanted: list[str], batch: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[np.float32]]:
        if session is None:
            return {}
        found = run_session(session, wanted, {IMAGE: filled(batch, self.graph.batch)})
        return {name: values[: len(batch)] for name, values in found.items()}

    def _images_a_run(self) -> int:
        if self.graph.batch is not None:
            return self.graph.batch
        sizes = (self.graph.shapes.get(name, ())[1:] for name in self.tensors)
        an_image = 4 * sum(math.prod(side for side in sides if side is not None) for sides in sizes)
        return max(1, min(self.batch_size, _RUN_BYTES // max(an_image, 1)))
