"""Timing caches: what the builder measured of kernels, kept from build to build.

One file for each (TensorRT, compute capability, device, power mode): a time taken in another mode picks wrong kernels.
A cache steadies which kernels are chosen; it does not promise the same plan twice (TensorRT issue 4798). A damaged one
makes TensorRT log a warning and go on without it; so each file begins with the digest of the rest, and a damaged file
is told of and replaced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.core.digests import digest_bytes
from edgekit.core.files import foreign_os_errors, read_bytes, write_bytes

__all__ = ["cache_folder", "cache_path", "read_cache", "update_cache"]

_LINE = re.compile(rb"[0-9a-f]{64}\n")
_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")


def cache_folder() -> Path:
    """Where caches lie unless an option says otherwise: under the user's cache folder (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "edgekit" / "tensorrt-timing"


def cache_path(folder: Path, parts: tuple[str, ...]) -> Path:
    """The file for a TensorRT, compute capability, device and power mode; every part is made fit for a file name."""
    names = (_UNSAFE.sub("-", part).strip("-") or "none" for part in parts)
    return folder / f"{'_'.join(names)}.timing"


def read_cache(path: Path) -> tuple[bytes, str]:
    """The cache, empty where there is none yet; and what is wrong with the file, empty where nothing is."""
    if not path.is_file():
        return b"", ""
    data = read_bytes(path)
    line, blob = data[:65], data[65:]
    if not _LINE.fullmatch(line) or line[:64].decode() != digest_bytes(blob):
        return b"", f"the timing cache {path.name} is damaged; kernels are timed anew"
    return blob, ""


def update_cache(path: Path, merged: Callable[[bytes], bytes]) -> None:
    """Replace the file with what `merged` makes of its content, while no other process can do the same.

    Args:
        path: The file.
        merged: Given what another build may have stored meanwhile (empty where nothing is), returns the whole.

    Raises:
        BadInputError: The folder cannot be written.
        UnavailableError: The disk is full.
    """
    with foreign_os_errors(path, "create the folder of timing caches"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f"{path.name}.lock")):
        blob = merged(read_cache(path)[0])
        write_bytes(path, digest_bytes(blob).encode() + b"\n" + blob)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The kernel lets go of the lock when its process ends, however it ends; a file that means "locked" would stay.
    with foreign_os_errors(path, "lock the timing cache"), path.open("ab") as stream:
        _lock(stream.fileno())
        yield


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows, where the file is replaced as a whole and the last one wins
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
