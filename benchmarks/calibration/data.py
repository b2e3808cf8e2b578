"""The images: a training side that calibrates and fine-tunes, and a held-out side that is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from prepare_data import unpack_camvid, unpack_cifar

from edgekit.images.imageset import read_imageset, select_balanced, split_imageset
from edgekit.images.views import ImageView

__all__ = ["Images", "read_images"]

# Images of each class that are unpacked; more would only be unpacked.
_CIFAR_EACH = {"train": 300, "test": 500}
_SEED = 0


@dataclass(frozen=True)
class Images:
    """A data set's two sides.

    Attributes:
        train: Training images, classes taking turns: the first n are a balanced choice of n.
        held_out: Images of the other splits, in the same manner.
    """

    train: ImageView
    held_out: ImageView


@lru_cache(maxsize=4)
def read_images(dataset: str, classes: Sequence[str], shared: Path, work: Path) -> Images:
    """The images of "cifar10" or "camvid-person", unpacked into `work` where they are not there yet."""
    folder = work / "data" / dataset
    if dataset == "cifar10":
        unpack_cifar(shared, folder, _CIFAR_EACH)
    else:
        unpack_camvid(shared, folder)
    split = split_imageset(read_imageset(folder, classes))
    train, held_out = (ImageView(select_balanced(side, 0, _SEED)) for side in (split.train, split.held_out))
    return Images(train, held_out)
