"""Which calibration images a method learns from and which judge what it learnt, and holding both in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.images import CalibrationImages, check_batch
from edgekit.errors import BadInputError

__all__ = ["HeldImages", "ImageSplit", "KeptImages", "split_images"]

# With fewer, halves would be too few to learn from and too few to judge by: all of them do both.
_FEWEST_APART = 16
# Rows and columns cut off a frame of one pixel; in the middle the image as it is.
_JITTER = ((1, 1), (1, 2), (2, 1), (1, 0), (0, 1))


@dataclass(frozen=True)
class ImageSplit:
    """Positions among the calibration images, ascending.

    Attributes:
        training: Those that may be learnt from.
        judging: Those that judge.
        apart: No image is in both.
    """

    training: tuple[int, ...]
    judging: tuple[int, ...]
    apart: bool


@dataclass(frozen=True)
class HeldImages:
    """A few images in memory: `CalibrationImages` that cost no decoding.

    Attributes:
        pixels: float32 [N, 3, H, W].
        digests: Of each image.
    """

    pixels: npt.NDArray[np.float32]
    digests: tuple[str, ...]

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        """As `CalibrationImages.batches`."""
        for start in range(0, len(self.pixels), batch_size):
            yield self.pixels[start : start + batch_size]

    def jittered(self, most: int = 320) -> HeldImages:
        """The same images, and each moved by one pixel to either side, up and down; the border is repeated.

        How rounding errors add up on one image is chance. The same scene on another raster is another draw, so what is
        left of a difference between two solutions over five draws is more likely theirs.

        Args:
            most: Of many images, fewer draws: no more than this in all, but every image once.
        """
        height, width = self.pixels.shape[2:]
        draws = _JITTER[: max(1, most // max(len(self.pixels), 1))]
        framed = np.pad(self.pixels, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        moved = [framed[:, :, top : top + height, left : left + width] for top, left in draws]
        return HeldImages(np.concatenate(moved), self.digests * len(draws))


class KeptImages:
    """Calibration images as they are, some of which are kept while they stream by, so that no second pass is needed.

    Args:
        images: All images.
        positions: Those to keep. Memory grows with their number.
        shape: Channels, height and width of the graph's input.
    """

    def __init__(self, images: CalibrationImages, positions: tuple[int, ...], shape: tuple[int, int, int]) -> None:
        self._images = images
        self._shape = shape
        self._positions = frozenset(positions)
        self._kept: dict[int, npt.NDArray[np.float32]] = {}

    @property
    def digests(self) -> tuple[str, ...]:
        """Of all images."""
        return self._images.digests

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        """All images, batch by batch.

        Raises:
            BadInputError: A batch does not fit the graph.
        """
        start = 0
        for batch in self._images.batches(batch_size):
            check_batch(batch, self._shape)
            for offset, image in enumerate(batch):
                if start + offset in self._positions:
                    # A copy, since a view would hold the whole batch.
                    self._kept.setdefault(start + offset, image.copy())
            start += len(batch)
            yield batch

    def held(self, positions: tuple[int, ...]) -> HeldImages:
        """Some of the kept images; makes a pass for them where none was made yet.

        Raises:
            BadInputError: There are fewer images than the set says, or they do not fit the graph.
        """
        if not self._kept:
            for _ in self.batches(32):
                pass
        missing = [position for position in positions if position not in self._kept]
        if missing:
            raise BadInputError(
                "The calibration set holds another number of images than it says.",
                expected=f"{len(self.digests)} images",
                found=f"no image {missing[0]}",
            )
        pixels = np.stack([self._kept[position] for position in positions])
        return HeldImages(pixels, tuple(self.digests[position] for position in positions))


def split_images(count: int, training: int = 32, judging: int = 32) -> ImageSplit:
    """Part `count` images, spread evenly over their order and the same at every call.

    Args:
        count: Number of images, at least 1.
        training: Learn from at most this many.
        judging: Judge by at most this many, and by no more than half.

    Returns:
        Two sets apart, or twice the same one where there are fewer than 16 images.
    """
    # Not every k-th: in a folder ordered by turns of its classes that might be one class over and over.
    rng = np.random.default_rng(0)
    everything = np.arange(count)
    if count < _FEWEST_APART:
        chosen = _spread(everything, max(training, judging), rng)
        return ImageSplit(chosen, chosen, apart=False)
    judges = _spread(everything, min(judging, count // 2), rng)
    learners = _spread(np.setdiff1d(everything, judges), training, rng)
    return ImageSplit(learners, judges, apart=True)


def _spread(positions: npt.NDArray[np.int64], wanted: int, rng: np.random.Generator) -> tuple[int, ...]:
    """One at random from each of `wanted` stretches of equal length."""
    parts = np.array_split(positions, min(wanted, len(positions)))
    return tuple(int(rng.choice(part)) for part in parts)
