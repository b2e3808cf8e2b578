"""The golden set: a fixed sample of inputs with the teacher's answers and maps, readable without torch."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import NO_CLASS, MapSpec, MapView
from edgekit.bundle.distinct import repeated_names
from edgekit.core.canonical import read_json, write_json
from edgekit.core.digests import digest_array
from edgekit.core.files import read_bytes, write_bytes
from edgekit.errors import BadInputError, IntegrityError
from edgekit.interface.card import ModelCard

__all__ = ["GOLDEN_NAME", "FurtherMaps", "GoldenSet", "read_golden", "write_golden"]

GOLDEN_NAME = "golden.json"
_FORMAT = "edgekit.golden/1"


@dataclass(frozen=True)
class FurtherMaps:
    """Maps beside the first tap's map of the teacher's top-1.

    Attributes:
        view: Which they are.
        maps: float32 [N, h, w], the teacher's, raw.
    """

    view: MapView
    maps: npt.NDArray[np.float32]


@dataclass(frozen=True)
class GoldenSet:
    """Inputs and what the teacher said about them.

    Attributes:
        card: The teacher's card.
        map_spec: What the maps are.
        pixels: uint8 [N, height, width, 3], RGB, decoded and resized.
        labels: int64 [N], class index of the ground truth, -1 where unknown.
        logits: float32 [N, classes], the teacher's.
        maps: float32 [N, h, w], the teacher's map of its own top-1, raw.
        names: Relative file name of each image, for reports.
        masks: bool [N, height, width] of the object, or None when no sample has one; a sample without a mask is
            all False.
        teacher: SHA-256 of the teacher's file.
        further: The other maps that an image has, in the order of `map_spec.views`; empty when it has one.
    """

    card: ModelCard
    map_spec: MapSpec
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    names: tuple[str, ...]
    masks: npt.NDArray[np.bool_] | None
    teacher: str
    further: tuple[FurtherMaps, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each sample's pixels."""
        return tuple(digest_array(image) for image in self.pixels)

    @property
    def teacher_class(self) -> npt.NDArray[np.int64]:
        """The teacher's top-1, int64 [N]."""
        top: npt.NDArray[np.int64] = np.argmax(self.logits, axis=1).astype(np.int64)
        return top

    @property
    def explained_classes(self) -> npt.NDArray[np.int32]:
        """The classes that the teacher's maps explain, int32 [N, k]: what an engine is asked for to compare with them.

        Column j holds the teacher's answer of rank j; `NO_CLASS` where only positive classes are explained and the
        logit is not above zero.
        """
        if self.map_spec.classes == 1 and self.map_spec.class_choice == "top":
            return self.teacher_class.astype(np.int32)[:, None]
        ranked = np.argsort(-self.logits, axis=1, kind="stable")[:, : self.map_spec.classes]
        if self.map_spec.class_choice == "positive":
            positive = np.take_along_axis(self.logits, ranked, axis=1) > 0
            ranked = np.where(positive, ranked, NO_CLASS)
        return ranked.astype(np.int32)


def write_golden(golden: GoldenSet, folder: Path) -> None:
    """Write the set into `folder`: one .npy file an array and `golden.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in _arrays(golden).items():
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        write_bytes(folder / f"{name}.npy", buffer.getvalue())
    write_json(
        folder / GOLDEN_NAME,
        {
            "format": _FORMAT,
            "teacher": golden.teacher,
            "card": golden.card.to_dict(),
            "map": golden.map_spec.to_dict(),
            "samples": [
                {"name": name, "sha256": digest} for name, digest in zip(golden.names, golden.digests, strict=True)
            ],
        },
    )


def _arrays(golden: GoldenSet) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {
        "pixels": golden.pixels,
        "labels": golden.labels,
        "logits": golden.logits,
        "maps": golden.maps,
    }
    if golden.masks is not None:
        arrays["masks"] = golden.masks
    return arrays | {_further_name(number): item.maps for number, item in enumerate(golden.further)}


def _further_name(number: int) -> str:
    """File name, without its ending, of the maps of view `number` + 2, counted from 1 as the engine's outputs are."""
    return f"maps_{number + 2}"


def read_golden(folder: Path) -> GoldenSet:
    """Read a golden set and check that its parts fit together.

    Raises:
        BadInputError: A file is missing.
        IntegrityError: A file is malformed, a shape does not fit, a value is not finite, a digest differs, or two
            samples are the same image.
    """
    where = str(folder / GOLDEN_NAME)
    raw = read_json(folder / GOLDEN_NAME)
    try:
        if raw["format"] != _FORMAT:
            raise IntegrityError("A golden set has an unknown format.", where=where, expected=_FORMAT)
        card = ModelCard.from_dict(raw["card"], where=where)
        spec = MapSpec.from_dict(raw["map"], where=where)
        names = tuple(str(sample["name"]) for sample in raw["samples"])
        digests = tuple(str(sample["sha256"]) for sample in raw["samples"])
        teacher = str(raw["teacher"])
    except (KeyError, TypeError) as cause:
        raise IntegrityError("A golden set is malformed.", where=where, found=repr(cause)) from cause
    except BadInputError as cause:
        # The card of a user's model is input; the card of a stored golden set was written by edgekit.
        raise IntegrityError(
            "A golden set is malformed.", where=where, expected=cause.expected, found=cause.found or cause.message
        ) from cause
    count, image = len(names), (card.input.height, card.input.width)
    pixels = _read_array(folder / "pixels.npy", np.uint8, (count, *image, 3))
    masks_path = folder / "masks.npy"
    golden = GoldenSet(
        card=card,
        map_spec=spec,
        pixels=pixels,
        labels=_read_array(folder / "labels.npy", np.int64, (count,)),
        logits=_read_array(folder / "logits.npy", np.float32, (count, len(card.classes))),
        maps=_read_array(folder / "maps.npy", np.float32, (count, spec.height, spec.width)),
        names=names,
        masks=_read_array(masks_path, np.bool_, (count, *image)) if masks_path.exists() else None,
        teacher=teacher,
        further=tuple(
            FurtherMaps(
                view,
                _read_array(
                    folder / f"{_further_name(number)}.npy", np.float32, (count, view.spec.height, view.spec.width)
                ),
            )
            for number, view in enumerate(spec.views[1:])
        ),
    )
    _check_content(golden, digests, where)
    return golden


def _check_content(golden: GoldenSet, digests: tuple[str, ...], where: str) -> None:
    if golden.digests != digests:
        raise IntegrityError("A golden sample is not the image its digest names.", where=where)
    every = (golden.logits, golden.maps, *(item.maps for item in golden.further))
    if not all(np.isfinite(array).all() for array in every):
        raise IntegrityError("A golden set holds answers that are not finite.", where=where)
    if golden.labels.min(initial=-1) < -1 or golden.labels.max(initial=-1) >= len(golden.card.classes):
        raise IntegrityError("A golden set holds a label outside its classes.", where=where)
    repeated = repeated_names(golden.names, digests)
    if repeated:
        raise IntegrityError(
            "A golden set repeats samples, so that a verdict's bounds would count an image more than once.",
            where=where,
            expected="samples that differ",
            found=repeated,
            hint="make the golden set again from images that differ, with 'edgekit golden'",
        )


def _read_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    data = read_bytes(path)
    stream = io.BytesIO(data)
    try:
        found_shape, found_dtype = _read_header(stream)
    except (ValueError, EOFError, SyntaxError) as cause:
        raise IntegrityError("An array file is malformed.", where=str(path), found=str(cause)) from cause
    # Judged by its header, before anything of the size that header claims is allocated.
    if found_dtype != dtype or found_shape != shape:
        raise IntegrityError(
            "An array of the golden set does not fit.",
            where=str(path),
            expected=f"{np.dtype(dtype)} {list(shape)}",
            found=f"{found_dtype} {list(found_shape)}",
        )
    content = len(data) - stream.tell()
    if content != math.prod(shape) * found_dtype.itemsize:
        raise IntegrityError(
            "An array file is malformed.",
            where=str(path),
            expected=f"{math.prod(shape) * found_dtype.itemsize} bytes of values",
            found=f"{content}",
        )
    array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _read_header(stream: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"version {version} of the .npy format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype
