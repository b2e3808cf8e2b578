"""Does the exported graph say what torch says? Logits and maps, sample by sample, against float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import BadInputError
from edgekit.export.fake_quantised import frozen_observers
from edgekit.export.parting import Parting
from edgekit.teacher.explain import explain
from edgekit.teacher.methods.protocol import AttributionMethod

__all__ = ["Parity", "Truth", "check_parity", "compare", "holds", "measure_parity", "truth_of"]

_BATCH = 16
# A map that is nearly empty beside the others is compared on the others' scale: dividing rounding noise by
# something close to zero would say nothing about the graph.
_SMALLEST_SCALE = 1e-2


@dataclass(frozen=True)
class Parity:
    """Largest relative errors over all samples: `max|onnx - torch64| / max|torch64|` of each sample.

    Attributes:
        samples: Images compared.
        logits: Of the logits.
        attribution: Of the maps of the torch network's top-1.
        own_class: Of the maps asked for with class_index -1; samples whose two best logits lie closer than the
            logit error are left out, since either class is then right.
        ties: Number of those.
        worst: The sample with the largest of the errors.
    """

    samples: int
    logits: float
    attribution: float
    own_class: float
    ties: int
    worst: int = 0


@dataclass(frozen=True)
class Truth:
    """What the network answers in float64.

    Attributes:
        images: float32 [N, 3, H, W].
        logits: float64 [N, classes].
        attribution: float64 [N, h, w], of the network's own top-1.
    """

    images: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float64]
    attribution: npt.NDArray[np.float64]


def truth_of(model: nn.Module, tap: str, method: AttributionMethod, images: npt.NDArray[np.float32]) -> Truth:
    """Ask the network in float64 and evaluation mode.

    Args:
        model: The network that was exported.
        tap: Its tap.
        method: The attribution method's own definition, not a closed form of it.
        images: float32 [N, 3, H, W], real ones.
    """
    double = copy.deepcopy(model).double().eval()
    answers = []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(images[start : start + _BATCH]).double()
        own = torch.full((len(batch),), -1, dtype=torch.int32)
        with frozen_observers(double):
            answer = explain(double, tap, method, batch, own)
        answers.append((answer.logits.numpy(), answer.attribution.numpy()))
    logits, maps = (np.concatenate(column) for column in zip(*answers, strict=True))
    return Truth(images, logits, maps)


def measure_parity(
    model: nn.Module, tap: str, method: AttributionMethod, onnx_file: Path, images: npt.NDArray[np.float32]
) -> Parity:
    """Compare the ONNX graph on the reference engine with the network in float64; arguments as for `truth_of`."""
    return compare(truth_of(model, tap, method, images), onnx_file)


def compare(truth: Truth, onnx_file: Path, batch: int = 0) -> Parity:
    """Compare the ONNX graph on the reference engine with the truth.

    Args:
        truth: What the network says.
        onnx_file: The exported graph.
        batch: The graph's fixed batch, or 0 where it takes any.
    """
    with REFERENCE.open(onnx_file, EngineOptions()) as runner:
        errors = [
            _batch_errors(truth, runner, range(start, min(start + (batch or _BATCH), len(truth.images))), batch)
            for start in range(0, len(truth.images), batch or _BATCH)
        ]
    difference, scale, margin = (np.concatenate(column) for column in zip(*errors, strict=True))
    scale = np.maximum(scale, _SMALLEST_SCALE * scale.max(axis=0, initial=0.0))
    relative = difference / np.where(scale > 0, scale, 1.0)
    tied = margin <= 2 * difference[:, 0]
    # Not argmax: it passes over a NaN only by luck of the order.
    worst = int(np.argmax(np.nan_to_num(relative, nan=np.inf).max(axis=1)))
    return Parity(
        samples=len(truth.images),
        logits=float(relative[:, 0].max()),
        attribution=float(relative[:, 1].max()),
        own_class=float(relative[~tied, 2].max(initial=0.0)),
        ties=int(tied.sum()),
        worst=worst,
    )


def _batch_errors(truth: Truth, runner: Runner, samples: range, batch: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Absolute differences [n, 3], scales [n, 3] and the margin between the two best logits [n]."""
    chosen = slice(samples.start, samples.stop)
    images, logits, maps = truth.images[chosen], truth.logits[chosen], truth.attribution[chosen]
    top = logits.argmax(axis=1).astype(np.int32)
    asked = _run(runner, images, top, batch)
    free = _run(runner, images, np.full(len(images), -1, dtype=np.int32), batch)

    def largest(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        worst: npt.NDArray[np.float64] = np.abs(array).reshape(len(array), -1).max(axis=1)
        return worst

    difference = np.stack([largest(asked[0] - logits), largest(asked[1] - maps), largest(free[1] - maps)], axis=1)
    scale = np.stack([largest(logits), largest(maps), largest(maps)], axis=1)
    ordered = np.sort(logits, axis=1)
    return difference, scale, ordered[:, -1] - ordered[:, -2]


def _run(
    runner: Runner, images: npt.NDArray[np.float32], asked: npt.NDArray[np.int32], batch: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Logits and maps; a graph of a fixed batch gets the last image again until the batch is full."""
    count = len(images)
    places = np.minimum(np.arange(max(batch, count)), count - 1)
    answer = runner.run(images[places], asked[places])
    return answer.logits[:count], answer.attribution[:count]


def holds(parity: Parity, tolerance: float) -> bool:
    """Whether every error is within `tolerance`."""
    # One by one: the maximum of several numbers can lose a NaN.
    return all(error <= tolerance for error in (parity.logits, parity.attribution, parity.own_class))


def check_parity(parity: Parity, tolerance: float, parting: Callable[[], Parting | None] | None = None) -> None:
    """Raise unless every error is within `tolerance`.

    Args:
        parity: The errors.
        tolerance: The largest that may be.
        parting: Finds the first layer at which graph and network part; asked only where they do.

    Raises:
        BadInputError: The exported graph does not compute what the network computes; names that layer.
    """
    if holds(parity, tolerance):
        return
    first = None if parting is None else parting()
    raise BadInputError(
        "The exported graph does not answer as the network does.",
        expected=f"relative errors of at most {tolerance:g} on {parity.samples} images",
        found=f"logits {parity.logits:.2e}, maps {parity.attribution:.2e}, own-class maps {parity.own_class:.2e}",
        where=None if first is None else str(first),
        hint="the network uses an operation whose export is wrong; please report it with the architecture",
    )
