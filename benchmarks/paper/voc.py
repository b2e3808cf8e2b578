"""PASCAL VOC, in the folders it is published in: VOCdevkit/VOC2012.

`JPEGImages/<id>.jpg`, `SegmentationClass/<id>.png` (a palette image whose values are classes, 0 background, 255 the
void border), `Annotations/<id>.xml`, and `ImageSets/{Main,Segmentation}/<split>.txt`.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from edgekit.errors import BadInputError
from edgekit.images.decode import decode_image
from paper.masked_images import Loaded, Mask, MaskedImages, gathered, nearest

__all__ = ["VOC_CLASSES", "load_voc"]

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_VOID = 255


def load_voc(
    root: Path, split: str, side: int, *, image_set: str = "Segmentation", void: str = "ignore"
) -> MaskedImages:
    """Images of VOC with their masks.

    Args:
        root: The folder that holds JPEGImages.
        split: "train", "val" or "trainval".
        side: Height and width of the images in the result; the aspect is not kept.
        image_set: "Segmentation": classes are those of the masks. "Main": classes are those of the annotated objects,
            difficult ones included, as in the paper's training; there are no masks.
        void: What the border around objects is: "ignore", not scored, or "background", as in the released code.

    Raises:
        BadInputError: A file is missing or is not what VOC says.
    """
    if void not in ("ignore", "background"):
        raise BadInputError("The void border cannot be read so.", expected="ignore or background", found=void)
    listing = root / "ImageSets" / image_set / f"{split}.txt"
    if not listing.is_file():
        raise BadInputError("This is not a VOC folder.", where=str(listing), expected="a list of images")
    names = [line.split()[0] for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    reader = _with_mask if image_set == "Segmentation" else _with_objects
    return gathered((reader(root, name, split, side, void) for name in names), VOC_CLASSES, str(listing))


def _with_mask(root: Path, name: str, split: str, side: int, void: str) -> Loaded:
    path = root / "SegmentationClass" / f"{name}.png"
    if not path.is_file():
        raise BadInputError("An image has no mask.", where=str(path))
    with Image.open(path) as opened:
        if opened.mode not in ("P", "L"):
            raise BadInputError("A mask is no palette image.", where=str(path), expected="mode P", found=opened.mode)
        full = np.asarray(opened)
    strange = sorted({int(value) for value in np.unique(full)} - {*range(len(VOC_CLASSES) + 1), _VOID})
    if strange:
        raise BadInputError(
            "A mask holds a value that is no class.", where=str(path), expected="0 to 20, or 255", found=str(strange)
        )
    values = nearest(full, side, side)
    # A class too small to survive the resizing is in the image all the same.
    present = frozenset(int(value) - 1 for value in np.unique(full) if value not in (0, _VOID))
    masks: dict[int, Mask] = {kind: values == kind + 1 for kind in present}
    ignored: Mask | None = values == _VOID if void == "ignore" else None
    return Loaded(name, _pixels(root, name, side), present, split, masks, ignored)


def _with_objects(root: Path, name: str, split: str, side: int, void: str) -> Loaded:
    del void
    path = root / "Annotations" / f"{name}.xml"
    if not path.is_file():
        raise BadInputError("An image has no annotation.", where=str(path))
    named = {item.findtext("name", "") for item in ElementTree.parse(path).getroot().iter("object")}
    unknown = sorted(named - set(VOC_CLASSES))
    if unknown:
        raise BadInputError("An object is of no VOC class.", where=str(path), found=", ".join(unknown))
    return Loaded(name, _pixels(root, name, side), frozenset(map(VOC_CLASSES.index, named)), split)


def _pixels(root: Path, name: str, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return decode_image(root / "JPEGImages" / f"{name}.jpg", side, side)
