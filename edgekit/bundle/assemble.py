"""The bundle stage: put the pieces of a release into one folder that can be checked byte by byte."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edgekit import __version__
from edgekit.attribution.spec import MapSpec
from edgekit.bundle.folder import check_folder
from edgekit.bundle.layout import ENVELOPE, MANIFEST
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.names import check_names
from edgekit.core.files import atomic_directory, foreign_os_errors, write_bytes
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.core.stages import FileRef
from edgekit.errors import BadInputError, DefectError, IntegrityError
from edgekit.interface.card import ModelCard

__all__ = ["BundleRequest", "bundle", "check_replaceable", "contents_from_folder"]

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class BundleRequest:
    """What goes into a bundle; see `Manifest` for the fields of the same names.

    Attributes:
        target: Name of the target.
        engine: Registry name of the engine.
        precision: "int8", "fp16" or "fp32".
        status: "released", "blocked", "inconclusive" or "unverified".
        card: The student's card, equal to the one in the golden set.
        map_spec: What the maps are.
        contents: Bundle path (see `layout`) to the file that is copied there, or to its bytes.
        lineage: Name to SHA-256 of what the bundle came from.
    """

    target: str
    engine: str
    precision: str
    status: str
    card: ModelCard
    map_spec: MapSpec
    contents: Mapping[str, Path | bytes]
    lineage: Mapping[str, str] = field(default_factory=dict)


def contents_from_folder(prefix: str, folder: Path) -> dict[str, Path]:
    """Every file below `folder` under `prefix` in the bundle, such as "golden"."""
    with foreign_os_errors(folder, "read a folder"):
        return {
            f"{prefix}/{path.relative_to(folder).as_posix()}": path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def bundle(request: BundleRequest, destination: Path, observer: Observer = NULL_OBSERVER) -> Manifest:
    """Write a bundle.

    Args:
        request: What goes in.
        destination: The folder to make; an older bundle there is replaced as a whole.
        observer: Told about each file.

    Returns:
        The manifest, also stored in the folder as its last file.

    Raises:
        BadInputError: A name is unsafe, a required file is not among the contents or cannot be read, or something
            that is not a bundle stands at `destination`.
        UnavailableError: The disk is full.
    """
    check_replaceable(destination)
    try:
        check_names([MANIFEST, ENVELOPE, *request.contents], where="the request")
    except IntegrityError as cause:
        raise _refused(cause) from cause
    with atomic_directory(destination) as staging:
        files = {
            name: _store(source, staging / name)
            for name, source in track(sorted(request.contents.items()), "bundle", observer)
        }
        manifest = _manifest(request, files)
        write_bytes(staging / MANIFEST, manifest.to_bytes())
        _check_written(staging)
    return manifest


def check_replaceable(destination: Path) -> None:
    """Refuse to put a bundle where it would wipe out something else.

    Raises:
        BadInputError: `destination` is a file, or a folder that holds anything but a bundle.
    """
    with foreign_os_errors(destination, "use the output folder"):
        replaceable = not os.path.lexists(destination) or (
            destination.is_dir()
            and not destination.is_symlink()
            and ((destination / MANIFEST).is_file() or not any(destination.iterdir()))
        )
    if not replaceable:
        raise BadInputError(
            "A bundle would replace something that is not a bundle.",
            where=str(destination),
            expected="no such path, an empty folder or an older bundle",
            hint="choose another place with --output",
        )


def _manifest(request: BundleRequest, files: Mapping[str, FileRef]) -> Manifest:
    manifest = Manifest(
        created_with=__version__,
        target=request.target,
        engine=request.engine,
        precision=request.precision,
        status=request.status,
        card=request.card,
        map_spec=request.map_spec,
        lineage=dict(request.lineage),
        files=files,
    )
    # Nothing is written that our own reader would refuse; its checks are the only ones.
    try:
        return Manifest.from_bytes(manifest.to_bytes(), where="the request")
    except IntegrityError as cause:
        raise _refused(cause) from cause


def _refused(cause: IntegrityError) -> BadInputError:
    return BadInputError(
        f"A bundle cannot be made of this. {cause.message}",
        where=cause.where,
        expected=cause.expected,
        found=cause.found,
    )


def _store(source: Path | bytes, target: Path) -> FileRef:
    """Copy one file, with the digest of what was really written."""
    if isinstance(source, bytes):
        return _copy(io.BytesIO(source), target)
    with foreign_os_errors(source, "read a file for the bundle"), source.open("rb") as stream:
        return _copy(stream, target)


def _copy(stream: BinaryIO, target: Path) -> FileRef:
    digest, size = hashlib.sha256(), 0
    with foreign_os_errors(target, "write a file of the bundle"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as output:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                output.write(chunk)
    # Not flushed to the disk one by one: after a power cut the digests tell a torn file from a whole one.
    return FileRef(digest.hexdigest(), size)


def _check_written(staging: Path) -> None:
    try:
        check_folder(staging)
    except IntegrityError as cause:
        raise DefectError(
            "A bundle that was just written does not pass its own check.", where=cause.where, found=cause.message
        ) from cause
