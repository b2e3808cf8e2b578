"""The golden stage: the teacher answers a fixed set of held-out images once, and everybody compares with that.

It depends on the teacher and the images alone, so it is made once for all recipes and targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from edgekit.attribution.spec import OWN_CLASS, MapView
from edgekit.bundle.golden import FurtherMaps, GoldenSet, write_golden
from edgekit.core.canonical import JsonValue
from edgekit.core.digests import digest_array, digest_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.core.stages import Stage, StageRecord, run_stage
from edgekit.errors import BadInputError
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.copies import DistinctImages, distinct_images
from edgekit.teacher.explain import Explainer, map_spec
from edgekit.teacher.explainer import explainer_for
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.options import MapOptions
from edgekit.teacher.random_weights import random_answers

__all__ = ["GoldenImages", "GoldenRequest", "golden", "teacher_answers"]

# 3: copies of an image are left out.
_VERSION = 3
_BATCH = 32


class GoldenImages(Protocol):
    """Held-out images with what is known about them."""

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image file."""

    @property
    def names(self) -> tuple[str, ...]:
        """Relative file name of each image."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of each image, int64 [N]."""

    def pixels(self, height: int, width: int, observer: Observer) -> npt.NDArray[np.uint8]:
        """Decoded images, uint8 [N, height, width, 3]."""

    def masks(self, height: int, width: int) -> npt.NDArray[np.bool_] | None:
        """Object masks, bool [N, height, width], or None when there are none."""


@dataclass(frozen=True)
class GoldenRequest:
    """What the golden set is made from.

    Attributes:
        model: The teacher's file.
        load: How to load it.
        images: Held-out images, never seen in fine-tuning or calibration.
        maps: Which maps an image gets.
    """

    model: Path
    load: LoadOptions
    images: GoldenImages
    maps: MapOptions


def golden(request: GoldenRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> StageRecord:
    """Write the golden set into `destination`.

    Of images that are the same at the network's size the first is kept, since bounds count samples; `observer` is told,
    also where the stage was done before, and so is the record: `copies_left_out` and, in words, `copies`.

    Raises:
        BadInputError: As `load_model`; two images are the same and their labels or masks are not; or the teacher's maps
            are all empty, so there is nothing to preserve.
    """
    loaded = load_model(request.model, request.load)
    masks = request.images.masks(loaded.card.input.height, loaded.card.input.width)
    names = "\n".join(
        f"{name} {label}" for name, label in zip(request.images.names, request.images.labels, strict=True)
    )
    options: dict[str, JsonValue] = {
        "load": request.load.to_dict(),
        "maps": asdict(request.maps),
        "torch": torch.__version__,
    }
    digests = {
        "images": digest_bytes("\n".join(request.images.digests).encode()),
        "names": digest_bytes(names.encode()),
    }
    # Masks are files of their own; only at the size in which they are stored can it be known that none changed.
    if masks is not None:
        digests["masks"] = digest_array(masks)
    stage = Stage("golden", _VERSION, options, {"model": request.model}, digests)

    def body(folder: Path) -> Mapping[str, Any]:
        return _make(request, loaded, masks, folder, observer)

    record = run_stage(stage, destination, body, observer)
    if record.facts["copies_left_out"]:
        observer.noted(f"golden: copies of images are left out, {record.facts['copies']}")
    return record


def _make(
    request: GoldenRequest,
    loaded: LoadedModel,
    masks: npt.NDArray[np.bool_] | None,
    folder: Path,
    observer: Observer,
) -> Mapping[str, Any]:
    spec = loaded.card.input
    pixels = request.images.pixels(spec.height, spec.width, observer)
    if not len(pixels):
        raise BadInputError("The golden set needs at least one image.", hint="give held-out images with --data")
    distinct = distinct_images(request.images.names, pixels, request.images.labels, masks)
    pixels = distinct.pixels
    # A batch of two, since some layers cannot tell a batch of one from none.
    example = torch.from_numpy(preprocess(pixels[[0, min(1, len(pixels) - 1)]], spec))
    explainer = explainer_for(loaded, request.maps, example)
    made = map_spec(explainer, loaded.model, example, request.maps.classes)
    logits, views = teacher_answers(loaded, explainer, made.classes, pixels, observer)
    _check_answers(logits, dict(zip(made.views, views, strict=True)))
    maps, *further = views
    made_set = GoldenSet(
        card=loaded.card,
        map_spec=made,
        pixels=pixels,
        labels=distinct.labels,
        logits=logits,
        maps=maps,
        names=distinct.names,
        masks=distinct.masks,
        teacher=loaded.digest,
        further=tuple(FurtherMaps(view, array) for view, array in zip(made.views[1:], further, strict=True)),
    )
    random, absent = random_answers(loaded, explainer, made_set, observer)
    write_golden(replace(made_set, random=random, random_absent=absent), folder)
    return _facts(request, made_set, distinct, absent)


def _facts(request: GoldenRequest, made: GoldenSet, distinct: DistinctImages, absent: str) -> Mapping[str, Any]:
    labelled = made.labels >= 0
    hits = made.teacher_class == made.labels
    accuracy = float(np.mean(hits[labelled])) if labelled.any() else None
    told = "no labels" if accuracy is None else f"teacher accuracy {accuracy:.1%}"
    left_out = f" ({distinct.left_out} copies left out)" if distinct.left_out else ""
    taps = ", ".join(f"{tap.height}x{tap.width} at {tap.tap}" for tap in made.map_spec.taps)
    return {
        "model": request.model.name,
        "samples": len(made),
        "teacher_accuracy": accuracy,
        "empty_maps": int((made.maps == 0).all(axis=(1, 2)).sum()),
        "copies_left_out": distinct.left_out,
        "copies": distinct.copies,
        "random_weights_absent": absent,
        "tap": made.map_spec.tap,
        "map": [made.map_spec.height, made.map_spec.width],
        "card": made.card.to_dict(),
        "summary": f"{len(made)} samples{left_out}, {told}, maps {taps}",
    }


def _check_answers(logits: npt.NDArray[np.float32], views: Mapping[MapView, npt.NDArray[np.float32]]) -> None:
    for view, maps in views.items():
        if not (np.isfinite(logits).all() and np.isfinite(maps).all()):
            raise BadInputError(
                "The teacher's answers are not finite.",
                where=f"tap {view.name}",
                found="NaN or infinite logits or maps on the held-out images",
                hint="look at the teacher's weights, and at the mean, std and divisor of its card",
            )
        # That no image has a second positive class is no fault.
        if view.column == 0 and (maps == 0).all():
            raise BadInputError(
                "Every map of the teacher is empty: there is no attribution to preserve.",
                where=f"tap {view.name}",
                hint="choose another module with --tap; 'edgekit inspect MODEL' lists candidates",
            )


def teacher_answers(
    loaded: LoadedModel, explainer: Explainer, classes: int, pixels: npt.NDArray[np.uint8], observer: Observer
) -> tuple[npt.NDArray[np.float32], tuple[npt.NDArray[np.float32], ...]]:
    """The network's answers to images, and its maps of those answers.

    Returns:
        Logits float32 [N, answers], and for every view of the explainer's `MapSpec` its maps float32 [N, h, w].
    """
    logits, parts = [], []
    for start in track(range(0, len(pixels), _BATCH), "teacher maps", observer):
        images = torch.from_numpy(preprocess(pixels[start : start + _BATCH], loaded.card.input))
        own = torch.full((len(images), classes), OWN_CLASS, dtype=torch.int32)
        explained = explainer(loaded.model, images, own)
        logits.append(explained.logits.numpy())
        parts.append([maps[:, column].numpy() for maps in explained.maps for column in range(classes)])
    return np.concatenate(logits), tuple(np.concatenate(view) for view in zip(*parts, strict=True))
