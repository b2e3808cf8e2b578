"""Does the exported graph say what torch says? Logits and maps, sample by sample, against float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import BadInputError
from edgekit.teacher.explain import explain
from edgekit.teacher.methods.protocol import AttributionMethod

__all__ = ["Parity", "check_parity", "measure_parity"]

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
    """

    samples: int
    logits: float
    attribution: float
    own_class: float
    ties: int


def measure_parity(
    model: nn.Module, tap: str, method: AttributionMethod, onnx_file: Path, images: npt.NDArray[np.float32]
) -> Parity:
    """Compare the ONNX graph on the reference engine with the network in float64.

    Args:
        model: The network that was exported.
        tap: Its tap.
        method: The attribution method's own definition, not a closed form of it.
        onnx_file: The exported graph.
        images: float32 [N, 3, H, W], real ones.
    """
    double = copy.deepcopy(model).double()
    with REFERENCE.open(onnx_file, EngineOptions()) as runner:
        errors = [
            _batch_errors(double, tap, method, runner, images[start : start + _BATCH])
            for start in range(0, len(images), _BATCH)
        ]
    difference, scale, margin = (np.concatenate(column) for column in zip(*errors, strict=True))
    scale = np.maximum(scale, _SMALLEST_SCALE * scale.max(axis=0, initial=0.0))
    relative = difference / np.where(scale > 0, scale, 1.0)
    tied = margin <= 2 * difference[:, 0]
    return Parity(
        samples=len(images),
        logits=float(relative[:, 0].max()),
        attribution=float(relative[:, 1].max()),
        own_class=float(relative[~tied, 2].max(initial=0.0)),
        ties=int(tied.sum()),
    )


def _batch_errors(
    double: nn.Module, tap: str, method: AttributionMethod, runner: Runner, images: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], ...]:
    """Absolute differences [n, 3], scales [n, 3] and the margin between the two best logits [n]."""
    own = np.full(len(images), -1, dtype=np.int32)
    truth = explain(double, tap, method, torch.from_numpy(images).double(), torch.from_numpy(own))
    logits, maps = truth.logits.numpy(), truth.attribution.numpy()
    top = logits.argmax(axis=1).astype(np.int32)
    asked = runner.run(images, top)
    free = runner.run(images, own)

    def largest(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        worst: npt.NDArray[np.float64] = np.abs(array).reshape(len(array), -1).max(axis=1)
        return worst

    difference = np.stack(
        [largest(asked.logits - logits), largest(asked.attribution - maps), largest(free.attribution - maps)], axis=1
    )
    scale = np.stack([largest(logits), largest(maps), largest(maps)], axis=1)
    ordered = np.sort(logits, axis=1)
    return difference, scale, ordered[:, -1] - ordered[:, -2]


def check_parity(parity: Parity, tolerance: float) -> None:
    """Raise unless every error is within `tolerance`.

    Raises:
        BadInputError: The exported graph does not compute what the network computes.
    """
    # One by one: the maximum of several numbers can lose a NaN.
    if not all(error <= tolerance for error in (parity.logits, parity.attribution, parity.own_class)):
        raise BadInputError(
            "The exported graph does not answer as the network does.",
            expected=f"relative errors of at most {tolerance:g} on {parity.samples} images",
            found=f"logits {parity.logits:.2e}, maps {parity.attribution:.2e}, own-class maps {parity.own_class:.2e}",
            hint="the network uses an operation whose export is wrong; please report it with the architecture",
        )
