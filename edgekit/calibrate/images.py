"""What calibration needs to know about its images: their digests, and their pixels twice over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["CalibrationImages"]


class CalibrationImages(Protocol):
    """A fixed, ordered set of prepared images, the same at every pass."""

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image, in order. Their number is the number of images."""

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield float32 [n, 3, H, W] with n at most `batch_size`, prepared by `interface.preprocess`.

        Called once a pass; implementations read from disk again rather than keep every image in memory.
        """
