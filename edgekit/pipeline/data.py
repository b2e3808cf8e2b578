"""Which image serves for what: the golden set is held out, calibration never sees it, training neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edgekit.calibrate.manifest import (
    CalibrationManifest,
    given_set,
    manifest_of,
    refuse_leak,
)
from edgekit.calibrate.options import CalibrateOptions
from edgekit.config.recipe import Recipe
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError
from edgekit.images.imageset import ImageItem, read_imageset, read_unlabelled, select_balanced, split_imageset
from edgekit.images.views import ImageView
from edgekit.interface.card import InputSpec, ModelCard

__all__ = ["BuildData", "DataRequest", "final_calibration", "load_data"]


@dataclass(frozen=True)
class DataRequest:
    """Where the images lie and how many are drawn.

    Attributes:
        data: Labelled images.
        calib: Images for calibration, labelled or not; None draws them from the training images. A file is a manifest
            of a calibration set that was chosen before.
        golden_samples: Size of the golden set, 0 for all held-out images.
        calibration_images: Size of the calibration set, 0 for all.
        max_corrupt_share: Share of unreadable files that is tolerated.
        seed: Of the draws.
        candidates_an_image: Candidates drawn for each calibration image, where they are to be chosen by their maps once
            there is a graph; 0 where they are not.
        calib_root: Folder with the images of the manifest; None for `data`.
    """

    data: Path
    calib: Path | None
    golden_samples: int
    calibration_images: int
    max_corrupt_share: float
    seed: int
    candidates_an_image: int = 0
    calib_root: Path | None = None

    @classmethod
    def from_recipe(
        cls, recipe: Recipe, data: Path, calib: Path | None, seed: int, *, calib_root: Path | None = None
    ) -> DataRequest:
        """What a recipe draws from these folders."""
        return cls(
            data=data,
            calib=calib,
            golden_samples=recipe.golden.samples,
            calibration_images=recipe.calibrate.images,
            max_corrupt_share=recipe.golden.max_corrupt_share,
            seed=seed,
            candidates_an_image=recipe.calibrate.pool if recipe.calibrate.selection == "diverse" else 0,
            calib_root=calib_root,
        )


@dataclass(frozen=True)
class BuildData:
    """The images of one build.

    Attributes:
        train: For fine-tuning; None when the data holds held-out images only.
        calibration: For the ranges of INT8, drawn balanced; or the set of a manifest.
        golden: Held out.
        candidates: What the calibration images are chosen from once there is a graph to ask; `calibration` is the first
            of them. None where `calibration` is final.
        calibration_set: What was handed over as a set; None where images are drawn.
    """

    train: ImageView | None
    calibration: ImageView
    golden: ImageView
    candidates: ImageView | None = None
    calibration_set: CalibrationManifest | None = None


def load_data(request: DataRequest, card: ModelCard, observer: Observer = NULL_OBSERVER) -> BuildData:
    """Read, check and divide the images.

    Raises:
        BadInputError: No usable images, too many unreadable ones, fewer than two classes, or calibration images that
            are also in the golden set, or not where their set says, or of no set though a folder for one is named.
        IntegrityError: The calibration set is malformed.
    """
    found = read_imageset(request.data, card.classes, max_corrupt_share=request.max_corrupt_share, observer=observer)
    for rejected in found.rejected:
        observer.noted(f"{rejected.name} is left out: {rejected.reason}")
    split = split_imageset(found)
    if split.duplicates:
        observer.noted(f"{split.duplicates} training images are also held-out images and were left out of training")
    # One image counted twice would look like more evidence than there is.
    held_out = tuple({item.digest: item for item in split.held_out}.values())
    if len(held_out) < len(split.held_out):
        observer.noted(f"{len(split.held_out) - len(held_out)} held-out images are copies of others and count once")
    golden = select_balanced(held_out, request.golden_samples, seed=request.seed)
    if not golden:
        raise BadInputError(
            "No image is held out, so nothing could be verified.",
            where=str(request.data),
            hint="put held-out images under val/, or give one folder without splits and edgekit divides it",
        )
    found_set = given_set(request.calib, request.calib_root, request.data, observer)
    if found_set is None:
        calibration, candidates = _drawn(request, split.train, observer)
    else:
        calibration, candidates = found_set[1], ()
    if not calibration:
        raise BadInputError(
            "There are no images to calibrate on: the data holds held-out images only.",
            where=str(request.data),
            hint="give a folder of other images with --calib",
        )
    refuse_leak(
        candidates or calibration,
        [item.digest for item in golden],
        hint="give --calib a folder without the held-out images",
    )
    return BuildData(
        train=ImageView(split.train) if split.train else None,
        calibration=ImageView(calibration),
        golden=ImageView(golden),
        candidates=ImageView(candidates) if candidates else None,
        calibration_set=None if found_set is None else found_set[0],
    )


def final_calibration(
    data: BuildData,
    graph: Path,
    spec: InputSpec,
    options: CalibrateOptions,
    *,
    seed: int,
    observer: Observer = NULL_OBSERVER,
) -> tuple[ImageView, CalibrationManifest]:
    """The images that calibrate, once there is a graph to ask, and what is written down of them.

    Args:
        data: As `load_data` gave it.
        graph: File of the explained FP32 graph.
        spec: How images become its input.
        options: How images are chosen.
        seed: Of the draw, as `DataRequest.seed`.
        observer: Told of the progress.

    Raises:
        EdgekitError: As `select_images`.
    """
    from edgekit.calibrate.selection import select_images

    if data.calibration_set is not None:
        return data.calibration, data.calibration_set
    items = (data.candidates or data.calibration).items
    chosen = select_images(items, graph, spec, options, seed=seed, observer=observer)
    return ImageView([entry.item for entry in chosen]), manifest_of(chosen, options.selection)


_Items: TypeAlias = tuple[ImageItem, ...]


def _drawn(request: DataRequest, train: Sequence[ImageItem], observer: Observer) -> tuple[_Items, _Items]:
    """The calibration images, and the candidates for them where they are chosen later."""
    drawn_from = train if request.calib is None else _unlabelled(request.calib, request.max_corrupt_share, observer)
    count, each = request.calibration_images, request.candidates_an_image
    candidates = select_balanced(drawn_from, count * max(each, 1), seed=request.seed)
    return (candidates[:count] if count else candidates), (candidates if each else ())


def _unlabelled(folder: Path, max_corrupt_share: float, observer: Observer) -> _Items:
    found = read_unlabelled(folder, max_corrupt_share=max_corrupt_share, observer=observer)
    for rejected in found.rejected:
        observer.noted(f"{rejected.name} is left out: {rejected.reason}")
    return found.items
