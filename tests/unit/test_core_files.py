"""Files and folders written whole or not at all, and the operating system's errors in words that help."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.core.files import (
    STAGING_PREFIX,
    atomic_directory,
    check_writable_directory,
    foreign_os_errors,
    read_bytes,
    write_bytes,
)
from edgekit.errors import BadInputError, EdgekitError, UnavailableError


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    write_bytes(path, b"\x00\xff")
    assert read_bytes(path) == b"\x00\xff"
    write_bytes(path, b"")
    assert read_bytes(path) == b""
    assert names(path.parent) == ["c.bin"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os if broken == "fsync" else Path, broken, full)
    with pytest.raises(UnavailableError, match="the disk is full"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, UnavailableError, "the disk is full"),
        (errno.EDQUOT, UnavailableError, "the disk is full"),
        (errno.EACCES, BadInputError, "permission denied"),
        (errno.EPERM, BadInputError, "permission denied"),
        (errno.EROFS, BadInputError, "permission denied"),
        (errno.ENOENT, BadInputError, "no such file or folder"),
        (errno.ENOTDIR, BadInputError, "a file stands where a folder is needed"),
        (errno.EISDIR, BadInputError, "a file stands where a folder is needed"),
        (errno.EIO, BadInputError, os.strerror(errno.EIO)),
    ],
)
def test_each_error_of_the_system_has_its_words(number: int, kind: type[EdgekitError], words: str) -> None:
    cause = OSError(number, os.strerror(number), "the/file")
    with pytest.raises(kind, match="Could not do it") as caught, foreign_os_errors(Path("elsewhere"), "do it"):
        raise cause
    assert words in caught.value.message
    assert caught.value.where == "the/file"
    assert caught.value.__cause__ is cause


def test_an_error_without_a_file_name_names_the_path() -> None:
    with pytest.raises(BadInputError) as caught, foreign_os_errors(Path("elsewhere"), "do it"):
        raise OSError("odd")
    assert caught.value.where == "elsewhere"
    assert "odd" in caught.value.message


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ValueError, match="mine"), foreign_os_errors(Path("a"), "do it"):
        raise ValueError("mine")


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    destination = tmp_path / "deep" / "result"
    with atomic_directory(destination) as staging:
        (staging / "part").mkdir()
        (staging / "part" / "a").write_text("a")
        assert staging.parent == destination.parent
        assert not destination.exists()
    assert (destination / "part" / "a").read_text() == "a"
    assert names(destination.parent) == ["result"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    destination = tmp_path / "result"
    for name in ("old", "new"):
        with atomic_directory(destination) as staging:
            (staging / name).write_text(name)
    assert names(destination) == ["new"]
    assert names(tmp_path) == ["result"]


def half_filled(destination: Path, raised: BaseException) -> None:
    with atomic_directory(destination) as staging:
        (staging / "half").write_text("half")
        raise raised


@pytest.mark.parametrize("raised", [ValueError("mine"), KeyboardInterrupt(), SystemExit(1)])
def test_whatever_is_raised_inside_nothing_new_stands_under_the_name(tmp_path: Path, raised: BaseException) -> None:
    destination = tmp_path / "result"
    for expected in ([], ["result"]):
        with pytest.raises(type(raised)):
            half_filled(destination, raised)
        assert names(tmp_path) == expected
        if not expected:
            with atomic_directory(destination) as staging:
                (staging / "old").write_text("old")
    assert names(destination) == ["old"]


def test_a_folder_that_cannot_be_moved_into_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = tmp_path / "result"
    with atomic_directory(destination) as staging:
        (staging / "old").write_text("old")
    rename, seen = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        seen.append(self)
        if len(seen) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(BadInputError), atomic_directory(destination) as staging:
        (staging / "new").write_text("new")
    assert names(destination) == ["old"]
    assert names(tmp_path) == ["result"]


def killed(program: str) -> None:
    """Run `program` until it kills itself as `kill -9` does."""
    code = textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_inside_the_block(tmp_path: Path) -> None:
    destination = tmp_path / "result"
    killed(f"""
        import os, signal
        from pathlib import Path
        from edgekit.core.files import atomic_directory
        with atomic_directory(Path({str(destination)!r})) as staging:
            (staging / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert not destination.exists()
    assert len(names(tmp_path)) == 1, "the leftover that this is about"
    with atomic_directory(destination) as staging:
        assert names(staging) == []
        (staging / "whole").write_text("whole")
    assert names(destination) == ["whole"]
    assert names(tmp_path) == ["result"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    destination = tmp_path / "result"
    with atomic_directory(destination) as staging:
        (staging / "old").write_text("old")
    killed(f"""
        import os, signal
        from pathlib import Path
        from edgekit.core.files import atomic_directory
        rename, seen = Path.rename, []
        def dying(self, target):
            if seen:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(self)
            return rename(self, target)
        Path.rename = dying
        with atomic_directory(Path({str(destination)!r})) as staging:
            (staging / "new").write_text("new")
    """)
    assert not destination.exists(), "missing is allowed, a mixture is not"
    with atomic_directory(destination) as staging:
        (staging / "again").write_text("again")
    assert names(destination) == ["again"]
    assert names(tmp_path) == ["result"]


@pytest.mark.parametrize("name", ["result", "odd[name]*?", "1-a"])
def test_only_leftovers_of_the_same_destination_are_removed(tmp_path: Path, name: str) -> None:
    own = [f"{STAGING_PREFIX}1-{name}", f"{STAGING_PREFIX}77.old-{name}"]
    others = [f"{STAGING_PREFIX}1-b-{name}", f"{STAGING_PREFIX}1-{name}2", f"b-{name}", f"{STAGING_PREFIX}x-{name}"]
    for item in own + others:
        (tmp_path / item).mkdir()
    with atomic_directory(tmp_path / name):
        pass
    assert names(tmp_path) == sorted([*others, name])


def test_two_destinations_can_be_filled_inside_each_other(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "b-a") as outer:
        (outer / "x").write_text("outer")
        with atomic_directory(tmp_path / "a") as inner:
            (inner / "x").write_text("inner")
    assert (tmp_path / "b-a" / "x").read_text() == "outer"
    assert (tmp_path / "a" / "x").read_text() == "inner"


def test_an_error_of_the_system_inside_the_block_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="the disk is full"), atomic_directory(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInputError), atomic_directory(tmp_path / "file" / "result"):
        pytest.fail("the block must not run")
    with pytest.raises(BadInputError):
        write_bytes(tmp_path / "file" / "a.bin", b"")
    with pytest.raises(BadInputError):
        write_bytes(tmp_path, b"")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable_directory(tmp_path / "new" / "deep")
    assert names(tmp_path / "new" / "deep") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError):
        check_writable_directory(tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not hold root")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    for attempt in (check_writable_directory, lambda path: write_bytes(path / "a", b"")):
        with pytest.raises(BadInputError, match="permission denied"):
            attempt(locked)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    write_bytes(tiny_disk / "kept", b"kept")
    with pytest.raises(UnavailableError, match="the disk is full"):
        write_bytes(tiny_disk / "big", b"x" * 200_000)
    with pytest.raises(UnavailableError, match="the disk is full"), atomic_directory(tiny_disk / "folder") as staging:
        (staging / "big").write_bytes(b"x" * 200_000)
    assert names(tiny_disk) == ["kept"]
    assert (tiny_disk / "kept").read_bytes() == b"kept"
    write_bytes(tiny_disk / "after", b"there is room again")
