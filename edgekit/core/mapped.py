"""Arrays that lie in files and not in memory: what was used is handed back, so that size does not show in a process."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit.core.files import foreign_os_errors

__all__ = ["SMALL", "map_file", "release", "scratch_array"]

SMALL = 1 << 20
"""Bytes below which an array is simply kept in memory."""

T = TypeVar("T", bound=np.generic)


def map_file(path: Path, dtype: np.dtype[T], shape: tuple[int, ...], offset: int) -> npt.NDArray[T]:
    """The values of a file, read-only, read when they are looked at.

    Args:
        path: The file. Replacing it leaves the array as it is; writing into it does not.
        dtype: Type of the values.
        shape: Their shape; the file holds at least that many after `offset`, and at least one.
        offset: Bytes before the first.
    """
    with foreign_os_errors(path, "map a file"), path.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(shape, dtype, buffer=mapped, offset=offset)


def scratch_array(dtype: np.dtype[T], shape: tuple[int, ...]) -> npt.NDArray[T]:
    """An array of zeros to fill: in memory where it is small, else in a temporary file that goes when it goes.

    Raises:
        UnavailableError: There is no room for temporary files; the variable TMPDIR says where they go.
    """
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size < SMALL:
        return np.zeros(shape, dtype)
    doing = "keep answers in a temporary file"
    with foreign_os_errors(Path(tempfile.gettempdir()), doing), tempfile.TemporaryFile(prefix="edgekit-") as stream:
        # Asked for now: a full disk is an error here, and would be the end of the process at a later write.
        _reserve(stream.fileno(), size)
        mapped = mmap.mmap(stream.fileno(), size)
    return np.ndarray(shape, dtype, buffer=mapped)


def _reserve(descriptor: int, size: int) -> None:

    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def release(*arrays: npt.NDArray[Any]) -> None:
    """Hand the memory of mapped arrays back; what they hold stays in their files. Does nothing for other arrays."""
    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        mapped = base.obj if isinstance(base, memoryview) else base
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)
