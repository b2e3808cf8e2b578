"""Values and gradients of activations over the calibration images, batch by batch.

A batch takes one forward pass, then one backward pass for every random weighing of the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.gradients.cotangents import sample_cotangents
from edgekit.calibrate.gradients.graph import GradientParts, cotangent_name, gradient_name, gradient_parts
from edgekit.calibrate.graph import CLASS_INDEX, IMAGE, LOGITS, ExplainedGraph
from edgekit.calibrate.images import CalibrationImages, check_batch
from edgekit.calibrate.runtime import open_session, run_session
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError
from edgekit.interface.batches import filled

__all__ = ["GradientStream", "TensorGradient"]

# What one run holds: tensors, gradients, and what the backward pass reads. More at once is no faster: of a ResNet-20,
# 16 images at once take a sixth more time than 8, since memory has to be asked of the system again and again.
_RUN_BYTES = 16 * 1024 * 1024
_TASK = "calibrate: gradients"


@dataclass(frozen=True)
class TensorGradient:
    """One tensor over one batch of n images.

    Attributes:
        values: float32 [n, ...].
        gradient: float32 [projections * n, ...]: the gradient of the weighted outputs, all images of the first
            weighing, then all of the second, and so on. The mean of its square over weighings is, cell by cell, the
            second-order drift that an error of size one would cause.
    """

    values: npt.NDArray[np.float32]
    gradient: npt.NDArray[np.float32]


@dataclass(frozen=True)
class GradientStream:
    """Runs the FP32 graph and its gradient graph over images. Maps are those of the graph's own top-1.

    Attributes:
        graph: The FP32 graph.
        tensors: The activations wanted.
        images: The images.
        batch_size: Images a run at most; fewer where a run would hold more than 16 MiB.
        projections: Random weighings of the outputs an image.
        seed: Of the weighings. Equal seeds, images and batch sizes give equal gradients.
        observer: Told of the progress.
        logits_weight: As in `sample_cotangents`.
        threads: Of the runtime, 0 for its choice.
    """

    graph: ExplainedGraph
    tensors: tuple[str, ...]
    images: CalibrationImages
    batch_size: int
    projections: int = 1
    seed: int = 0
    observer: Observer = NULL_OBSERVER
    logits_weight: float = 1.0
    threads: int = 0

    def run(self) -> Iterator[dict[str, TensorGradient]]:
        """One pass: tensor name to values and gradients for each batch, which is the caller's to empty.

        Raises:
            BadInputError: The graph cannot be differentiated, an answer is not finite, or the images do not fit.
            UnavailableError: ONNX Runtime is missing or failed.
        """
        parts = gradient_parts(self.graph, self.tensors)
        forward = open_session(parts.forward, threads=self.threads)
        backward = open_session(parts.backward, threads=self.threads)
        rng = np.random.default_rng(self.seed)
        total, done = len(self.images.digests), 0
        self.observer.advanced(_TASK, 0, total)
        for batch in self.images.batches(_images_a_run(self.graph, parts, self.batch_size)):
            check_batch(batch, self.graph.input_shape)
            # Nothing but what is yielded may outlive this line: memory that is held while the next batch runs is
            # memory that the runtime has to ask the system for anew.
            yield self._backward(backward, parts, self._forward(forward, parts, batch), len(batch), rng)
            done += len(batch)
            self.observer.advanced(_TASK, done, total)
        if done != total:
            raise BadInputError(
                "The calibration set holds another number of images than it says.",
                expected=f"{total} images",
                found=str(done),
            )

    def _forward(
        self, session: Any, parts: GradientParts, batch: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Inputs and outputs of the forward graph, filled up to the batch that the graph takes."""
        columns = next(value for value in self.graph.model.graph.input if value.name == CLASS_INDEX)
        shape = [int(dim.dim_value) for dim in columns.type.tensor_type.shape.dim][1:]
        own = np.full([len(batch), *shape], OWN_CLASS, dtype=np.int32)
        given = {IMAGE: filled(batch, self.graph.batch), CLASS_INDEX: filled(own, self.graph.batch)}
        read = {value.name for value in parts.forward.graph.input}
        wanted = [value.name for value in parts.forward.graph.output]
        return given | run_session(session, wanted, {name: given[name] for name in given if name in read})

    def _backward(
        self,
        session: Any,
        parts: GradientParts,
        held: dict[str, npt.NDArray[Any]],
        count: int,
        rng: np.random.Generator,
    ) -> dict[str, TensorGradient]:
        outputs = [value.name for value in self.graph.model.graph.output]
        maps = {name: held[name] for name in outputs if name != LOGITS}
        wanted = [gradient_name(name) for name in self.tensors]
        read = [value.name for value in parts.backward.graph.input]
        runs = []
        for _ in range(self.projections):
            drawn = sample_cotangents(held[LOGITS], maps, rng, self.logits_weight)
            feeds = held | {cotangent_name(name): values for name, values in drawn.items()}
            runs.append(run_session(session, wanted, {name: feeds[name] for name in read}))
        found = {}
        for name in self.tensors:
            gradients = [run.pop(gradient_name(name))[:count] for run in runs]
            joined = gradients[0] if len(gradients) == 1 else np.concatenate(gradients)
            found[name] = TensorGradient(held[name][:count], joined)
        return found


def _images_a_run(graph: ExplainedGraph, parts: GradientParts, batch_size: int) -> int:
    if graph.batch is not None:
        return graph.batch
    values = [*parts.forward.graph.output, *parts.backward.graph.output]
    an_image = sum(_bytes_an_image(value) for value in values)
    return max(1, min(batch_size, _RUN_BYTES // max(an_image, 1)))


def _bytes_an_image(value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type
    width = int(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)
    return width * math.prod(int(dim.dim_value) for dim in kind.shape.dim[1:] if dim.HasField("dim_value"))
