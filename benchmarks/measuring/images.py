"""Images that measurements run on: real ones where they lie beside the checkout, otherwise the demo's drawn ones."""

from __future__ import annotations

import json
import random
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from edgekit.demo.images import draw_image
from edgekit.images.imageset import read_unlabelled
from edgekit.images.views import ImageView

__all__ = ["SHARED", "ImageFolder", "image_folder"]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
_DRAWN = "drawn by edgekit demo"
_CIFAR_CLASSES = 10


@dataclass(frozen=True)
class ImageFolder:
    """Images on disk.

    Attributes:
        view: The images.
        source: Where they come from, for the text beside a table.
    """

    view: ImageView
    source: str


def image_folder(name: str, count: int, work: Path, shared: Path = SHARED) -> ImageFolder:
    """`count` images called `name`, "camvid-crops" or "cifar10", unpacked into `work` unless they lie there.

    Where `shared` does not hold them, the demo's drawn images stand in.
    """
    archive = shared / {"camvid-crops": "camvid-crops/camvid-crops.tar", "cifar10": "cifar10/test.tar.gz"}[name]
    kind = name if archive.is_file() else "drawn"
    folder = work / f"{kind}-{count}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=work) as unfinished:
            filled = Path(unfinished) / "images"
            filled.mkdir()
            _fill(filled, kind, archive, count)
            # Whole or not at all, and another process that was faster has the same images.
            try:
                filled.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    source = {"camvid-crops": "CamVid street scenes", "cifar10": "CIFAR-10 test images", "drawn": _DRAWN}[kind]
    return ImageFolder(ImageView(read_unlabelled(folder).items).first(count), source)


def _fill(folder: Path, kind: str, archive: Path, count: int) -> None:
    if kind == "drawn":
        for index in range(count):
            Image.fromarray(draw_image(0, "broad", index).pixels).save(folder / f"{index:05}.png")
        return
    names = list(_camvid_names(archive, count) if kind == "camvid-crops" else _cifar_names(archive, count))
    # In an order of their own, so that the first images and the last ones are of all kinds.
    random.Random(0).shuffle(names)
    places = {member: index for index, member in enumerate(names)}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name in places:
                member.name = f"{places[member.name]:05}{Path(member.name).suffix}"
                tar.extract(member, folder, filter="data")


def _camvid_names(archive: Path, count: int) -> Iterator[str]:
    # Evenly over the set: neighbouring windows are cut from neighbouring frames of one video.
    items = json.loads((archive.parent / "labels.json").read_text(encoding="utf-8"))["items"]
    return (items[index * len(items) // count]["image"] for index in range(count))


def _cifar_names(archive: Path, count: int) -> Iterator[str]:
    taken: dict[str, int] = {}
    each = -(-count // _CIFAR_CLASSES)
    with tarfile.open(archive) as tar:
        for member in tar:
            label = member.name.split("/")[1] if member.isfile() else ""
            if label and taken.get(label, 0) < each:
                taken[label] = taken.get(label, 0) + 1
                yield member.name
