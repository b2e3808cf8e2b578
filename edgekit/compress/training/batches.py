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

__all__ = ["TrainingImages", "digest_images", "held_back", "training_indices", "varied", "visiting_order"]


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
        """int64 [N], class index, -1 where it is not known.

        For multi-label cards also int64 [N, K]: 1 for every class that an image shows, 0 for the others, which may be
        all of them; a row of -1 where they are not known.
        """


def digest_images(images: TrainingImages) -> str:
    """One digest for images, labels and their order: all of them decide the weights that come out."""
    identity: JsonValue = {"images": list(images.digests), "labels": digest_array(images.labels)}
    return digest_bytes(dump_canonical(identity))


def training_indices(
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
    limit: int,
    generator: torch.Generator,
    *,
    task: str = "softmax",
) -> npt.NDArray[np.int64]:
    """Indices of the images to train on, in increasing order.

    Images without a label are left out. With a `limit` above 0, classes take turns in giving a random image each, so
    that no class is cut before the larger ones. Of an image that shows several classes the rarest counts; images that
    show none are a class of their own.

    Raises:
        BadInputError: A label is no class of the card, images of several classes are given for a card with one each,
            or the labelled images do not tell two classes apart.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2:
        _check_shown(labels, classes, task)
    else:
        _check_single(labels, classes)
    groups = _groups(labels)
    members = [_shuffled(group, generator) for group in groups]
    count = sum(len(group) for group in groups)
    if limit and limit < count:
        turns = [(turn, order) for order, found in enumerate(members) for turn in range(len(found))]
        members = [np.array([members[order][turn] for turn, order in sorted(turns)[:limit]])]
    indices: npt.NDArray[np.int64] = np.sort(np.concatenate(members)).astype(np.int64)
    return indices


def held_back(
    labels: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], share: float, generator: torch.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split `indices` into those to train on and those to judge by, both in increasing order.

    Every class gives the same share of its images, rounded, but at least one and never its last; a class of one image
    gives none.

    Args:
        labels: Of all images, as `TrainingImages.labels`.
        indices: The labelled images to split.
        share: Above 0 and below 1.
        generator: Draws which.
    """
    aside = []
    for group in _groups(np.asarray(labels)[indices]):
        count = min(max(1, round(share * len(group))), len(group) - 1)
        aside.append(indices[_shuffled(group, generator)[:count]])
    judged: npt.NDArray[np.int64] = np.sort(np.concatenate(aside))
    return np.setdiff1d(indices, judged), judged


def _check_single(labels: npt.NDArray[np.int64], classes: Sequence[str]) -> None:
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


def _check_shown(labels: npt.NDArray[np.int64], classes: Sequence[str], task: str) -> None:
    if task != "multi-label" or labels.shape[1] != len(classes):
        raise BadInputError(
            "The training images' labels do not fit the card.",
            expected=f"[N, {len(classes)}] zeros and ones" if task == "multi-label" else "one class an image, [N]",
            found=f"{list(labels.shape)} for a {task} card of {len(classes)} classes",
        )
    unknown = (labels == -1).all(axis=1)
    wrong = ~unknown & ~np.isin(labels, (0, 1)).all(axis=1)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise BadInputError(
            "A training image has labels that are neither shown nor not shown.",
            where=f"image {first}",
            expected="0 or 1 for every class, or -1 for all of them where they are not known",
            found=", ".join(map(str, np.unique(labels[first]))),
        )
    known = labels[~unknown]
    if not ((known == 1).any(axis=0) & (known == 0).any(axis=0)).any():
        raise BadInputError(
            "The training images cannot teach a classifier.",
            expected="a class that some labelled images show and others do not",
            found=f"{len(known)} labelled images, all alike",
            hint="give other images too, or leave the training data out to keep the teacher's weights",
        )


def _groups(labels: npt.NDArray[np.int64]) -> list[npt.NDArray[np.intp]]:
    """Positions of the labelled images by class, in increasing order and none empty; see `training_indices`."""
    if labels.ndim == 2:
        known, none = (labels >= 0).all(axis=1), labels.shape[1]
        shown = labels == 1
        counts = shown.sum(axis=0)
        rarest = np.where(shown, counts, len(labels) + 1).argmin(axis=1)
        labels = np.where(known, np.where(shown.any(axis=1), rarest, none), -1)
    return [np.flatnonzero(labels == index) for index in np.unique(labels) if index >= 0]


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
