"""Views of an image set: the same files as training pixels, calibration batches, parity images or golden samples.

Every view decodes when asked and keeps nothing, so that the number of images never decides how much memory a stage
needs; only training and the golden set hold their pixels, because they use each of them many times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.images.imageset import ImageItem, load_masks, load_pixels
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess

__all__ = ["ImageView", "PreparedImages", "TrainingPixels"]


class ImageView:
    """An ordered choice of images.

    Args:
        items: The images, checked to be readable.
    """

    def __init__(self, items: Sequence[ImageItem]) -> None:
        self.items = tuple(items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image file."""
        return tuple(item.digest for item in self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """Relative file name of each image."""
        return tuple(item.name for item in self.items)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of each image, int64 [N], -1 where unknown."""
        return np.array([-1 if item.label is None else item.label for item in self.items], dtype=np.int64)

    def pixels(self, height: int, width: int, observer: Observer = NULL_OBSERVER) -> npt.NDArray[np.uint8]:
        """Decoded images, uint8 [N, height, width, 3]."""
        return load_pixels(self.items, height, width, observer)

    def masks(self, height: int, width: int) -> npt.NDArray[np.bool_] | None:
        """Object masks, bool [N, height, width], all False where an image has none; None when no image has one."""
        if all(item.mask is None for item in self.items):
            return None
        return load_masks(self.items, height, width)

    def first(self, count: int) -> ImageView:
        """The first `count` images."""
        return ImageView(self.items[:count])

    def prepared(self, spec: InputSpec) -> PreparedImages:
        """The images as network input."""
        return PreparedImages(self, spec)

    def for_training(self, spec: InputSpec, observer: Observer = NULL_OBSERVER) -> TrainingPixels:
        """The images as training pixels, decoded when first used."""
        return TrainingPixels(self, spec, observer)


class PreparedImages:
    """Images as network input, batch by batch, decoded anew on every pass."""

    def __init__(self, view: ImageView, spec: InputSpec) -> None:
        self._view = view
        self._spec = spec

    def __len__(self) -> int:
        return len(self._view)

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image file."""
        return self._view.digests

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield float32 [n, 3, H, W], n at most `batch_size`, in a fixed order."""
        for start in range(0, len(self._view), batch_size):
            part = ImageView(self._view.items[start : start + batch_size])
            yield preprocess(part.pixels(self._spec.height, self._spec.width), self._spec)


class TrainingPixels:
    """Labelled pixels held in memory for many epochs."""

    def __init__(self, view: ImageView, spec: InputSpec, observer: Observer) -> None:
        self._view = view
        self._spec = spec
        self._observer = observer

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image file."""
        return self._view.digests

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of each image, int64 [N]."""
        return self._view.labels

    @cached_property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """Decoded images, uint8 [N, height, width, 3]."""
        return self._view.pixels(self._spec.height, self._spec.width, self._observer)
