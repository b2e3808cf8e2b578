"""Images that are given twice: which of a golden set's images stay, and what their copies say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.bundle.distinct import repeated_names
from edgekit.core.digests import digest_array
from edgekit.errors import BadInputError

__all__ = ["DistinctImages", "distinct_images"]

_SHOWN = 3
_UNLABELLED = -1


@dataclass(frozen=True)
class DistinctImages:
    """Images that all differ, in the order in which they were given.

    Attributes:
        names: Of the images.
        pixels: uint8 [N, height, width, 3].
        labels: int64 [N], -1 where no copy has one.
        masks: bool [N, height, width], or None.
        left_out: How many copies were left out.
        copies: Which they are, the first few, in words; empty without any.
    """

    names: tuple[str, ...]
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_] | None
    left_out: int = 0
    copies: str = ""


def distinct_images(
    names: Sequence[str],
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    masks: npt.NDArray[np.bool_] | None,
) -> DistinctImages:
    """The first of every image, without its copies.

    A copy that has a label or a mask where the first has none lends its own: what is not known contradicts nothing.

    Args:
        names: Of the images.
        pixels: uint8 [N, height, width, 3], at the network's size: two files of one image are the same.
        labels: int64 [N], -1 where unknown.
        masks: bool [N, height, width], all False where an image has none; or None.

    Raises:
        BadInputError: Copies have other labels, or other masks.
    """
    digests = [digest_array(image) for image in pixels]
    told = repeated_names(names, digests)
    if not told:
        return DistinctImages(tuple(names), pixels, labels, masks)
    places: dict[str, int] = {}
    firsts = np.array([places.setdefault(digest, place) for place, digest in enumerate(digests)], dtype=np.intp)
    labels = _agreed_labels(names, labels, firsts)
    masks = None if masks is None else _agreed_masks(names, masks, firsts)
    kept = np.unique(firsts)
    return DistinctImages(
        names=tuple(names[place] for place in kept),
        pixels=pixels[kept],
        labels=labels[kept],
        masks=None if masks is None else masks[kept],
        left_out=len(names) - len(kept),
        copies=told,
    )


def _agreed_labels(
    names: Sequence[str], labels: npt.NDArray[np.int64], firsts: npt.NDArray[np.intp]
) -> npt.NDArray[np.int64]:
    """Labels in which every first image has that of its copies."""
    agreed = labels.copy()
    known: dict[int, int] = {}
    wrong = []
    for place in np.flatnonzero(labels != _UNLABELLED).tolist():
        holder = known.setdefault(int(firsts[place]), place)
        if labels[holder] == labels[place]:
            agreed[firsts[place]] = labels[place]
        else:
            wrong.append(f"{names[place]} is {names[holder]}")
    _refuse("labels", wrong)
    return agreed


def _agreed_masks(
    names: Sequence[str], masks: npt.NDArray[np.bool_], firsts: npt.NDArray[np.intp]
) -> npt.NDArray[np.bool_]:
    """Masks in which every first image has that of its copies."""
    agreed = masks.copy()
    known: dict[int, int] = {}
    wrong = []
    for place in np.flatnonzero(masks.any(axis=(1, 2))).tolist():
        holder = known.setdefault(int(firsts[place]), place)
        if np.array_equal(masks[holder], masks[place]):
            agreed[firsts[place]] = masks[place]
        else:
            wrong.append(f"{names[place]} is {names[holder]}")
    _refuse("masks", wrong)
    return agreed


def _refuse(what: str, pairs: Sequence[str]) -> None:
    if not pairs:
        return
    more = f"; and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    raise BadInputError(
        f"Held-out images are the same, and their {what} are not: they contradict each other.",
        expected=f"equal {what} where images are equal at the size in which the network sees them",
        found="; ".join(pairs[:_SHOWN]) + more,
        hint=f"correct the {what}, or remove one of the two",
    )
