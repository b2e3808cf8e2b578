"""The golden set: a fixed sample of inputs with the teacher's answers and maps, readable without torch."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import NO_CLASS, MapSpec, MapView
from edgekit.bundle.distinct import repeated_names
from edgekit.core.canonical import read_json, write_json
from edgekit.core.digests import digest_array
from edgekit.core.files import foreign_os_errors, write_bytes
from edgekit.core.mapped import SMALL, map_file, release
from edgekit.errors import BadInputError, IntegrityError
from edgekit.interface.card import ModelCard

__all__ = [
    "GOLDEN_NAME",
    "FurtherMaps",
    "GoldenSet",
    "RandomAnswers",
    "explained_classes",
    "read_golden",
    "write_golden",
]

GOLDEN_NAME = "golden.json"
_FORMAT = "edgekit.golden/1"
_FROM_BEFORE_CONTROLS = "the golden set is from before there were controls"
_RANDOM = "random_weights"
# Samples that are looked at together where the arrays lie in files.
_AT_ONCE = 256


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
class RandomAnswers:
    """What the teacher's architecture says with random weights: a control that no policy may let pass.

    Attributes:
        recipe: How the weights were made, in words.
        seed: Of the generator that made them.
        classes: int64 [N], its own top-1.
        maps: float16 [2, N, h, w] for every view of the map specification: its map of the teacher's class, then that of
            its own, each divided by its largest magnitude, which no metric looks at.
    """

    recipe: str
    seed: int
    classes: npt.NDArray[np.int64]
    maps: tuple[npt.NDArray[np.float16], ...]

    def part(self, rows: npt.NDArray[np.intp]) -> RandomAnswers:
        """What it says of some samples, by index."""
        return replace(self, classes=self.classes[rows], maps=tuple(maps[:, rows] for maps in self.maps))


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
        random: What the same architecture says with random weights; None where that is not known.
        random_absent: Why it is not.
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
    random: RandomAnswers | None = None
    random_absent: str = _FROM_BEFORE_CONTROLS

    def __len__(self) -> int:
        return len(self.pixels)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each sample's pixels."""
        found = []
        for start in range(0, len(self.pixels), _AT_ONCE):
            found += [digest_array(image) for image in self.pixels[start : start + _AT_ONCE]]
            release(self.pixels)
        return tuple(found)

    @cached_property
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
        return explained_classes(self.logits, self.map_spec)

    def part(self, rows: npt.NDArray[np.intp]) -> GoldenSet:
        """The golden set of some samples, by index."""
        known = self.random
        part = replace(
            self,
            pixels=self.pixels[rows],
            labels=self.labels[rows],
            logits=self.logits[rows],
            maps=self.maps[rows],
            names=tuple(self.names[row] for row in rows),
            masks=None if self.masks is None else self.masks[rows],
            further=tuple(replace(item, maps=item.maps[rows]) for item in self.further),
            random=None if known is None else known.part(rows),
        )
        masks, random = (() if self.masks is None else (self.masks,)), (() if known is None else known.maps)
        release(self.pixels, self.maps, *masks, *(item.maps for item in self.further), *random)
        return part


def explained_classes(logits: npt.NDArray[np.float32], spec: MapSpec) -> npt.NDArray[np.int32]:
    """The classes that a network's maps of its own answers explain, int32 [N, k]; see `GoldenSet.explained_classes`.

    Args:
        logits: float32 [N, classes], the network's.
        spec: What its maps are.
    """
    if spec.classes == 1 and spec.class_choice == "top":
        top: npt.NDArray[np.int32] = np.argmax(logits, axis=1).astype(np.int32)
        return top[:, None]
    ranked = np.argsort(-logits, axis=1, kind="stable")[:, : spec.classes]
    if spec.class_choice == "positive":
        positive = np.take_along_axis(logits, ranked, axis=1) > 0
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
            _RANDOM: {"absent": golden.random_absent}
            if golden.random is None
            else {"recipe": golden.random.recipe, "seed": golden.random.seed},
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
    if golden.random is not None:
        arrays["random_classes"] = golden.random.classes
        arrays |= {_random_name(number): maps for number, maps in enumerate(golden.random.maps)}
    return arrays | {_further_name(number): item.maps for number, item in enumerate(golden.further)}


def _random_name(number: int) -> str:
    """File name, without its ending, of a random network's maps of view `number` + 1."""
    return f"random_maps_{number + 1}" if number else "random_maps"


def _further_name(number: int) -> str:
    """File name, without its ending, of the maps of view `number` + 2, counted from 1 as the engine's outputs are."""
    return f"maps_{number + 2}"


def read_golden(folder: Path) -> GoldenSet:
    """Read a golden set and check that its parts fit together, every value of them.

    Arrays of many bytes stay in their files and are read-only; `edgekit.core.mapped.release` hands back what was used
    of them.

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
    random, absent = _read_random(folder, raw.get(_RANDOM), card, spec, count)
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
        random=random,
        random_absent=absent,
    )
    _check_content(golden, digests, where)
    return golden


def _check_content(golden: GoldenSet, digests: tuple[str, ...], where: str) -> None:
    if golden.digests != digests:
        raise IntegrityError("A golden sample is not the image its digest names.", where=where)
    every = (golden.logits, golden.maps, *(item.maps for item in golden.further))
    if not all(_finite(array) for array in every):
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


def _read_random(
    folder: Path, raw: object, card: ModelCard, spec: MapSpec, count: int
) -> tuple[RandomAnswers | None, str]:
    """The answers of a random network, or why there are none; golden sets of before controls say nothing of them."""
    if raw is None:
        return None, _FROM_BEFORE_CONTROLS
    where = f"{folder / GOLDEN_NAME}: {_RANDOM}"
    if isinstance(raw, dict) and set(raw) == {"absent"} and isinstance(raw["absent"], str):
        return None, raw["absent"]
    known = isinstance(raw, dict) and set(raw) == {"recipe", "seed"}
    if not (known and isinstance(raw["recipe"], str) and type(raw["seed"]) is int):  # type: ignore[index]
        raise IntegrityError(
            "A golden set is malformed.", where=where, expected="recipe and seed, or absent", found=ascii(raw)[:200]
        )
    sizes = [(view.spec.height, view.spec.width) for view in spec.views]
    found = RandomAnswers(
        recipe=raw["recipe"],  # type: ignore[index]
        seed=raw["seed"],  # type: ignore[index]
        classes=_read_array(folder / "random_classes.npy", np.int64, (count,)),
        maps=tuple(
            _read_array(folder / f"{_random_name(number)}.npy", np.float16, (2, count, *size))
            for number, size in enumerate(sizes)
        ),
    )
    known_classes = ((found.classes >= 0) & (found.classes < len(card.classes))).all()
    if not (known_classes and all(_finite(side) for maps in found.maps for side in maps)):
        raise IntegrityError(
            "A golden set holds answers of a random network that are not finite, or classes that do not exist.",
            where=where,
        )
    return found, ""


def _finite(array: npt.NDArray[Any]) -> bool:
    for start in range(0, len(array), _AT_ONCE):
        if not np.isfinite(array[start : start + _AT_ONCE]).all():
            return False
        release(array)
    return True


def _read_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    with foreign_os_errors(path, "read a file"), path.open("rb") as stream:
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
        start, wanted = stream.tell(), math.prod(shape) * found_dtype.itemsize
        content = path.stat().st_size - start
        if content != wanted:
            raise IntegrityError(
                "An array file is malformed.",
                where=str(path),
                expected=f"{wanted} bytes of values",
                found=f"{content}",
            )
        if wanted >= SMALL:
            return map_file(path, found_dtype, shape, start)
        array: npt.NDArray[Any] = np.frombuffer(bytearray(stream.read(wanted)), found_dtype).reshape(shape)
        return array


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"version {version} of the .npy format")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    if in_columns:
        raise ValueError("values column by column, where edgekit writes them row by row")
    return shape, dtype
