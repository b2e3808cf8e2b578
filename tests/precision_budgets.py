"""Networks with layers that are hard to quantise on purpose, and budgets asked for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from explained_graphs import ArrayImages, GraphBuilder
from onnx import ModelProto

from edgekit.attribution.spec import MapSpec
from edgekit.calibrate.options import CalibrateOptions
from edgekit.core.digests import digest_array
from edgekit.core.progress import NULL_OBSERVER, NullObserver, Observer
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.interface.preprocess import preprocess
from edgekit.policy.clauses import Clause, MeanClause
from edgekit.policy.policy import Policy
from edgekit.precision.options import BudgetOptions
from edgekit.precision.request import BudgetRequest, EngineHere
from edgekit.precision.yardstick import GraphYardstick

__all__ = [
    "CARD",
    "MAPS",
    "SPEC",
    "Listening",
    "PixelImages",
    "chain",
    "hard_activation",
    "hard_weights",
    "kept_by",
    "request",
    "smooth_pixels",
]

SPEC = InputSpec(16, 16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CARD = ModelCard(SPEC, ("a", "b", "c", "d", "e"))
MAPS = MapSpec("grad-cam", "tap", 8, 8)


@dataclass(frozen=True)
class PixelImages:
    """Images to be judged on, from an array."""

    array: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest_array(image) for image in self.array)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{number}.png" for number in range(len(self)))

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        return np.full(len(self), -1, dtype=np.int64)

    def pixels(self, height: int, width: int, observer: Observer = NULL_OBSERVER) -> npt.NDArray[np.uint8]:
        assert (height, width) == self.array.shape[1:3]
        return self.array


@dataclass
class Listening(NullObserver):
    """Counts the candidates that are announced; `limit` is where the program is killed."""

    limit: int = 10**6
    candidates: int = 0

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        if task == "precision: candidates":
            self.candidates += 1
            if self.candidates >= self.limit:
                raise KeyboardInterrupt


def smooth_pixels(count: int, seed: int = 5) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).normal(128, 50, (count, 4, 4, 3))
    return np.clip(coarse, 0, 255).repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)


def chain(
    names: tuple[str, ...] = (), *, dead: int | None = None, bright: int | None = None, seed: int = 3
) -> ModelProto:
    """Five convolutions in a row.

    Args:
        names: Names of the convolutions, where they are to have others.
        dead: Number of a convolution after the first that gets huge weights for an input channel that is always zero.
        bright: Number of a convolution before the last whose channel 0 is large and constant, and read by nobody.
    """
    g = GraphBuilder(seed=seed)
    x, widths = "image", (3, 16, 16, 16, 16, 24)
    weights, biases = [], []
    for number in range(5):
        inputs, outputs = widths[number : number + 2]
        weights.append(g.weight(outputs, inputs, 3, 3))
        biases.append(g.constant(g.rng.normal(0, 0.2, outputs)))
        x = g.relu(g.conv_with(x, weights[-1], biases[-1], stride=2 if number == 0 else 1))
    value = g.initialisers
    if dead is not None:
        value[biases[dead - 1]][0] = -1e3
        value[weights[dead]][:, 0] = 100 * value[weights[dead]][:, 1]
    if bright is not None:
        value[weights[bright]][0] = 0
        value[biases[bright]][0] = 400
        value[weights[bright + 1]][:, 0] = 0
    g.pooled_head(x, 24, 5, 64)
    convolutions = [node for node in g.nodes if node.op_type == "Conv"]
    for node, name in zip(convolutions, names, strict=False):
        node.name = name
    return g.model()


def hard_weights() -> ModelProto:
    """Convolution 2, node_Conv_4, cannot have its weights rounded: a dead channel's are a hundred times the others'."""
    return chain(dead=2)


def hard_activation() -> ModelProto:
    """What node_Conv_2 puts out and node_Conv_4 reads cannot be rounded: a channel that nobody needs is bright."""
    return chain(bright=1)


def kept_by(*clauses: Clause, min_samples: int = 20) -> Policy:
    return Policy("test", 0.95, clauses, min_samples)


def request(folder: Path, model: ModelProto, policy: Policy | None = None, **changes: Any) -> BudgetRequest:
    """A budget without latencies, on 40 images and judged by 60 others."""
    graph = folder / "fp32.onnx"
    graph.write_bytes(model.SerializeToString())
    pixels = smooth_pixels(100)
    wanted = BudgetRequest(
        graph=graph,
        images=ArrayImages(preprocess(pixels[:40], SPEC)),
        yardstick=GraphYardstick(graph, PixelImages(pixels[40:]), CARD, MAPS),
        policy=policy or kept_by(MeanClause("cosine", 0.999)),
        number_format="x86-u8s8",
        calibration=CalibrateOptions(method="minmax"),
        input=SPEC,
        engine=EngineHere("ort-cpu"),
        options=BudgetOptions(latency_runs=0),
    )
    return replace(wanted, **changes)
