"""Every change to a bundle's folder is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle.manifest import Manifest
from edgekit.bundle.open import open_bundle
from edgekit.errors import BadInputError, IntegrityError

Refused = Callable[[Path], IntegrityError]

FILES = (
    "engine/model.onnx",
    "engine/reference.onnx",
    "evidence/scores.json",
    "evidence/verdict.json",
    "golden/golden.json",
    "golden/labels.npy",
    "golden/logits.npy",
    "golden/maps.npy",
    "golden/pixels.npy",
    "lineage.json",
    "manifest.json",
    "policy.json",
    "recipe.json",
    "report/report.html",
    "scales.json",
)
every_file = pytest.mark.parametrize("name", FILES)
posix_only = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(bytes(content))


def test_the_list_of_files_here_is_complete_and_the_bundle_sound(sound: Path, manifest: Manifest) -> None:
    found = sorted(path.relative_to(sound).as_posix() for path in sound.rglob("*") if path.is_file())
    assert found == list(FILES)
    assert open_bundle(sound).manifest == manifest


@every_file
@pytest.mark.parametrize("place", ["first", "second", "quarter", "middle", "last"])
def test_one_changed_bit(victim: Path, refused: Refused, name: str, place: str) -> None:
    path = victim / name
    size = path.stat().st_size
    positions = {"first": 0, "second": 1, "quarter": size // 4, "middle": size // 2, "last": size - 1}
    flip(path, positions[place], bit=0)
    refused(victim)


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_bit_anywhere(victim: Path, refused: Refused, data: st.DataObject) -> None:
    path = victim / data.draw(st.sampled_from(FILES))
    original = path.read_bytes()
    flip(path, data.draw(st.integers(0, len(original) - 1)), data.draw(st.integers(0, 7)))
    refused(victim)
    path.write_bytes(original)


@every_file
def test_a_removed_file(victim: Path, refused: Refused, name: str) -> None:
    (victim / name).unlink()
    refused(victim)


@every_file
def test_an_emptied_file(victim: Path, refused: Refused, name: str) -> None:
    (victim / name).write_bytes(b"")
    refused(victim)


@every_file
@pytest.mark.parametrize("change", ["one byte less", "one byte more"])
def test_a_file_of_another_length(victim: Path, refused: Refused, name: str, change: str) -> None:
    content = (victim / name).read_bytes()
    (victim / name).write_bytes(content[:-1] if change == "one byte less" else content + b"\n")
    refused(victim)


@every_file
def test_a_renamed_file(victim: Path, refused: Refused, name: str) -> None:
    (victim / name).rename(victim / f"{name}.bak")
    refused(victim)


@every_file
def test_two_files_exchanged(victim: Path, refused: Refused, name: str) -> None:
    other = victim / FILES[FILES.index(name) - 1]
    mine, theirs = (victim / name).read_bytes(), other.read_bytes()
    assert mine != theirs
    (victim / name).write_bytes(theirs)
    other.write_bytes(mine)
    refused(victim)


@pytest.mark.parametrize(
    "name",
    [
        "extra.txt",
        ".hidden",
        "engine/model.onnx~",
        "engine/Model.onnx",
        "engine/model.onnx ",
        "golden/masks.npy",
        "golden/pixels.npy.1",
        "m\u0430nifest.json",  # Cyrillic a
        "engine/mode\u217c.onnx",  # small roman numeral fifty
        "policy.jso\u0144",
        "policy.json\u200b",
        "new/folder/file.json",
    ],
    ids=ascii,
)
def test_an_added_file(victim: Path, refused: Refused, name: str) -> None:
    path = victim / name
    if path.exists():
        pytest.skip("this file system takes the name for another file of the bundle")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    assert "does not name" in refused(victim).message


def test_an_added_empty_folder(victim: Path, refused: Refused) -> None:
    (victim / "engine" / "cache").mkdir()
    refused(victim)


@every_file
def test_a_symbolic_link_to_the_same_bytes(victim: Path, sound: Path, refused: Refused, name: str) -> None:
    (victim / name).unlink()
    (victim / name).symlink_to(sound / name)
    assert "plain file" in refused(victim).message


@every_file
def test_a_hard_link_to_the_same_bytes(victim: Path, tmp_path: Path, refused: Refused, name: str) -> None:
    os.link(victim / name, tmp_path / "second-name")
    assert "hard-linked" in refused(victim).message


def test_a_linked_folder_with_the_same_files(victim: Path, tmp_path: Path, refused: Refused) -> None:
    (victim / "golden").rename(tmp_path / "golden")
    (victim / "golden").symlink_to(tmp_path / "golden", target_is_directory=True)
    refused(victim)


def test_a_dangling_manifest(victim: Path, refused: Refused) -> None:
    (victim / "manifest.json").unlink()
    (victim / "manifest.json").symlink_to(victim / "nowhere")
    refused(victim)


@posix_only
@every_file
def test_a_named_pipe_does_not_block(victim: Path, refused: Refused, name: str) -> None:
    (victim / name).unlink()
    os.mkfifo(victim / name)
    refused(victim)


@posix_only
def test_a_socket(victim: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    (victim / "policy.json").unlink()
    monkeypatch.chdir(victim)  # the path of a socket has a short limit
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("policy.json")
        refused(victim)


@every_file
def test_a_folder_in_place_of_a_file(victim: Path, refused: Refused, name: str) -> None:
    (victim / name).unlink()
    (victim / name).mkdir()
    refused(victim)


def test_a_file_in_place_of_a_folder(victim: Path, refused: Refused) -> None:
    for path in (victim / "report").iterdir():
        path.unlink()
    (victim / "report").rmdir()
    (victim / "report").write_bytes(b"")
    refused(victim)


def test_a_file_changed_after_the_bundle_was_opened(victim: Path) -> None:
    opened = open_bundle(victim)
    assert opened.read_json("policy.json") == {"rules": []}
    (victim / "policy.json").write_bytes(b'{\n "rules": [1]\n}\n')
    with pytest.raises(IntegrityError, match="after it was opened"):
        opened.read_json("policy.json")
    flip(victim / "golden" / "maps.npy", -1, 0)
    with pytest.raises(IntegrityError):
        opened.golden()


@pytest.mark.parametrize("kind", ["absent", "text file", "empty file", "empty folder", "other folder"])
def test_what_never_was_a_bundle_is_bad_input(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing.tar"
    match kind:
        case "text file":
            path.write_text("a shopping list: eggs, milk\n" * 100)
        case "empty file":
            path.write_bytes(b"")
        case "empty folder":
            path.mkdir()
        case "other folder":
            path.mkdir()
            (path / "notes.txt").write_text("notes")
    with pytest.raises(BadInputError, match="not an edgekit bundle"):
        open_bundle(path)


@posix_only
def test_a_named_pipe_never_was_a_bundle(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(BadInputError, match="not an edgekit bundle"):
        open_bundle(tmp_path / "pipe.tar")
