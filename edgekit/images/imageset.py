"""Image sets: files that were looked at, with labels, masks, splits and content digests."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.errors import BadInputError
from edgekit.images.decode import check_image, decode_image, decode_mask
from edgekit.images.layouts import ListedImage, list_images, list_labelled

__all__ = [
    "HELD_OUT_SHARE",
    "ImageItem",
    "ImageSet",
    "Rejected",
    "SplitImages",
    "load_masks",
    "load_pixels",
    "read_imageset",
    "read_unlabelled",
    "select_balanced",
    "split_imageset",
]

# Share of the images held out where the data names no splits.
HELD_OUT_SHARE = 0.2

_SHOWN = 5
T = TypeVar("T")


@dataclass(frozen=True)
class ImageItem:
    """An image file that was decoded once and found whole.

    Attributes:
        path: Where it lies.
        name: The same, relative to the set's folder, with forward slashes.
        label: Class index, None where it is not known.
        split: "train", "val", "test", or None where nothing was said.
        mask: The file of its object mask, None where there is none.
        digest: SHA-256 of the file.
    """

    path: Path
    name: str
    label: int | None
    split: str | None
    mask: Path | None
    digest: str


@dataclass(frozen=True)
class Rejected:
    """A file that was listed as an image and cannot be used, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """A folder of images as it was found.

    Attributes:
        classes: Names that the labels index; empty for unlabelled images.
        items: Usable images, by name.
        rejected: Unusable files, by name.
    """

    classes: tuple[str, ...]
    items: tuple[ImageItem, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class SplitImages:
    """A set divided in two that share no image.

    Attributes:
        train: For fine-tuning and calibration; may be empty.
        held_out: For verification; may be empty.
        duplicates: Training images left out because the same file is held out.
    """

    train: tuple[ImageItem, ...]
    held_out: tuple[ImageItem, ...]
    duplicates: int


def read_imageset(
    folder: Path, classes: Sequence[str], *, max_corrupt_share: float = 0.01, observer: Observer = NULL_OBSERVER
) -> ImageSet:
    """Read a folder of labelled images and look into every file once.

    Args:
        folder: Class folders, class folders under train/val/test, or a labels.csv; see `images.layouts`.
        classes: The card's class names, in the order of the logits.
        max_corrupt_share: Share of the files that may be unusable; from 0 to under 1. Any value above 0 allows at
            least one file, so that a small set does not stop at its first bad one.
        observer: Told how far it is.

    Raises:
        BadInputError: No images, no labels, unknown classes, too many unusable files, or images of one class only.
    """
    items, rejected = _examined(list_labelled(folder, classes), folder, max_corrupt_share, observer)
    found = sorted({item.label for item in items if item.label is not None})
    if len(found) < 2:
        raise BadInputError(
            "The images are all of one class.",
            where=str(folder),
            expected="images of at least two of " + ", ".join(classes),
            found=", ".join(classes[label] for label in found),
        )
    return ImageSet(tuple(classes), items, rejected)


def read_unlabelled(folder: Path, *, max_corrupt_share: float = 0.01, observer: Observer = NULL_OBSERVER) -> ImageSet:
    """Read a folder of images, flat or nested, whose labels do not matter.

    Raises:
        BadInputError: No images, or too many unusable files.
    """
    items, rejected = _examined(list_images(folder), folder, max_corrupt_share, observer)
    return ImageSet((), items, rejected)


def _examined(
    listed: Sequence[ListedImage], folder: Path, max_corrupt_share: float, observer: Observer
) -> tuple[tuple[ImageItem, ...], tuple[Rejected, ...]]:
    results = _in_parallel(_examine, listed, "checking images", observer)
    items = tuple(result for result in results if isinstance(result, ImageItem))
    rejected = tuple(result for result in results if isinstance(result, Rejected))
    tolerated = max(1, int(max_corrupt_share * len(listed))) if max_corrupt_share > 0 else 0
    if len(rejected) > tolerated or not items:
        named = "; ".join(f"{item.name}: {item.reason}" for item in rejected[:_SHOWN])
        raise BadInputError(
            "Too many image files are unusable.",
            where=str(folder),
            expected=f"at most {tolerated} of {len(listed)}",
            found=f"{len(rejected)}: {named}",
            hint="remove or replace them, or tolerate a larger share in the recipe",
        )
    return items, rejected


def _examine(listed: ListedImage) -> ImageItem | Rejected:
    try:
        data = read_bytes(listed.path)
        check_image(data, listed.mask)
    except BadInputError as cause:
        reason = " ".join(part for part in (cause.message, cause.found) if part)
        return Rejected(listed.name, reason)
    return ImageItem(listed.path, listed.name, listed.label, listed.split, listed.mask, digest_bytes(data))


def _in_parallel(work: Callable[[Any], T], items: Sequence[Any], task: str, observer: Observer) -> list[T]:
    """`work` on every item, in order. Pillow decodes outside the interpreter lock, so threads do run side by side."""
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        # Pillow grumbles about metadata it cannot read, which is no fault of the pixels. Set here and not in the
        # threads: the filters belong to the whole process, and threads would restore each other's.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        return list(track(pool.map(work, items), task, observer, total=len(items)))


def split_imageset(found: ImageSet) -> SplitImages:
    """Divide a set into training and held-out images.

    Where the data names splits, val and test are held out. Where it names none, or only train, an image is held out
    when its digest falls into the first `HELD_OUT_SHARE` of all digests: the same file always lands on the same side,
    whatever stands beside it, and classes divide as chance has it. A training image whose very file is also held out
    is left out.
    """
    if any(item.split not in (None, "train") for item in found.items):
        held_out = tuple(item for item in found.items if item.split in ("val", "test"))
        train = tuple(item for item in found.items if item.split == "train")
    else:
        held_out = tuple(item for item in found.items if _falls_into_held_out(item.digest))
        train = tuple(item for item in found.items if not _falls_into_held_out(item.digest))
    unseen = {item.digest for item in held_out}
    kept = tuple(item for item in train if item.digest not in unseen)
    return SplitImages(kept, held_out, len(train) - len(kept))


def _falls_into_held_out(digest: str) -> bool:
    return int(digest[:8], 16) < HELD_OUT_SHARE * 2**32


def select_balanced(items: Sequence[ImageItem], count: int, seed: int) -> tuple[ImageItem, ...]:
    """Choose `count` images, or all for 0, with the classes taking turns.

    Within a class the order follows from the seed and the files' digests, not from names or from the order of
    `items`; the first `n` of a choice are the choice of `n`.
    """
    queues: dict[int, list[ImageItem]] = {}
    for item in sorted(items, key=lambda item: (_drawn(item, seed), item.name)):
        queues.setdefault(-1 if item.label is None else item.label, []).append(item)
    turns = [(turn, label, item) for label, queue in queues.items() for turn, item in enumerate(queue)]
    turns.sort(key=lambda entry: entry[:2])
    chosen = tuple(item for _, _, item in turns)
    return chosen[:count] if count > 0 else chosen


def _drawn(item: ImageItem, seed: int) -> str:
    return hashlib.sha256(f"{seed} {item.digest}".encode()).hexdigest()


def load_pixels(
    items: Sequence[ImageItem], height: int, width: int, observer: Observer = NULL_OBSERVER
) -> npt.NDArray[np.uint8]:
    """Decode images, uint8 [N, height, width, 3], RGB. Call it on parts of a set to keep memory flat.

    Raises:
        BadInputError: A file is not whole any more.
    """
    pixels = np.empty((len(items), height, width, 3), dtype=np.uint8)

    def decode(index: int) -> None:
        pixels[index] = decode_image(items[index].path, height, width)

    _in_parallel(decode, range(len(items)), "decoding images", observer)
    return pixels


def load_masks(items: Sequence[ImageItem], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Decode object masks, bool [N, height, width], all False for images without one.

    Raises:
        BadInputError: A file is not whole any more.
    """
    masks = np.zeros((len(items), height, width), dtype=np.bool_)
    for index, item in enumerate(items):
        if item.mask is not None:
            masks[index] = decode_mask(item.mask, height, width)
    return masks
