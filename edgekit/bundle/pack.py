"""A bundle as one file: the same bytes for the same bundle, whoever packs it and when."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from edgekit.bundle.folder import check_folder, read_envelope
from edgekit.bundle.layout import ENVELOPE, MANIFEST
from edgekit.bundle.ustar import END_OF_ARCHIVE, member_order, padding_after, ustar_header
from edgekit.core.files import STAGING_PREFIX, foreign_os_errors
from edgekit.core.stages import FileRef
from edgekit.errors import IntegrityError

__all__ = ["write_tar"]

_CHUNK = 1024 * 1024


def write_tar(folder: Path, tar_path: Path) -> None:
    """Pack a bundle's folder into an uncompressed tar file, atomically.

    Args:
        folder: A sound bundle; it is checked first.
        tar_path: The file to write, ending in ".tar"; an older one is replaced.

    Raises:
        BadInputError: `folder` is not a bundle, or the file cannot be written.
        IntegrityError: The bundle is damaged.
        UnavailableError: The disk is full.
    """
    manifest = check_folder(folder)
    encoded, envelope = manifest.to_bytes(), read_envelope(folder)
    temporary = tar_path.with_name(f"{STAGING_PREFIX}{os.getpid()}-{tar_path.name}")
    with foreign_os_errors(tar_path, "write a bundle's tar file"):
        tar_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as output:
                output.write(_whole(MANIFEST, encoded))
                for name in member_order(manifest.files):
                    _append(folder, name, manifest.files[name], output)
                if envelope is not None:
                    output.write(_whole(ENVELOPE, envelope))
                output.write(END_OF_ARCHIVE)
                output.flush()
                os.fsync(output.fileno())
            temporary.replace(tar_path)
        finally:
            temporary.unlink(missing_ok=True)


def _whole(name: str, content: bytes) -> bytes:
    return ustar_header(name, len(content)) + content + padding_after(len(content))


def _append(folder: Path, name: str, ref: FileRef, output: BinaryIO) -> None:
    digest = hashlib.sha256()
    output.write(ustar_header(name, ref.size))
    with (folder / name).open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            output.write(chunk)
    if digest.hexdigest() != ref.sha256:
        raise IntegrityError("A file of the bundle changed while it was packed.", where=str(folder / name))
    output.write(padding_after(ref.size))
