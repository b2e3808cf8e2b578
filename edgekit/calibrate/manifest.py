"""A calibration set written down: which files, by digest, with what labels, and why each of them.

The images themselves stay where they are. Whoever has them finds the same set again, by content and not by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.core.canonical import JsonValue, dump_canonical, parse_strict, write_json
from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.errors import BadInputError, IntegrityError
from edgekit.images.decode import check_image
from edgekit.images.imageset import ImageItem
from edgekit.images.layouts import ListedImage, list_images

if TYPE_CHECKING:
    # A set is read where there is no onnx.
    from edgekit.calibrate.selection import ChosenImage

__all__ = [
    "SET_NAME",
    "CalibrationManifest",
    "ManifestImage",
    "given_set",
    "items_of_manifest",
    "manifest_of",
    "read_manifest",
    "refuse_leak",
    "write_manifest",
]

SET_NAME = "calibration-set.json"
_FORMAT = "edgekit.calibration-set/1"
_SHOWN = 3


@dataclass(frozen=True)
class ManifestImage:
    """One image of a set.

    Attributes:
        name: Relative to the folder it was chosen from, with forward slashes. For people; the digest decides.
        digest: SHA-256 of the file.
        label: Class index, None where it is not known.
        why: Why it was chosen.
    """

    name: str
    digest: str
    label: int | None
    why: str


@dataclass(frozen=True)
class CalibrationManifest:
    """A calibration set, in the order in which its images calibrate.

    Attributes:
        selection: How it was chosen, one of `options.SELECTIONS`.
        images: At least one. No name and no digest comes twice.
    """

    selection: str
    images: tuple[ManifestImage, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each image file."""
        return tuple(image.digest for image in self.images)

    @property
    def digest(self) -> str:
        """SHA-256 over all that the set says, names and reasons included."""
        return digest_bytes(dump_canonical(self._content()))

    def to_dict(self) -> dict[str, JsonValue]:
        """JSON-ready form."""
        return {"format": _FORMAT, "digest": self.digest, **self._content()}

    def _content(self) -> dict[str, JsonValue]:
        return {"selection": self.selection, "images": [dict(vars(image)) for image in self.images]}

    @classmethod
    def from_dict(cls, raw: Any, *, where: str) -> CalibrationManifest:
        """Check and build a set from untrusted data. Raises `IntegrityError` saying which entry is wrong."""
        _require(isinstance(raw, dict), where, "a mapping", raw)
        _require(raw.get("format") == _FORMAT, f"{where}: format", _FORMAT, raw.get("format"))
        _require(set(raw) == {"format", "digest", "selection", "images"}, where, "the keys of the format", sorted(raw))
        _require(isinstance(raw["selection"], str), f"{where}: selection", "text", raw["selection"])
        listed = raw["images"]
        _require(isinstance(listed, list) and len(listed) > 0, f"{where}: images", "a list of images", listed)
        images = tuple(_image(item, f"{where}: images[{index}]") for index, item in enumerate(listed))
        for key in ("name", "digest"):
            repeated = [value for value, times in Counter(getattr(image, key) for image in images).items() if times > 1]
            _require(not repeated, f"{where}: images", f"each {key} once", repeated)
        found = cls(raw["selection"], images)
        _require(raw["digest"] == found.digest, f"{where}: digest", found.digest, raw["digest"])
        return found


def _image(raw: Any, where: str) -> ManifestImage:
    keys = {"name", "digest", "label", "why"}
    _require(isinstance(raw, dict) and set(raw) == keys, where, "the keys " + ", ".join(sorted(keys)), raw)
    for key in ("name", "digest", "why"):
        _require(isinstance(raw[key], str), f"{where}.{key}", "text", raw[key])
    sound = len(raw["digest"]) == 64 and set(raw["digest"]) <= set("0123456789abcdef")
    _require(sound, f"{where}.digest", "64 hexadecimal digits", raw["digest"])
    label = raw["label"]
    _require(label is None or (type(label) is int and label >= 0), f"{where}.label", "a class index or null", label)
    return ManifestImage(raw["name"], raw["digest"], label, raw["why"])


def _require(holds: bool, where: str, expected: str, found: object) -> None:
    if not holds:
        raise IntegrityError(
            "The description of a calibration set is malformed.",
            where=where,
            expected=expected,
            found=repr(found)[:200],
        )


def manifest_of(chosen: Sequence[ChosenImage], selection: str) -> CalibrationManifest:
    """Write a choice down.

    Args:
        chosen: The images, with the reasons for them. Of copies of one file the first one stays.
        selection: How they were chosen.
    """
    single: dict[str, ChosenImage] = {}
    for entry in chosen:
        single.setdefault(entry.item.digest, entry)
    images = tuple(
        ManifestImage(entry.item.name, digest, entry.item.label, entry.why) for digest, entry in single.items()
    )
    return CalibrationManifest(selection, images)


def write_manifest(path: Path, manifest: CalibrationManifest) -> None:
    """Store a set as canonical JSON, atomically."""
    write_json(path, manifest.to_dict())


def read_manifest(path: Path) -> CalibrationManifest:
    """Read a stored set. Raises `IntegrityError` when it is malformed, `BadInputError` when it cannot be read."""
    return CalibrationManifest.from_dict(parse_strict(read_bytes(path), where=str(path)), where=str(path))


def items_of_manifest(
    manifest: CalibrationManifest, folder: Path, observer: Observer = NULL_OBSERVER
) -> tuple[ImageItem, ...]:
    """Find every image of a set in a folder, by content: files may have been moved and renamed.

    Args:
        manifest: The set.
        folder: Folder of images, flat or nested. Names are looked up in its listing and never followed out of it.
        observer: Told of the progress.

    Returns:
        The images in the set's order, with its labels.

    Raises:
        BadInputError: An image is missing, or changed, or cannot be decoded; the first few are named.
    """
    listed = {image.name: image for image in list_images(folder)}
    wanted = set(manifest.digests)
    named = [listed[image.name] for image in manifest.images if image.name in listed]
    found = _by_digest(named, wanted, observer)
    if wanted - set(found):
        seen = {image.name for image in named}
        others = [image for name, image in listed.items() if name not in seen]
        found = _by_digest(others, wanted, observer) | found
    lost = [
        f"{image.name} ({'changed' if image.name in listed else 'missing'})"
        for image in manifest.images
        if image.digest not in found
    ]
    if lost:
        raise BadInputError(
            "Images of the calibration set are not in the folder as they were.",
            where=str(folder),
            expected=f"{len(manifest.images)} images by digest",
            found=f"{len(lost)} of them not: " + _some(lost),
            hint="name the folder that they lie in now with --root, or choose a new set",
        )
    return tuple(
        ImageItem(found[image.digest].path, found[image.digest].name, image.label, None, None, image.digest)
        for image in manifest.images
    )


def given_set(
    calib: Path | None, root: Path | None, otherwise: Path, observer: Observer = NULL_OBSERVER
) -> tuple[CalibrationManifest, tuple[ImageItem, ...]] | None:
    """The set in a file, with its images; None where `calib` is no file, and so names a folder to choose from.

    Args:
        calib: File of a set, or folder of images; None where nothing was said.
        root: Folder that the set's images lie in, where somebody said so.
        otherwise: The folder where nobody did.
        observer: Told of the progress.

    Raises:
        BadInputError: There is a root and no set whose images it could hold; or as `items_of_manifest`.
        IntegrityError: The set is malformed.
    """
    if calib is None or not calib.is_file():
        if root is not None:
            raise BadInputError(
                "A folder for a calibration set's images was named, and no set.",
                where=str(root),
                expected=f"the file of a set, such as {SET_NAME}, as calibration images",
                found="none" if calib is None else f"{calib}, which is no file",
                hint="give the set with --calib, or the folder itself with --calib and no --root",
            )
        return None
    manifest = read_manifest(calib)
    return manifest, items_of_manifest(manifest, otherwise if root is None else root, observer)


def _by_digest(files: Sequence[ListedImage], wanted: Collection[str], observer: Observer) -> dict[str, ListedImage]:
    """Those of the files that are wanted, decoded once, the first of several copies."""
    found: dict[str, ListedImage] = {}
    for image in track(files, "calibrate: finding images", observer):
        data = read_bytes(image.path)
        digest = digest_bytes(data)
        if digest in wanted and digest not in found:
            check_image(data)
            found[digest] = image
    return found


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...


def refuse_leak(images: Iterable[_Named], golden: Collection[str], *, hint: str) -> None:
    """Raise `BadInputError` where images, such as a manifest's, are also in the golden set.

    Args:
        images: What calibrates.
        golden: Digests of the golden set's files.
        hint: What to do about it.
    """
    held_out = frozenset(golden)
    leaked = [image.name for image in images if image.digest in held_out]
    if leaked:
        raise BadInputError(
            "Calibration images are also in the golden set, which must stay unseen.",
            found=f"{len(leaked)} images, such as " + _some(leaked),
            hint=hint,
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
