"""How labelled images lie in a folder: class folders, class folders under splits, or a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.files import foreign_os_errors, read_bytes
from edgekit.errors import BadInputError
from edgekit.images.decode import IMAGE_SUFFIXES

__all__ = ["LABELS_NAME", "SPLITS", "ListedImage", "list_images", "list_labelled"]

LABELS_NAME = "labels.csv"
SPLITS = ("train", "val", "test")

_REQUIRED, _OPTIONAL = ("image", "label"), ("split", "mask")
_SHOWN = 5
_LAYOUTS = (
    "DIR/<class>/*.png, DIR/{train,val,test}/<class>/*.png, "
    "or DIR/labels.csv with the columns image,label[,split][,mask]"
)


@dataclass(frozen=True)
class ListedImage:
    """A file that is said to be an image; nobody has looked inside yet.

    Attributes:
        path: Where it lies.
        name: The same, relative to the folder, with forward slashes.
        label: Class index, None where it is not known.
        split: "train", "val", "test", or None where nothing was said.
        mask: The file of its object mask, None where there is none.
    """

    path: Path
    name: str
    label: int | None = None
    split: str | None = None
    mask: Path | None = None


def list_labelled(folder: Path, classes: Sequence[str]) -> tuple[ListedImage, ...]:
    """List a folder's images with their labels, sorted by name.

    A `labels.csv` decides alone. Otherwise sub-folders that are all called train, val or test are splits (unless
    the classes are called so), and any other sub-folders are classes. Hidden folders, and files that do not have an
    image's suffix, are passed over.

    Raises:
        BadInputError: The folder is missing, holds no images or no labels, names classes the card does not have, or
            its table is malformed or points outside the folder.
    """
    if (folder / LABELS_NAME).is_file():
        return _from_table(folder, classes)
    folders = _subfolders(folder)
    if not folders:
        raise _nothing_usable(folder)
    if {item.name for item in folders} <= set(SPLITS) - set(classes):
        listed = [image for split in folders for image in _from_class_folders(split, folder, classes, split=split.name)]
    else:
        listed = _from_class_folders(folder, folder, classes, split=None)
    if not listed:
        raise _nothing_usable(folder)
    return tuple(sorted(listed, key=lambda image: image.name))


def list_images(folder: Path) -> tuple[ListedImage, ...]:
    """List a folder's images, flat or nested, without labels, sorted by name.

    A `labels.csv` says which files are images, so that masks beside them are not taken for some.

    Raises:
        BadInputError: The folder is missing, or holds no images.
    """
    if (folder / LABELS_NAME).is_file():
        rows = _read_table(folder / LABELS_NAME)
        paths = [_inside(folder, row["image"], line) for line, row in rows]
    else:
        _subfolders(folder)
        paths = _image_files(folder)
    if not paths:
        raise BadInputError("The folder holds no images.", where=str(folder), expected=" ".join(IMAGE_SUFFIXES))
    listed = {path.relative_to(folder).as_posix(): path for path in paths}
    return tuple(ListedImage(path, name) for name, path in sorted(listed.items()))


def _subfolders(folder: Path) -> list[Path]:
    with foreign_os_errors(folder, "read an image folder"):
        return sorted(item for item in folder.iterdir() if item.is_dir() and not _is_hidden(item.name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _image_files(folder: Path) -> list[Path]:
    with foreign_os_errors(folder, "read an image folder"):
        files = [item for item in folder.rglob("*") if item.suffix.lower() in IMAGE_SUFFIXES and item.is_file()]
    return [item for item in files if not any(_is_hidden(part) for part in item.relative_to(folder).parts)]


def _nothing_usable(folder: Path) -> BadInputError:
    flat = len(_image_files(folder))
    message = f"The folder holds {flat} images but no labels." if flat else "The folder holds no images."
    return BadInputError(message, where=str(folder), expected=_LAYOUTS)


def _from_class_folders(folder: Path, root: Path, classes: Sequence[str], *, split: str | None) -> list[ListedImage]:
    folders = _subfolders(folder)
    _check_names({item.name for item in folders}, classes, where=str(folder), what="folders")
    return [
        ListedImage(path, path.relative_to(root).as_posix(), classes.index(item.name), split)
        for item in folders
        for path in _image_files(item)
    ]


def _check_names(found: set[str], classes: Sequence[str], *, where: str, what: str) -> None:
    unknown = sorted(found - set(classes))
    if unknown:
        unused = [name for name in classes if name not in found]
        raise BadInputError(
            f"The {what} do not name the model's classes.",
            where=where,
            expected=_some(unused or classes),
            found=_some(unknown),
            hint="rename them, or correct the card's classes",
        )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(map(repr, listed[:_SHOWN])) + more


def _from_table(folder: Path, classes: Sequence[str]) -> tuple[ListedImage, ...]:
    table = folder / LABELS_NAME
    rows = _read_table(table)
    _check_names({row["label"] for _, row in rows}, classes, where=str(table), what="labels")
    _check_splits([row.get("split", "") for _, row in rows], table)
    listed: dict[str, ListedImage] = {}
    for line, row in rows:
        path = _inside(folder, row["image"], line)
        name = path.relative_to(folder).as_posix()
        if name in listed:
            raise BadInputError(
                "An image is listed twice.", where=f"{table}, line {line}", expected="one line an image", found=name
            )
        mask = _inside(folder, row["mask"], line) if row.get("mask") else None
        listed[name] = ListedImage(path, name, classes.index(row["label"]), row.get("split") or None, mask)
    if not listed:
        raise BadInputError("The table lists no images.", where=str(table), expected="one line an image")
    return tuple(image for _, image in sorted(listed.items()))


def _read_table(table: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows with their line numbers; every row has every column of the header."""
    try:
        lines = csv.reader(io.StringIO(read_bytes(table).decode("utf-8-sig"), newline=""), strict=True)
        header = next(lines, [])
        unknown = [name for name in header if name not in (*_REQUIRED, *_OPTIONAL)]
        if unknown or not set(_REQUIRED) <= set(header) or len(set(header)) != len(header):
            raise BadInputError(
                "The table's header is not as expected.",
                where=f"{table}, line 1",
                expected="image,label and, where wanted, split and mask",
                found=",".join(header)[:120] or "nothing",
            )
        rows = []
        for cells in lines:
            if cells and len(cells) != len(header):
                raise BadInputError(
                    "A line of the table has the wrong number of cells.",
                    where=f"{table}, line {lines.line_num}",
                    expected=str(len(header)),
                    found=str(len(cells)),
                )
            if cells:
                rows.append((lines.line_num, dict(zip(header, cells, strict=True))))
    except (UnicodeDecodeError, csv.Error) as cause:
        raise BadInputError(
            "The table is not comma-separated UTF-8 text.", where=str(table), found=str(cause)
        ) from cause
    return rows


def _check_splits(splits: Sequence[str], table: Path) -> None:
    unknown = sorted({split for split in splits if split and split not in SPLITS})
    if unknown:
        raise BadInputError(
            "The table names unknown splits.", where=str(table), expected=", ".join(SPLITS), found=_some(unknown)
        )
    unsaid = sum(not split for split in splits)
    if 0 < unsaid < len(splits):
        raise BadInputError(
            "The table names a split for some images only.",
            where=str(table),
            expected="a split on every line, or on none",
            found=f"{unsaid} of {len(splits)} lines without one",
        )


def _inside(folder: Path, entry: str, line: int) -> Path:
    """The file a table entry names; refused when it lies outside the folder, also through links."""
    path = Path(entry)
    inside = bool(entry) and "\0" not in entry and not path.is_absolute() and ".." not in path.parts
    if not inside or not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise BadInputError(
            "The table points outside its folder.",
            where=f"{folder / LABELS_NAME}, line {line}",
            expected="a path relative to the folder, without '..'",
            found=repr(entry)[:200],
        )
    return folder / path
