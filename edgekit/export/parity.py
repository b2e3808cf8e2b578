"""Does the exported graph say what torch says? Logits and maps, sample by sample, against float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from edgekit.attribution.spec import OWN_CLASS
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import BadInputError
from edgekit.export.parting import Parting
from edgekit.export.truth import Truth, truth_of
from edgekit.teacher.explain import Explainer

__all__ = ["TOLERANCE", "Parity", "check_parity", "compare", "holds", "measure_parity"]

TOLERANCE = 1e-4

_BATCH = 16
# A map that is nearly empty beside the others is compared on the others' scale: dividing rounding noise by
# something close to zero would say nothing about the graph.
_SMALLEST_SCALE = 1e-2
# A map whose error is no more than this many times what rounding does to the truth itself is no fault of the graph.
_UNSTEADY = 4.0
# Of so many samples one may be excused like that; more would mean that nobody knows what the maps are.
_SAMPLES_A_KINK = 8


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
        worst: The sample with the largest of the errors.
        kinks: Samples left out of the errors of maps, since the truth's own map jumps as far under rounding
            (`Truth.unsteadiness`).
    """

    samples: int
    logits: float
    attribution: float
    own_class: float
    ties: int
    worst: int = 0
    kinks: int = 0


def measure_parity(
    model: nn.Module, explainer: Explainer, onnx_file: Path, images: npt.NDArray[np.float32], *, classes: int = 1
) -> Parity:
    """Compare the ONNX graph on the reference engine with the network in float64; arguments as for `truth_of`."""
    return compare(truth_of(model, explainer, images, classes=classes), onnx_file)


def compare(truth: Truth, onnx_file: Path, tolerance: float = TOLERANCE) -> Parity:
    """Compare the ONNX graph on the reference engine with the truth.

    Args:
        truth: What the network says.
        onnx_file: The exported graph.
        tolerance: Relative error of a map from which on it is asked whether the truth itself is firm there.
    """
    with REFERENCE.open(onnx_file, EngineOptions()) as runner:
        errors = [
            _batch_errors(truth, runner, slice(start, start + _BATCH)) for start in range(0, len(truth.images), _BATCH)
        ]
    difference, scale = (np.concatenate(column) for column in zip(*errors, strict=True))
    scale = np.maximum(scale, _SMALLEST_SCALE * scale.max(axis=0, initial=0.0))
    relative = difference / np.where(scale > 0, scale, 1.0)
    tied = truth.margin <= 2 * difference[:, 0]
    steady = ~_at_kinks(truth, difference, relative, tied, tolerance)
    views = relative[:, 1:].reshape(len(relative), 2, -1)
    # Not argmax alone: it passes over a NaN only by luck of the order.
    judged = np.where(steady[:, None], relative, 0.0)
    judged[:, 0] = relative[:, 0]
    worst = int(np.argmax(np.nan_to_num(judged, nan=np.inf).max(axis=1)))
    return Parity(
        samples=len(truth.images),
        logits=float(relative[:, 0].max()),
        attribution=float(views[steady, 0].max(initial=0.0)),
        own_class=float(views[~tied & steady, 1].max(initial=0.0)),
        ties=int(tied.sum()),
        worst=worst,
        kinks=int((~steady).sum()),
    )


def _at_kinks(
    truth: Truth,
    difference: npt.NDArray[np.float64],
    relative: npt.NDArray[np.float64],
    tied: npt.NDArray[np.bool_],
    tolerance: float,
) -> npt.NDArray[np.bool_]:
    """Samples whose maps are off by no more than the truth's own map moves under rounding [N]."""
    found = np.zeros(len(relative), dtype=np.bool_)
    count = len(truth.views)
    # A tied sample's own class may be another one; what it asked for is looked at all the same.
    columns = np.where(tied[:, None], np.arange(1, 1 + 2 * count) <= count, True)
    suspects = np.flatnonzero(((relative[:, 1:] > tolerance) & columns).any(axis=1))
    if len(suspects) <= len(relative) // _SAMPLES_A_KINK:
        for sample in suspects:
            allowed = _UNSTEADY * np.tile(truth.unsteadiness(int(sample)), 2)
            off = (relative[sample, 1:] > tolerance) & columns[sample]
            found[sample] = bool((difference[sample, 1:][off] <= allowed[off]).all())
    return found


def _batch_errors(
    truth: Truth, runner: Runner, samples: slice
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Absolute differences and scales [n, 1 + 2 views]: logits, views of the network's classes, of the graph's own."""
    images, chosen = truth.images[samples], truth.chosen[samples]
    views = [view[samples] for view in truth.views]
    asked = runner.run(images, chosen if chosen.shape[1] > 1 else chosen[:, 0])
    free = runner.run(images, np.full(len(images), OWN_CLASS, dtype=np.int32))
    answered = [asked.logits, asked.attribution, *asked.further, free.attribution, *free.further]
    pairs = list(zip(answered, [truth.logits[samples], *views, *views], strict=True))
    difference = np.stack([_largest(found - expected) for found, expected in pairs], axis=1)
    return difference, np.stack([_largest(expected) for _, expected in pairs], axis=1)


def _largest(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    worst: npt.NDArray[np.float64] = np.abs(array).reshape(len(array), -1).max(axis=1)
    return worst


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
