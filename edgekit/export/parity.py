"""Does the exported graph say what torch says? Logits and maps, sample by sample, against float64."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.attribution.spec import OWN_CLASS
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import BadInputError
from edgekit.teacher.class_choice import chosen_classes
from edgekit.teacher.explain import Explainer

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
        attribution: Of the maps of the torch network's classes, the worst over all maps of a sample.
        own_class: Of the maps asked for with class_index -1; samples whose best logits lie closer than the logit error
            are left out, since either class is then right.
        ties: Number of those.
    """

    samples: int
    logits: float
    attribution: float
    own_class: float
    ties: int


def measure_parity(
    model: nn.Module, explainer: Explainer, onnx_file: Path, images: npt.NDArray[np.float32], *, classes: int = 1
) -> Parity:
    """Compare the ONNX graph on the reference engine with the network in float64.

    Args:
        model: The network that was exported.
        explainer: Its maps by the attribution method's own definition, not a closed form of it.
        onnx_file: The exported graph.
        images: float32 [N, 3, H, W], real ones.
        classes: Maps an image has at each tap.
    """
    double = copy.deepcopy(model).double()
    with REFERENCE.open(onnx_file, EngineOptions()) as runner:
        errors = [
            _batch_errors(double, explainer, runner, images[start : start + _BATCH], classes)
            for start in range(0, len(images), _BATCH)
        ]
    difference, scale, margin = (np.concatenate(column) for column in zip(*errors, strict=True))
    scale = np.maximum(scale, _SMALLEST_SCALE * scale.max(axis=0, initial=0.0))
    relative = difference / np.where(scale > 0, scale, 1.0)
    tied = margin <= 2 * difference[:, 0]
    views = relative[:, 1:].reshape(len(images), 2, -1)
    return Parity(
        samples=len(images),
        logits=float(relative[:, 0].max()),
        attribution=float(views[:, 0].max()),
        own_class=float(views[~tied, 1].max(initial=0.0)),
        ties=int(tied.sum()),
    )


def _batch_errors(
    double: nn.Module, explainer: Explainer, runner: Runner, images: npt.NDArray[np.float32], classes: int
) -> tuple[npt.NDArray[np.float64], ...]:
    """Absolute differences and scales [n, 1 + 2 views], and how far the explained classes are from being others [n].

    The columns: logits, every view of the torch network's classes, every view of the graph's own.
    """
    own = np.full((len(images), classes), OWN_CLASS, dtype=np.int32)
    truth = explainer(double, torch.from_numpy(images).double(), torch.from_numpy(own))
    logits = truth.logits.numpy()
    views = [maps[:, column].numpy() for maps in truth.maps for column in range(classes)]
    chosen = chosen_classes(truth.logits, torch.from_numpy(own), only_positive=explainer.only_positive).numpy()
    asked = runner.run(images, chosen if classes > 1 else chosen[:, 0])
    free = runner.run(images, own[:, 0])
    answered = [asked.logits, asked.attribution, *asked.further, free.attribution, *free.further]
    pairs = list(zip(answered, [logits, *views, *views], strict=True))
    difference = np.stack([_largest(found - expected) for found, expected in pairs], axis=1)
    scale = np.stack([_largest(expected) for _, expected in pairs], axis=1)
    return difference, scale, _margin(logits, classes, explainer.only_positive)


def _largest(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    worst: npt.NDArray[np.float64] = np.abs(array).reshape(len(array), -1).max(axis=1)
    return worst


def _margin(logits: npt.NDArray[np.float64], classes: int, only_positive: bool) -> npt.NDArray[np.float64]:
    """Smallest change of a logit that would explain another class [N]."""
    ordered = np.sort(logits, axis=1)[:, ::-1]
    gaps = ordered[:, :classes] - ordered[:, 1 : classes + 1] if classes < logits.shape[1] else -np.diff(ordered)
    if only_positive:
        gaps = np.concatenate([gaps, np.abs(ordered[:, :classes])], axis=1)
    smallest: npt.NDArray[np.float64] = gaps.min(axis=1)
    return smallest


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
