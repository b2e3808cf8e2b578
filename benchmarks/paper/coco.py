"""COCO-style instances: one JSON file of images, categories and annotations, beside a folder of images.

Segmentations are lists of polygons, uncompressed run lengths (a list of counts) or COCO's compressed run lengths (a
string). Runs go down the columns, beginning with background. A polygon is filled by Pillow, whose edges may differ from
the COCO tools' by a pixel at full size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from edgekit.core.canonical import read_json
from edgekit.errors import BadInputError
from edgekit.images.decode import decode_image
from paper.masked_images import Loaded, Mask, MaskedImages, gathered, nearest

__all__ = ["compressed_counts", "decode_segmentation", "load_coco"]


def load_coco(instances: Path, images: Path, split: str, side: int) -> MaskedImages:
    """Images with the union of each class's instances as its mask.

    Crowds are neither objects nor background: their pixels are ignored where no single instance covers them.

    Args:
        instances: The JSON file.
        images: The folder that its file names are relative to.
        split: What to call all of these images: "train", "val" or "test".
        side: Height and width of the images in the result; the aspect is not kept.

    Raises:
        BadInputError: An entry is missing or malformed.
    """
    content = read_json(instances)
    try:
        categories = sorted(content["categories"], key=lambda entry: entry["id"])
        places = {entry["id"]: place for place, entry in enumerate(categories)}
        of_image: dict[int, list[Mapping[str, Any]]] = {entry["id"]: [] for entry in content["images"]}
        for annotation in content["annotations"]:
            of_image[annotation["image_id"]].append(annotation)
        listed = sorted(content["images"], key=lambda entry: entry["id"])
        loaded = [_loaded(entry, of_image[entry["id"]], places, images, split, side) for entry in listed]
    except (KeyError, TypeError) as cause:
        raise BadInputError(
            "This is not a COCO instances file.",
            where=str(instances),
            expected="images, categories and annotations that refer to them",
            found=f"{type(cause).__name__}: {cause}",
        ) from cause
    return gathered(loaded, [entry["name"] for entry in categories], str(instances))


def _loaded(
    entry: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    places: Mapping[int, int],
    images: Path,
    split: str,
    side: int,
) -> Loaded:
    height, width = entry["height"], entry["width"]
    masks: dict[int, Mask] = {}
    crowd = np.zeros((height, width), dtype=np.bool_)
    for annotation in annotations:
        mask = decode_segmentation(annotation["segmentation"], height, width, where=f"annotation {annotation['id']}")
        if annotation.get("iscrowd"):
            crowd |= mask
        else:
            kind = places[annotation["category_id"]]
            masks[kind] = masks[kind] | mask if kind in masks else mask
    for mask in masks.values():
        crowd &= ~mask
    small = {kind: nearest(mask, side, side) for kind, mask in masks.items()}
    pixels = decode_image(images / entry["file_name"], side, side)
    return Loaded(entry["file_name"], pixels, frozenset(masks), split, small, nearest(crowd, side, side))


def decode_segmentation(segmentation: Any, height: int, width: int, *, where: str) -> Mask:
    """One instance's mask, bool [height, width].

    Raises:
        BadInputError: The form is unknown, or the runs do not fill the image.
    """
    if isinstance(segmentation, list):
        return _filled(segmentation, height, width, where)
    if not isinstance(segmentation, dict) or list(segmentation.get("size", ())) != [height, width]:
        raise BadInputError(
            "A segmentation cannot be read.",
            where=where,
            expected=f"polygons, or runs of size [{height}, {width}]",
            found=str(segmentation)[:80],
        )
    counts = segmentation["counts"]
    runs = compressed_counts(counts, where=where) if isinstance(counts, str) else counts
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise BadInputError(
            "The runs of a segmentation do not fill its image.",
            where=where,
            expected=str(height * width),
            found=str(sum(runs)),
        )
    filled = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(filled.reshape(width, height).T)


def _filled(polygons: Sequence[Sequence[float]], height: int, width: int, where: str) -> Mask:
    canvas = Image.new("1", (width, height))
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise BadInputError(
                "A polygon cannot be filled.", where=where, expected="x, y of three points or more", found=str(polygon)
            )
        # Coordinates are corners of pixels, Pillow's are centres.
        ImageDraw.Draw(canvas).polygon([value - 0.5 for value in polygon], fill=1, outline=1)
    return np.asarray(canvas, dtype=np.bool_)


def compressed_counts(text: str, *, where: str = "counts") -> list[int]:
    """Run lengths from COCO's text: numbers in groups of five bits, low first, each in one character from "0" on.

    Bit 5 says that a group follows, bit 4 of the last group is the sign. From the fourth number on, a number is the
    difference to the one two before.

    Raises:
        BadInputError: A character is outside the code, or the text ends within a number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise BadInputError("Compressed runs hold a strange character.", where=where, found=repr(character))
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise BadInputError("Compressed runs end within a number.", where=where, found=text[-8:])
    return counts
