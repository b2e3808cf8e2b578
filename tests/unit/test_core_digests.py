"""Digests: known values, and no change that goes unnoticed."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core import digests
from edgekit.core.digests import digest_array, digest_bytes, digest_file, digest_path
from edgekit.core.files import STAGING_PREFIX
from edgekit.errors import BadInputError

# FIPS 180-4's own example.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_known_values(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_bytes(b"abc") == digest_file(tmp_path / "a") == digest_path(tmp_path / "a") == ABC


def test_a_large_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_CHUNK", 7)
    data = bytes(range(256)) * 3
    (tmp_path / "a").write_bytes(data)
    assert digest_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such file"):
        digest_path(tmp_path / "absent")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "b.txt").write_text("b")
    (folder / "sub" / "a.txt").write_text("c")
    (folder / "sub" / "deep" / "z").write_text("")
    return folder


def test_a_folder_is_its_names_and_contents(tree: Path, tmp_path: Path) -> None:
    before = digest_path(tree)
    assert digest_path(tree) == before
    tree.rename(tmp_path / "elsewhere")
    assert digest_path(tmp_path / "elsewhere") == before


def change_a_byte(tree: Path) -> None:
    (tree / "sub" / "a.txt").write_text("d")


def rename_a_file(tree: Path) -> None:
    (tree / "a.txt").rename(tree / "A.txt")


def rename_a_folder(tree: Path) -> None:
    (tree / "sub").rename(tree / "sup")


def swap_two_files(tree: Path) -> None:
    (tree / "a.txt").write_text("b")
    (tree / "b.txt").write_text("a")


def move_a_file_up(tree: Path) -> None:
    (tree / "sub" / "deep" / "z").rename(tree / "sub" / "z")


def add_an_empty_file(tree: Path) -> None:
    (tree / "new").write_text("")


def remove_a_file(tree: Path) -> None:
    (tree / "b.txt").unlink()


@pytest.mark.parametrize(
    "change",
    [
        change_a_byte,
        rename_a_file,
        rename_a_folder,
        swap_two_files,
        move_a_file_up,
        add_an_empty_file,
        remove_a_file,
    ],
)
def test_every_change_shows(tree: Path, change: object) -> None:
    before = digest_path(tree)
    assert callable(change)
    change(tree)
    assert digest_path(tree) != before


def test_unfinished_work_beside_the_files_does_not_count(tree: Path) -> None:
    before = digest_path(tree)
    (tree / f"{STAGING_PREFIX}1-a.txt").write_text("half")
    assert digest_path(tree) == before


@pytest.mark.skipif(sys.platform == "win32", reason="such file names do not exist there")
def test_a_name_cannot_play_the_part_of_two_files(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir()
    one.mkdir()
    (two / "a").write_text("first")
    (two / "b").write_text("second")
    (one / f"a\n{digest_bytes(b'second')} b").write_text("first")
    assert digest_path(two) != digest_path(one)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8_can_be_digested(tmp_path: Path) -> None:
    odd, plain = tmp_path / "odd", tmp_path / "plain"
    odd.mkdir()
    plain.mkdir()
    (odd / os.fsdecode(b"\xff\xfe")).write_text("a")
    (plain / "b").write_text("a")
    # Two files of the same content: the digests part by the names alone.
    assert digest_path(odd) != digest_path(plain)


ARRAYS = hnp.arrays(
    st.sampled_from([np.uint8, np.int32, np.float32, np.float64, np.bool_]),
    hnp.array_shapes(max_dims=3, max_side=4),
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ARRAYS)
def test_equal_arrays_share_a_digest_however_they_lie_in_memory(array: np.ndarray) -> None:
    expected = digest_array(array)
    assert digest_array(np.asfortranarray(array)) == expected
    assert digest_array(array.astype(array.dtype.newbyteorder(">"))) == expected
    padded = np.stack([array, array], axis=-1)
    assert digest_array(padded[..., 0]) == expected


def test_arrays_that_differ_in_anything_differ_in_digest() -> None:
    zeros = np.zeros((2, 3), dtype=np.float32)
    others = [
        np.zeros((3, 2), dtype=np.float32),
        np.zeros(6, dtype=np.float32),
        np.zeros((2, 3), dtype=np.int32),
        np.zeros((2, 3), dtype=np.float64),
        np.full((2, 3), 1e-45, dtype=np.float32),
        -zeros,
        np.zeros((), dtype=np.float32),
        np.zeros(1, dtype=np.float32),
    ]
    assert len({digest_array(array) for array in [zeros, *others]}) == len(others) + 1
