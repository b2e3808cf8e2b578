"""Whether a folder is, file by file, what its manifest says."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgekit.bundle.layout import ENVELOPE, GOLDEN_INDEX, MANIFEST, MAX_ENVELOPE_BYTES, MODEL
from edgekit.bundle.manifest import Manifest
from edgekit.core.digests import digest_file
from edgekit.core.files import foreign_os_errors, read_bytes
from edgekit.core.stages import FileRef
from edgekit.errors import BadInputError, IntegrityError

__all__ = ["MAX_MANIFEST_BYTES", "check_content", "check_folder", "check_own_file", "not_a_bundle", "read_envelope"]

MAX_MANIFEST_BYTES = 4 * 1024 * 1024


def not_a_bundle(path: Path, found: str) -> BadInputError:
    """The error for a path that never was a bundle, as opposed to one that was damaged."""
    return BadInputError(
        "This is not an edgekit bundle.",
        where=str(path),
        expected=f"a folder with {MANIFEST}, or a .tar file that 'edgekit bundle' wrote",
        found=found,
    )


def check_folder(folder: Path) -> Manifest:
    """Check every byte of a bundle's folder against its manifest.

    Raises:
        BadInputError: `folder` is not a bundle, or a file cannot be read.
        IntegrityError: A file is missing, extra, changed, or no plain file of its own; or the manifest is not sound.
    """
    manifest = _read_manifest(folder)
    files = {MANIFEST, *manifest.files}
    folders = {parent.as_posix() for name in files for parent in Path(name).parents if parent != Path()}
    found = set()
    with foreign_os_errors(folder, "read a bundle"):
        for name, entry in _walk(folder):
            if entry.is_dir(follow_symlinks=False):
                if name not in folders:
                    raise _extra(folder, name)
                continue
            if name not in files and name != ENVELOPE:
                raise _extra(folder, name)
            check_own_file(folder / name)
            found.add(name)
    for name in sorted(files - found):
        raise IntegrityError("A file of the bundle is missing.", where=str(folder / name))
    for name, ref in sorted(manifest.files.items()):
        check_content(folder / name, ref)
    read_envelope(folder)
    return manifest


def read_envelope(folder: Path) -> bytes | None:
    """The signed statement that lies in a bundle's folder, or None; what it says is `edgekit.signing`'s question.

    Raises:
        BadInputError: It cannot be read.
        IntegrityError: No plain file of its own, or of a size that no envelope has.
    """
    path = folder / ENVELOPE
    if not os.path.lexists(path):
        return None
    with foreign_os_errors(path, "read a bundle"):
        check_own_file(path)
        with path.open("rb") as stream:
            data = stream.read(MAX_ENVELOPE_BYTES + 1)
    if not 0 < len(data) <= MAX_ENVELOPE_BYTES:
        raise IntegrityError(
            "A bundle's envelope has an impossible size.",
            where=str(path),
            expected=f"1 to {MAX_ENVELOPE_BYTES} bytes",
            found=f"{len(data)} bytes" if not data else "more",
        )
    return data


def check_own_file(path: Path) -> None:
    """Refuse whatever could be changed from, or lead to, outside the bundle.

    Raises:
        IntegrityError: A link, a device, or a file that has a second name elsewhere.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise IntegrityError("A bundle holds something that is not a plain file.", where=str(path))
    if status.st_nlink != 1:
        raise IntegrityError(
            "A file of the bundle is hard-linked: writing to its other name would change it after it was checked.",
            where=str(path),
            found=f"{status.st_nlink} names",
            hint="copy the bundle, which gives it files of its own",
        )


def check_content(path: Path, ref: FileRef) -> None:
    """Compare one file with its entry in the manifest. Raises `IntegrityError` when size or SHA-256 differ."""
    with foreign_os_errors(path, "read a bundle"):
        size = path.stat().st_size
    if size != ref.size:
        raise IntegrityError(
            "A file of the bundle was changed.", where=str(path), expected=f"{ref.size} bytes", found=f"{size} bytes"
        )
    found = digest_file(path)
    if found != ref.sha256:
        raise IntegrityError(
            "A file of the bundle was changed.",
            where=str(path),
            expected=f"SHA-256 {ref.sha256}",
            found=f"SHA-256 {found}",
        )


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise not_a_bundle(folder, "no folder")
    if not os.path.lexists(path):
        if any((folder / name).exists() for name in (MODEL, GOLDEN_INDEX)):
            raise IntegrityError("A bundle has lost its manifest.", where=str(path))
        raise not_a_bundle(folder, f"a folder without {MANIFEST}")
    with foreign_os_errors(path, "read a bundle"):
        check_own_file(path)
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise IntegrityError(
                "A bundle's manifest is implausibly large.",
                where=str(path),
                expected=f"at most {MAX_MANIFEST_BYTES} bytes",
            )
    return Manifest.from_bytes(read_bytes(path), where=str(path))


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every entry below `folder` with its path from there; links are named, never followed."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            name = f"{prefix}{entry.name}"
            yield name, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(folder / entry.name, f"{name}/")


def _extra(folder: Path, name: str) -> IntegrityError:
    return IntegrityError(
        "A bundle holds something its manifest does not name.",
        where=str(folder),
        found=ascii(name),
        hint="results belong beside a bundle, not inside it",
    )
