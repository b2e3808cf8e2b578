"""What assignments are judged by: held-out images with a teacher's answers and maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.golden import FurtherMaps, GoldenSet
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_array, digest_bytes, digest_file
from edgekit.core.progress import NULL_OBSERVER, Observer
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError
from edgekit.images.imageset import ImageItem, select_balanced
from edgekit.images.views import ImageView
from edgekit.interface.card import ModelCard
from edgekit.verify.answers import answer_golden

__all__ = ["MOST_JUDGED", "GraphYardstick", "JudgedImages", "StoredYardstick", "Yardstick", "divide_images"]

MOST_JUDGED = 512
"""Images held out of a calibration folder, at most: "at least 95 %" is shown by 350 samples of which 97 % are good."""

_LEAK_CHUNK = 64


class Yardstick(Protocol):
    """A golden set that is there, or is made when it is asked for."""

    @property
    def teacher(self) -> str:
        """Whose answers count, in words."""

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides what it holds."""

    def golden(self, observer: Observer = NULL_OBSERVER) -> GoldenSet:
        """The images with the teacher's answers."""


class JudgedImages(Protocol):
    """Images to be judged on; `ImageView` is one."""

    def __len__(self) -> int: ...

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each, for reports."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class index of each, int64 [N], -1 where unknown."""

    def pixels(self, height: int, width: int, observer: Observer = NULL_OBSERVER) -> npt.NDArray[np.uint8]:
        """Decoded, uint8 [N, height, width, 3]."""


@dataclass(frozen=True)
class StoredYardstick:
    """A stored golden set.

    Attributes:
        stored: The set. Whoever calibrates on its images gets `refuse_leak`'s error.
    """

    stored: GoldenSet
    teacher: str = "the golden set's teacher"

    @property
    def digest(self) -> str:
        """Over its images and all that was said about them."""
        stored = self.stored
        maps = (stored.maps, *(item.maps for item in stored.further))
        arrays: list[npt.NDArray[Any]] = [stored.pixels, stored.labels, stored.logits, *maps]
        return digest_bytes(
            dump_canonical(
                [stored.card.to_dict(), stored.map_spec.to_dict(), *(digest_array(array) for array in arrays)]
            )
        )

    def golden(self, observer: Observer = NULL_OBSERVER) -> GoldenSet:  # noqa: ARG002 - of the protocol
        """The stored set."""
        return self.stored

    def refuse_leak(self, view: ImageView) -> None:
        """Raise `BadInputError` where calibration images are also held out."""
        spec, held_out = self.stored.card.input, set(self.stored.digests)
        leaked = []
        for start in range(0, len(view), _LEAK_CHUNK):
            part = ImageView(view.items[start : start + _LEAK_CHUNK])
            pixels = part.pixels(spec.height, spec.width)
            names = zip(part.names, pixels, strict=True)
            leaked += [name for name, image in names if digest_array(image) in held_out]
        if leaked:
            raise BadInputError(
                "Calibration images are also in the golden set, which must stay unseen.",
                found=f"{len(leaked)} images, such as " + ", ".join(leaked[:3]),
                hint="give --calib a folder without the held-out images",
            )

    def check_fits(self, card: ModelCard, where: str) -> None:
        """Raise `BadInputError` where the set was made for a network that is fed or answers differently."""
        for what, ours, theirs in (
            ("input", self.stored.card.input, card.input),
            ("classes", self.stored.card.classes, card.classes),
        ):
            if ours != theirs:
                raise BadInputError(
                    f"The golden set does not fit the exported graph: their {what} differ.",
                    where=where,
                    expected=str(theirs)[:300],
                    found=str(ours)[:300],
                )


@dataclass(frozen=True)
class GraphYardstick:
    """Held-out images answered by the FP32 graph itself: what INT8 changes, whatever the network is worth.

    Attributes:
        graph: The explained FP32 graph.
        images: The images.
        card: The network's.
        map_spec: What its maps are.
    """

    graph: Path
    images: JudgedImages
    card: ModelCard
    map_spec: MapSpec
    teacher: str = "the FP32 graph itself"

    @property
    def digest(self) -> str:
        """Over graph, images and how they are prepared."""
        return digest_bytes(
            dump_canonical(
                [
                    digest_file(self.graph),
                    self.card.to_dict(),
                    self.map_spec.to_dict(),
                    list(self.images.digests),
                    self.images.labels.tolist(),
                ]
            )
        )

    def golden(self, observer: Observer = NULL_OBSERVER) -> GoldenSet:
        """Let the reference engine answer.

        Raises:
            BadInputError: An answer is not finite.
        """
        spec, count = self.card.input, len(self.images)
        asked = GoldenSet(
            card=self.card,
            map_spec=self.map_spec,
            pixels=self.images.pixels(spec.height, spec.width, observer),
            labels=self.images.labels,
            logits=np.zeros((count, len(self.card.classes)), dtype=np.float32),
            maps=np.zeros((count, self.map_spec.height, self.map_spec.width), dtype=np.float32),
            names=self.images.names,
            masks=None,
            teacher=digest_file(self.graph),
        )
        with ENGINES.load("reference").open(self.graph, EngineOptions()) as runner:
            # First what it answers, then the maps of just these classes.
            asked = replace(asked, logits=answer_golden(runner, asked, observer).logits)
            answers = answer_golden(runner, asked, observer)
        for what, array in (("logits", answers.logits), *(("maps", item) for item in (answers.maps, *answers.further))):
            if not np.isfinite(array).all():
                raise BadInputError(f"The FP32 graph gives {what} that are not finite.", where=str(self.graph))
        further = zip(self.map_spec.views[1:], answers.further, strict=True)
        return replace(asked, maps=answers.maps, further=tuple(FurtherMaps(view, maps) for view, maps in further))


def divide_images(
    items: Sequence[ImageItem], calibrating: int, seed: int, *, where: str
) -> tuple[tuple[ImageItem, ...], tuple[ImageItem, ...]]:
    """Divide a calibration folder into images for ranges and images held out to judge by.

    Args:
        items: The folder's images.
        calibrating: Images wanted for ranges, 0 for as many as may be. At most half are given: a tolerance is judged
            by shares with confidence bounds, which need images too.
        seed: Of the draw.
        where: The folder.

    Returns:
        Images to draw calibration images from, those drawn first in front, and at most `MOST_JUDGED` held-out ones.
        Nothing is in both, copies of files included.

    Raises:
        BadInputError: There are fewer than two different images.
    """
    distinct = tuple({item.digest: item for item in items}.values())
    ordered = select_balanced(distinct, 0, seed)
    if len(ordered) < 2:
        raise BadInputError(
            "One image cannot both calibrate and judge.",
            where=where,
            expected="at least two different images, and as many more as the policy needs samples",
            found=f"{len(ordered)}",
            hint="give more images with --calib, or a golden set to judge by with --golden",
        )
    half = len(ordered) - len(ordered) // 2
    kept = max(min(calibrating or half, half), len(ordered) - MOST_JUDGED)
    return ordered[:kept], ordered[kept:]
