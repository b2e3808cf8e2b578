"""Files written whole or not at all, and operating-system errors in our words.

A file is written beside its destination and moved over it; a folder is filled under a temporary name and renamed.
Whoever sees the final name sees the whole thing, whenever the process was killed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import BadInputError, EdgekitError, UnavailableError

__all__ = [
    "STAGING_PREFIX",
    "atomic_directory",
    "check_writable_directory",
    "foreign_os_errors",
    "read_bytes",
    "write_bytes",
]

STAGING_PREFIX = ".edgekit-partial-"
_RETIRED = ".old"


@contextmanager
def foreign_os_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError about `path` into an edgekit error that says what to do; `doing` completes "Could not ..."."""
    try:
        yield
    except OSError as cause:
        raise _explained(cause, path, doing) from cause


def _explained(cause: OSError, path: Path, doing: str) -> EdgekitError:
    where = str(cause.filename or path)
    if cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnavailableError(
            f"Could not {doing}: the disk is full.",
            where=where,
            hint="free some space, or choose another place with --output, and run the same command again",
        )
    if cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BadInputError(
            f"Could not {doing}: permission denied.",
            where=where,
            hint="choose a place you may write to with --output, or correct the permissions",
        )
    if cause.errno == errno.ENOENT:
        return BadInputError(f"Could not {doing}: there is no such file or folder.", where=where)
    if cause.errno in (errno.ENOTDIR, errno.EISDIR):
        return BadInputError(
            f"Could not {doing}: a file stands where a folder is needed, or the other way round.", where=where
        )
    return BadInputError(f"Could not {doing}: {cause.strerror or cause}.", where=where)


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises `BadInputError` where it cannot be read."""
    with foreign_os_errors(path, "read a file"):
        return path.read_bytes()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: readers see the old content or the new, never a part."""
    temporary = path.with_name(f"{STAGING_PREFIX}{os.getpid()}-{path.name}")
    with foreign_os_errors(path, "write a file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `destination` when the block ends without an error.

    An older `destination` is replaced. After an error, or a kill, nothing new stands under the final name; what a
    killed process left behind under its temporary name is removed by the next call for the same destination.
    """
    with foreign_os_errors(destination, "create a folder"):
        destination.parent.mkdir(parents=True, exist_ok=True)
        for leftover in _leftovers(destination):
            _remove(leftover)
        staging = destination.with_name(f"{STAGING_PREFIX}{os.getpid()}-{destination.name}")
        staging.mkdir()
    try:
        with foreign_os_errors(destination, "write a folder"):
            yield staging
            _move_over(staging, destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _leftovers(destination: Path) -> list[Path]:
    # The whole name, so that work going on for "b-a" is not taken for what is left of "a".
    name = re.compile(rf"{re.escape(STAGING_PREFIX)}\d+({re.escape(_RETIRED)})?-{re.escape(destination.name)}")
    return [item for item in destination.parent.iterdir() if name.fullmatch(item.name)]


def _move_over(staging: Path, destination: Path) -> None:
    if not destination.exists():
        staging.rename(destination)
        return
    # Two renames cannot be one atomic step. Killed between them, the destination is missing and the work is done
    # again, which is safe; the other order would leave a mixture, which is not.
    retired = destination.with_name(f"{STAGING_PREFIX}{os.getpid()}{_RETIRED}-{destination.name}")
    destination.rename(retired)
    try:
        staging.rename(destination)
    except OSError:
        retired.rename(destination)
        raise
    _remove(retired)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def check_writable_directory(path: Path) -> None:
    """Raise before long work begins when results could not be stored in `path`; creates the folder.

    Raises:
        BadInputError: Not a folder, or not writable.
        UnavailableError: The disk is full.
    """
    with foreign_os_errors(path, "use the output folder"):
        path.mkdir(parents=True, exist_ok=True)
    write_bytes(path / ".edgekit-write-test", b"edgekit\n")
    (path / ".edgekit-write-test").unlink(missing_ok=True)
