"""Training images as the image loader gives them, made from arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.core.digests import digest_array

__all__ = ["Images"]


@dataclass(frozen=True)
class Images:
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest_array(image) for image in self.pixels)
