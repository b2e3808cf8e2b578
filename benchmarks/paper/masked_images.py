"""What every loader gives: images with the classes that are in them, and masks of the objects of those classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgekit.errors import BadInputError

__all__ = ["Loaded", "Mask", "MaskedImages", "Pair", "chunks", "gathered", "nearest"]

Mask = npt.NDArray[np.bool_]
# Image index and class index.
Pair = tuple[int, int]


@dataclass(frozen=True)
class MaskedImages:
    """Images at a network's input size.

    Attributes:
        classes: Class names.
        names: Of the images, [N].
        pixels: uint8 [N, H, W, 3], RGB.
        positive: bool [N, K], the classes that are in each image.
        splits: "train", "val" or "test" of each image, [N].
        masks: Mask of the objects of a class in an image, bool [H, W], where one is known; never empty.
        ignored: Pixels of an image that belong to nobody and are not scored, bool [H, W]; missing where there are none.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    pixels: npt.NDArray[np.uint8]
    positive: npt.NDArray[np.bool_]
    splits: tuple[str, ...]
    masks: Mapping[Pair, Mask] = field(default_factory=dict)
    ignored: Mapping[int, Mask] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have none or several of the classes."""
        return bool((self.positive.sum(axis=1) != 1).any())

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """int64 [N], the one class of each image; int64 [N, K] of zeros and ones where images have several or none."""
        if self.multi_label:
            return self.positive.astype(np.int64)
        return self.positive.argmax(axis=1).astype(np.int64)

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image's pixels."""
        return tuple(hashlib.sha256(one.tobytes()).hexdigest() for one in self.pixels)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every image with every class of which it has a mask, in order."""
        return tuple(sorted(self.masks))

    def of(self, *splits: str) -> MaskedImages:
        """The images of some splits."""
        return self.chosen([index for index, split in enumerate(self.splits) if split in splits])

    def chosen(self, indices: Sequence[int]) -> MaskedImages:
        """The images at `indices`, in that order."""
        places = {index: place for place, index in enumerate(indices)}
        return replace(
            self,
            names=tuple(self.names[index] for index in indices),
            pixels=self.pixels[list(indices)],
            positive=self.positive[list(indices)],
            splits=tuple(self.splits[index] for index in indices),
            masks={(places[image], kind): mask for (image, kind), mask in self.masks.items() if image in places},
            ignored={places[image]: mask for image, mask in self.ignored.items() if image in places},
        )


@dataclass(frozen=True)
class Loaded:
    """One image, as a loader hands it over."""

    name: str
    pixels: npt.NDArray[np.uint8]
    present: frozenset[int]
    split: str
    masks: Mapping[int, Mask] = field(default_factory=dict)
    ignored: Mask | None = None


def gathered(found: Iterable[Loaded], classes: Sequence[str], where: str) -> MaskedImages:
    """Images one after the other, as one set. An empty mask is no mask.

    Raises:
        BadInputError: There are no images.
    """
    items = tuple(found)
    if not items:
        raise BadInputError("The data set holds no images.", where=where)
    positive = np.zeros((len(items), len(classes)), dtype=np.bool_)
    for index, item in enumerate(items):
        positive[index, sorted(item.present)] = True
    masks = {(index, kind): mask for index, item in enumerate(items) for kind, mask in item.masks.items() if mask.any()}
    ignored = {index: item.ignored for index, item in enumerate(items) if item.ignored is not None}
    return MaskedImages(
        classes=tuple(classes),
        names=tuple(item.name for item in items),
        pixels=np.stack([item.pixels for item in items]),
        positive=positive,
        splits=tuple(item.split for item in items),
        masks=masks,
        ignored={index: mask for index, mask in ignored.items() if mask.any()},
    )


def nearest(values: npt.NDArray[np.generic], height: int, width: int) -> npt.NDArray[np.generic]:
    """Resize [h, w] to [height, width]: each output pixel takes the input pixel under its centre."""
    rows = (np.arange(height) * 2 + 1) * values.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * values.shape[1] // (2 * width)
    return np.ascontiguousarray(values[rows[:, None], columns[None, :]])


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` that cover `count` items."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
