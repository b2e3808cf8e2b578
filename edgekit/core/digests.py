"""SHA-256 digests of bytes, files, folders and arrays: the names by which stages know their inputs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.core.files import STAGING_PREFIX, foreign_os_errors

__all__ = ["digest_array", "digest_bytes", "digest_file", "digest_path"]

_CHUNK = 1024 * 1024


def digest_bytes(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces so that memory stays flat."""
    digest = hashlib.sha256()
    with foreign_os_errors(path, "read a file"), path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_path(path: Path) -> str:
    """SHA-256 of a file, or of a folder: of the sorted list of its files' relative names and digests."""
    if not path.is_dir():
        return digest_file(path)
    digest = hashlib.sha256(b"edgekit.tree/1\n")
    files = (item for item in path.rglob("*") if item.is_file() and not item.name.startswith(STAGING_PREFIX))
    names = sorted((os.fsencode(item.relative_to(path).as_posix()), item) for item in files)
    for name, item in names:
        # Closed by the one character that no file name holds, so that no name can play the part of two.
        digest.update(digest_file(item).encode() + b" " + name + b"\0")
    return digest.hexdigest()


def digest_array(array: npt.NDArray[Any]) -> str:
    """SHA-256 over dtype, shape and C-ordered little-endian content, so equal arrays share one digest."""
    plain = np.ascontiguousarray(array)
    plain = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    # The shape as given: a contiguous copy of a single number has one axis.
    header = f"edgekit.array/1 {plain.dtype.str} {array.shape}\n".encode()
    return digest_bytes(header + plain.tobytes())
