"""From indices of training images to what the networks are fed."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

from edgekit.compress.options import FinetuneOptions
from edgekit.compress.training.batches import TrainingImages, varied
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess

__all__ = ["Feed"]


class Feed:
    """Images and labels on a device."""

    def __init__(self, images: TrainingImages, spec: InputSpec, options: FinetuneOptions, device: torch.device) -> None:
        # Looked up once: a set may decode or gather them whenever it is asked.
        self._pixels, self._labels = images.pixels, images.labels
        self._spec, self._options, self.device = spec, options, device

    def plain(self, indices: npt.NDArray[Any]) -> torch.Tensor:
        """Images as they are, float [N, 3, H, W]."""
        return torch.from_numpy(preprocess(self._pixels[indices], self._spec)).to(self.device)

    def varied(
        self, batch: npt.NDArray[Any], share: npt.NDArray[Any], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A share of a varied batch, given as positions in it: images float [n, 3, H, W], labels int64 [n] or [n, K].

        The draws are those of the whole batch, whatever the share.
        """
        pixels = varied(self._pixels[batch], self._options, generator)[share]
        labels = torch.from_numpy(self._labels[batch[share]])
        return torch.from_numpy(preprocess(pixels, self._spec)).to(self.device), labels.to(self.device)
