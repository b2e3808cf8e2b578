"""Arrays in files: the same values, and none of the memory once it was handed back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.core.mapped import SMALL, map_file, release, scratch_array
from edgekit.errors import BadInputError

LARGE = (SMALL // 4 + 1,)


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def test_a_files_values_are_read_where_they_lie(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32)
    path = tmp_path / "values"
    path.write_bytes(b"head" + values.tobytes())
    found = map_file(path, np.dtype(np.float32), (4, 6), 4)
    np.testing.assert_array_equal(found, values.reshape(4, 6))
    assert not found.flags.writeable
    # Another file under its name is another file.
    (tmp_path / "other").write_bytes(b"\0" * 100)
    (tmp_path / "other").replace(path)
    np.testing.assert_array_equal(found[3], values[18:])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        map_file(tmp_path / "absent", np.dtype(np.float32), (1,), 0)
    assert "absent" in (caught.value.where or "")


@pytest.mark.parametrize("shape", [(0,), (3, 4), LARGE])
def test_scratch_arrays_begin_as_zeros_and_keep_what_is_written(shape: tuple[int, ...]) -> None:
    array = scratch_array(np.dtype(np.float32), shape)
    assert array.shape == shape
    assert not array.any()
    array[...] = 7
    release(array, array[1:], np.zeros(3))
    assert (array == 7).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_what_was_handed_back_is_not_resident() -> None:
    array = scratch_array(np.dtype(np.uint8), (64 * 1024 * 1024,))
    array[:] = 1
    full = resident_mib()
    release(array)
    assert full - resident_mib() > 48
    assert array[-1] == 1
