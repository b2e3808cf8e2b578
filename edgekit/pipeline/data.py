"""Which image serves for what: the golden set is held out, calibration never sees it, training neither."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.config.recipe import Recipe
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.errors import BadInputError
from edgekit.images.imageset import ImageItem, read_imageset, read_unlabelled, select_balanced, split_imageset
from edgekit.images.views import ImageView
from edgekit.interface.card import ModelCard

__all__ = ["BuildData", "DataRequest", "load_data"]


@dataclass(frozen=True)
class DataRequest:
    """Where the images lie and how many are drawn.

    Attributes:
        data: Labelled images.
        calib: Images for calibration, labelled or not; None draws them from the training images.
        golden_samples: Size of the golden set, 0 for all held-out images.
        calibration_images: Size of the calibration set, 0 for all.
        max_corrupt_share: Share of unreadable files that is tolerated.
        seed: Of the draws.
    """

    data: Path
    calib: Path | None
    golden_samples: int
    calibration_images: int
    max_corrupt_share: float
    seed: int

    @classmethod
    def from_recipe(cls, recipe: Recipe, data: Path, calib: Path | None, seed: int) -> DataRequest:
        """What a recipe draws from these folders."""
        return cls(
            data=data,
            calib=calib,
            golden_samples=recipe.golden.samples,
            calibration_images=recipe.calibrate.images,
            max_corrupt_share=recipe.golden.max_corrupt_share,
            seed=seed,
        )


@dataclass(frozen=True)
class BuildData:
    """The images of one build.

    Attributes:
        train: For fine-tuning; None when the data holds held-out images only.
        calibration: For the ranges of INT8.
        golden: Held out.
    """

    train: ImageView | None
    calibration: ImageView
    golden: ImageView


def load_data(request: DataRequest, card: ModelCard, observer: Observer = NULL_OBSERVER) -> BuildData:
    """Read, check and divide the images.

    Raises:
        BadInputError: No usable images, too many unreadable ones, fewer than two classes, or calibration images that
            are also in the golden set.
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
    calibration = _calibration_items(request, split.train, observer)
    if not calibration:
        raise BadInputError(
            "There are no images to calibrate on: the data holds held-out images only.",
            where=str(request.data),
            hint="give a folder of other images with --calib",
        )
    _refuse_leak(golden, calibration)
    return BuildData(
        train=ImageView(split.train) if split.train else None,
        calibration=ImageView(calibration),
        golden=ImageView(golden),
    )


def _calibration_items(request: DataRequest, train: Sequence[ImageItem], observer: Observer) -> tuple[ImageItem, ...]:
    if request.calib is None:
        return tuple(select_balanced(train, request.calibration_images, seed=request.seed))
    found = read_unlabelled(request.calib, max_corrupt_share=request.max_corrupt_share, observer=observer)
    for rejected in found.rejected:
        observer.noted(f"{rejected.name} is left out: {rejected.reason}")
    return tuple(select_balanced(found.items, request.calibration_images, seed=request.seed))


def _refuse_leak(golden: Sequence[ImageItem], calibration: Sequence[ImageItem]) -> None:
    held_out = {item.digest for item in golden}
    leaked = [item.name for item in calibration if item.digest in held_out]
    if leaked:
        raise BadInputError(
            "Calibration images are also in the golden set, which must stay unseen.",
            found=f"{len(leaked)} images, such as " + ", ".join(leaked[:3]),
            hint="give --calib a folder without the held-out images",
        )
