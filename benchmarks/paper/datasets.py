"""The data sets of the tables, and folders of one's own: name to images with masks.

`camvid` (street scenes) and `busi` (breast ultrasound) are the shared archives, `cifar10` has no masks. VOC and COCO
have loaders of their own beside this module.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from edgekit.errors import BadInputError
from edgekit.images.decode import decode_image
from edgekit.images.imageset import load_masks, load_pixels, read_imageset
from paper.masked_images import Loaded, MaskedImages, gathered, nearest

__all__ = ["DATASETS", "load_busi", "load_camvid", "load_cifar10", "load_folder"]

CAMVID_CLASSES = ("none", "car", "pedestrian", "bicyclist")
BUSI_CLASSES = ("normal", "benign", "malignant")
# Training images of each class, and test images: all 60,000 take minutes to decode and are never all used.
_CIFAR_EACH = MappingProxyType({"train": 1500, "test": 100})


def load_folder(folder: Path, classes: Sequence[str], side: int) -> MaskedImages:
    """A folder as edgekit reads them: class folders, under splits or not, or a labels.csv with image, label and mask.

    Images without a split are called "test".
    """
    items = read_imageset(folder, classes).items
    pixels, masks = load_pixels(items, side, side), load_masks(items, side, side)

    def images() -> Iterator[Loaded]:
        for item, image, mask in zip(items, pixels, masks, strict=True):
            present = frozenset() if item.label is None else frozenset({item.label})
            yield Loaded(item.name, image, present, item.split or "test", dict.fromkeys(present, mask))

    return gathered(images(), classes, str(folder))


def load_camvid(shared: Path, side: int) -> MaskedImages:
    """Windows of street scenes; the mask is that of the labelled object. Windows without an object have none."""

    def images() -> Iterator[Loaded]:
        for item, image, mask in _archived(shared / "camvid-crops", "camvid-crops.tar"):
            kind = int(item["label"])
            masks = {kind: nearest(_values(mask) == item["mask_value"], side, side)} if "mask_value" in item else {}
            pixels = decode_image(image, side, side)
            yield Loaded(item["image"], pixels, frozenset({kind}), item["split"], masks)

    return gathered(images(), CAMVID_CLASSES, str(shared / "camvid-crops"))


def load_busi(shared: Path, side: int) -> MaskedImages:
    """Breast ultrasound; the mask is that of the lesions, and normal images have none.

    Raises:
        BadInputError: Near-duplicates (one `group`) are in two splits: what is measured would have been seen.
    """
    splits: dict[int, str] = {}

    def images() -> Iterator[Loaded]:
        for item, image, mask in _archived(shared / "busi", "busi.tar"):
            if splits.setdefault(item["group"], item["split"]) != item["split"]:
                raise BadInputError("A group of near-duplicates crosses splits.", found=f"group {item['group']}")
            kind = int(item["label"])
            lesion = nearest(_values(mask) != 0, side, side)
            yield Loaded(
                item["image"], decode_image(image, side, side), frozenset({kind}), item["split"], {kind: lesion}
            )

    return gathered(images(), BUSI_CLASSES, str(shared / "busi"))


def load_cifar10(shared: Path, side: int) -> MaskedImages:
    """The first images of each class of the JPEG copy of CIFAR-10, without masks."""

    def images() -> Iterator[Loaded]:
        for split, each in _CIFAR_EACH.items():
            taken = [0] * len(classes)
            with tarfile.open(shared / "cifar10" / f"{split}.tar.gz") as tar:
                for member in tar:
                    kind = classes.index(member.name.split("/")[1]) if member.isfile() else -1
                    if kind < 0 or taken[kind] == each:
                        continue
                    taken[kind] += 1
                    stream = tar.extractfile(member)
                    assert stream is not None
                    yield Loaded(member.name, decode_image(stream.read(), side, side), frozenset({kind}), split)

    card = json.loads((shared / "models" / "cifar10-resnet20.json").read_text(encoding="utf-8"))
    classes = card["classes"]
    return gathered(images(), classes, str(shared / "cifar10"))


def _archived(folder: Path, archive: str) -> Iterator[tuple[Mapping[str, object] | dict, bytes, bytes]]:
    """Items of `labels.json` with the bytes of image and mask."""
    items = json.loads((folder / "labels.json").read_text(encoding="utf-8"))["items"]
    with tarfile.open(folder / archive) as tar:
        for item in items:
            streams = [tar.extractfile(item[what]) for what in ("image", "mask")]
            image, mask = (stream.read() for stream in streams if stream is not None)
            yield item, image, mask


def _values(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened)


DATASETS: Mapping[str, Callable[[Path, int], MaskedImages]] = MappingProxyType(
    {"busi": load_busi, "camvid": load_camvid, "cifar10": load_cifar10}
)
