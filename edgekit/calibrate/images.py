"""What calibration needs to know about its images: their digests, and their pixels twice over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgekit.errors import BadInputError

__all__ = ["CalibrationImages", "check_batch"]


class CalibrationImages(Protocol):
    """A fixed, ordered set of prepared images, the same at every pass."""

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image, in order. Their number is the number of images."""

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield float32 [n, 3, H, W] with n at most `batch_size`, prepared by `interface.preprocess`.

        Called once a pass; implementations read from disk again rather than keep every image in memory.
        """


def check_batch(batch: npt.NDArray[np.float32], shape: tuple[int, int, int]) -> None:
    """Raise `BadInputError` where a batch is not float32 [n, *shape] with n at least 1.

    Args:
        batch: What a set handed out.
        shape: Channels, height and width of the graph's input.
    """
    if batch.dtype != np.float32 or batch.shape[1:] != shape or len(batch) == 0:
        raise BadInputError(
            "A batch of calibration images does not fit the graph.",
            expected=f"float32 [N, {', '.join(map(str, shape))}]",
            found=f"{batch.dtype} {list(batch.shape)}",
        )
