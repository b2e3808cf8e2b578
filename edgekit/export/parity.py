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

from edgekit.attribution.spec import OWN_CLASS
from edgekit.engines.protocol import EngineOptions, Runner
from edgekit.engines.reference import ENGINE as REFERENCE
from edgekit.errors import BadInputError
from edgekit.export.fake_quantised import frozen_observers
from edgekit.export.parting import Parting
from edgekit.teacher.class_choice import chosen_classes
from edgekit.teacher.explain import Explainer

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
        attribution: Of the maps of the torch network's classes, the worst over all maps of a sample.
        own_class: Of the maps asked for with class_index -1; samples whose best logits lie closer than the logit error
            are left out, since either class is then right.
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
        logits: float64 [N, answers].
        views: Maps of the network's own answers, float64 [N, h, w] each: tap by tap, and class by class within.
        chosen: The classes that they explain, int32 [N, k].
        margin: Smallest change of a logit that would have them explain other classes, float64 [N].
    """

    images: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float64]
    views: tuple[npt.NDArray[np.float64], ...]
    chosen: npt.NDArray[np.int32]
    margin: npt.NDArray[np.float64]


def truth_of(model: nn.Module, explainer: Explainer, images: npt.NDArray[np.float32], *, classes: int = 1) -> Truth:
    """Ask the network in float64 and evaluation mode.

    Args:
        model: The network that was exported.
        explainer: Its maps by the attribution method's own definition, not a closed form of it.
        images: float32 [N, 3, H, W], real ones.
        classes: Maps an image has at each tap.
    """
    double = copy.deepcopy(model).double().eval()
    logits, chosen, views = [], [], []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(images[start : start + _BATCH]).double()
        own = torch.full((len(batch), classes), OWN_CLASS, dtype=torch.int32)
        with frozen_observers(double):
            answer = explainer(double, batch, own)
        logits.append(answer.logits.numpy())
        chosen.append(chosen_classes(answer.logits, own, only_positive=explainer.only_positive).numpy())
        views.append([maps[:, column].numpy() for maps in answer.maps for column in range(classes)])
    every = np.concatenate(logits)
    return Truth(
        images=images,
        logits=every,
        views=tuple(np.concatenate(view) for view in zip(*views, strict=True)),
        chosen=np.concatenate(chosen),
        margin=_margin(every, classes, explainer.only_positive),
    )


def _margin(logits: npt.NDArray[np.float64], classes: int, only_positive: bool) -> npt.NDArray[np.float64]:
    """See `Truth.margin`."""
    ordered = np.sort(logits, axis=1)[:, ::-1]
    gaps = ordered[:, :classes] - ordered[:, 1 : classes + 1] if classes < logits.shape[1] else -np.diff(ordered)
    if only_positive:
        gaps = np.concatenate([gaps, np.abs(ordered[:, :classes])], axis=1)
    smallest: npt.NDArray[np.float64] = gaps.min(axis=1)
    return smallest


def measure_parity(
    model: nn.Module, explainer: Explainer, onnx_file: Path, images: npt.NDArray[np.float32], *, classes: int = 1
) -> Parity:
    """Compare the ONNX graph on the reference engine with the network in float64; arguments as for `truth_of`."""
    return compare(truth_of(model, explainer, images, classes=classes), onnx_file)


def compare(truth: Truth, onnx_file: Path, batch: int = 0) -> Parity:
    """Compare the ONNX graph on the reference engine with the truth.

    Args:
        truth: What the network says.
        onnx_file: The exported graph.
        batch: The graph's fixed batch, or 0 where it takes any.
    """
    step = batch or _BATCH
    with REFERENCE.open(onnx_file, EngineOptions()) as runner:
        errors = [
            _batch_errors(truth, runner, slice(start, min(start + step, len(truth.images))), batch)
            for start in range(0, len(truth.images), step)
        ]
    difference, scale = (np.concatenate(column) for column in zip(*errors, strict=True))
    scale = np.maximum(scale, _SMALLEST_SCALE * scale.max(axis=0, initial=0.0))
    relative = difference / np.where(scale > 0, scale, 1.0)
    tied = truth.margin <= 2 * difference[:, 0]
    views = relative[:, 1:].reshape(len(relative), 2, -1)
    # Not argmax alone: it passes over a NaN only by luck of the order.
    worst = int(np.argmax(np.nan_to_num(relative, nan=np.inf).max(axis=1)))
    return Parity(
        samples=len(truth.images),
        logits=float(relative[:, 0].max()),
        attribution=float(views[:, 0].max()),
        own_class=float(views[~tied, 1].max(initial=0.0)),
        ties=int(tied.sum()),
        worst=worst,
    )


def _batch_errors(
    truth: Truth, runner: Runner, samples: slice, batch: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Absolute differences and scales [n, 1 + 2 views]: logits, views of the network's classes, of the graph's own."""
    images, chosen = truth.images[samples], truth.chosen[samples]
    views = [view[samples] for view in truth.views]
    asked = _run(runner, images, chosen if chosen.shape[1] > 1 else chosen[:, 0], batch)
    free = _run(runner, images, np.full(len(images), OWN_CLASS, dtype=np.int32), batch)
    pairs = list(zip([*asked, *free[1:]], [truth.logits[samples], *views, *views], strict=True))
    difference = np.stack([_largest(found - expected) for found, expected in pairs], axis=1)
    return difference, np.stack([_largest(expected) for _, expected in pairs], axis=1)


def _largest(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    worst: npt.NDArray[np.float64] = np.abs(array).reshape(len(array), -1).max(axis=1)
    return worst


def _run(
    runner: Runner, images: npt.NDArray[np.float32], asked: npt.NDArray[np.int32], batch: int
) -> list[npt.NDArray[np.float32]]:
    """Logits and every view; a graph of a fixed batch gets the last image again until the batch is full."""
    count = len(images)
    places = np.minimum(np.arange(max(batch, count)), count - 1)
    answer = runner.run(images[places], asked[places])
    return [array[:count] for array in (answer.logits, answer.attribution, *answer.further)]


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
