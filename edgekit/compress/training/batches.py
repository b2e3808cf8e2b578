"""Training images: which are used, in which order, and how they are varied. All of it follows from one generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from edgekit.compress.options import FinetuneOptions
from edgekit.core.canonical import JsonValue, dump_canonical
from edgekit.core.digests import digest_array, digest_bytes
from edgekit.errors import BadInputError

__all__ = ["TrainingImages", "digest_images", "training_indices", "varied", "visiting_order"]


class TrainingImages(Protocol):
    """Decoded, labelled images, as the image loader gives them."""

    @property
    def digests(self) -> Sequence[str]:
        """SHA-256 of each image's pixels, [N]."""

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """uint8 [N, height, width, 3], RGB, at the network's input size."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """int64 [N], class index, -1 where it is not known."""


def digest_images(images: TrainingImages) -> str:
    """One digest for images, labels and their order: all of them decide the weights that come out."""
    identity: JsonValue = {"images": list(images.digests), "labels": digest_array(images.labels)}
    return digest_bytes(dump_canonical(identity))


def training_indices(
    labels: npt.NDArray[np.int64], classes: Sequence[str], limit: int, generator: torch.Generator
) -> npt.NDArray[np.int64]:
    """Indices of the images to train on, in increasing order.

    Images without a label are left out. With a `limit` above 0, classes take turns in giving a random image each, so
    that no class is cut before the larger ones.

    Raises:
        BadInputError: A label is no class of the card, or the labelled images are of fewer than two classes.
    """
    labels = np.asarray(labels)
    if labels.max(initial=-1) >= len(classes) or labels.min(initial=-1) < -1:
        raise BadInputError(
            "A training image has a label that is no class of the card.",
            expected=f"0 to {len(classes) - 1}, or -1 for unknown",
            found=f"{labels.min()} to {labels.max()}",
        )
    present = [index for index in range(len(classes)) if (labels == index).any()]
    if len(present) < 2:
        found = ", ".join(classes[index] for index in present) or "none"
        raise BadInputError(
            "The training images cannot teach a classifier.",
            expected="labelled images of at least two classes",
            found=f"{int((labels >= 0).sum())} labelled images, of {found}",
            hint="give images of every class, or leave the training data out to keep the teacher's weights",
        )
    members = [_shuffled(np.flatnonzero(labels == index), generator) for index in present]
    count = int((labels >= 0).sum())
    if limit and limit < count:
        turns = [(turn, order) for order, found in enumerate(members) for turn in range(len(found))]
        members = [np.array([members[order][turn] for turn, order in sorted(turns)[:limit]])]
    indices: npt.NDArray[np.int64] = np.sort(np.concatenate(members)).astype(np.int64)
    return indices


def _shuffled(indices: npt.NDArray[np.intp], generator: torch.Generator) -> npt.NDArray[np.intp]:
    shuffled: npt.NDArray[np.intp] = indices[torch.randperm(len(indices), generator=generator).numpy()]
    return shuffled


def visiting_order(
    indices: npt.NDArray[np.int64], batch_size: int, generator: torch.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """The batches of one epoch: every index once, in random order.

    The last batch may be smaller; one of a single image is dropped, since batch normalisation has no variance of it.
    """
    order = indices[torch.randperm(len(indices), generator=generator).numpy()]
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        if len(batch) > 1:
            yield batch


def varied(
    pixels: npt.NDArray[np.uint8], options: FinetuneOptions, generator: torch.Generator
) -> npt.NDArray[np.uint8]:
    """Flipped and shifted copies of images, uint8 [N, H, W, 3], each by its own draw; edges are repeated."""
    count, height, width, _ = pixels.shape
    rows = np.broadcast_to(np.arange(height), (count, height))
    columns = np.broadcast_to(np.arange(width), (count, width))
    if options.shift:
        drawn = torch.randint(-options.shift, options.shift + 1, (2, count, 1), generator=generator).numpy()
        rows = np.clip(rows + drawn[0], 0, height - 1)
        columns = np.clip(columns + drawn[1], 0, width - 1)
    if options.flip:
        mirrored = torch.randint(0, 2, (count, 1), generator=generator).numpy().astype(np.bool_)
        columns = np.where(mirrored, columns[:, ::-1], columns)
    result: npt.NDArray[np.uint8] = pixels[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return result
