"""The tar file of a bundle is one byte sequence: every other one is refused, and nothing of it stays on the disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle import unpack
from edgekit.bundle.manifest import Manifest
from edgekit.bundle.open import open_bundle
from edgekit.bundle.ustar import END_OF_ARCHIVE, padding_after, ustar_header
from edgekit.errors import BadInputError, IntegrityError

Refused = Callable[[Path], IntegrityError]

BLOCK = 512


@pytest.fixture
def tar_path(tmp_path: Path) -> Path:
    return tmp_path / "damaged.tar"


def members_of(archive: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        return [(info, reader.extractfile(info).read()) for info in reader]  # type: ignore[union-attr]


def repack(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Write members as edgekit would, except for what was changed about them."""
    pieces = []
    for info, content in members:
        plain = info.isreg() and info.mode == 0o644 and (info.mtime, info.uid, info.uname) == (0, 0, "")
        header = ustar_header(info.name, info.size) if plain and info.name.isascii() else info.tobuf()
        pieces += [header, content, padding_after(len(content))]
    return b"".join([*pieces, END_OF_ARCHIVE])


def test_the_sound_archive_opens_and_repacks_to_itself(
    sound_tar: bytes, tar_path: Path, manifest: Manifest, tmp_path: Path
) -> None:
    assert repack(members_of(sound_tar)) == sound_tar
    tar_path.write_bytes(sound_tar)
    with open_bundle(tar_path) as opened:
        assert opened.manifest == manifest
        temporary = opened.folder
        assert temporary.is_dir()
    assert not temporary.exists()
    assert open_bundle(tar_path, unpack_to=tmp_path / "kept").folder == tmp_path / "kept"


@settings(max_examples=250, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_bit_anywhere(sound_tar: bytes, tar_path: Path, refused: Refused, data: st.DataObject) -> None:
    damaged = bytearray(sound_tar)
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    tar_path.write_bytes(bytes(damaged))
    refused(tar_path)


def test_a_changed_byte_anywhere_in_a_header(sound_tar: bytes, tar_path: Path, refused: Refused) -> None:
    second_header = BLOCK + -(-members_of(sound_tar)[0][0].size // BLOCK) * BLOCK
    for start in (0, second_header):
        for position in range(start, start + BLOCK, 3):
            damaged = bytearray(sound_tar)
            damaged[position] ^= 0x01
            tar_path.write_bytes(bytes(damaged))
            refused(tar_path)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_archive(sound_tar: bytes, tar_path: Path, refused: Refused, share: float) -> None:
    tar_path.write_bytes(sound_tar[: int(len(sound_tar) * share)])
    refused(tar_path)


@pytest.mark.parametrize("missing", [1, BLOCK, 2 * BLOCK, 3 * BLOCK])
def test_an_archive_without_its_end(sound_tar: bytes, tar_path: Path, refused: Refused, missing: int) -> None:
    tar_path.write_bytes(sound_tar[:-missing])
    refused(tar_path)


@pytest.mark.parametrize("garbage", [b"\0", b"x", bytes(BLOCK), bytes(10240), b"PK\x03\x04" * 200], ids=len)
def test_something_after_the_end(sound_tar: bytes, tar_path: Path, refused: Refused, garbage: bytes) -> None:
    tar_path.write_bytes(sound_tar + garbage)
    assert "after its end" in refused(tar_path).message


def test_a_second_archive_after_the_first(sound_tar: bytes, tar_path: Path, refused: Refused) -> None:
    tar_path.write_bytes(sound_tar + sound_tar)
    refused(tar_path)


def test_a_member_removed_added_repeated_or_moved(sound_tar: bytes, tar_path: Path, refused: Refused) -> None:
    members = members_of(sound_tar)
    for index in range(len(members)):
        others = members[:index] + members[index + 1 :]
        variants = {
            "removed": others,
            "repeated": [*members[:index], members[index], *members[index:]],
            "repeated at the end": [*members, members[index]],
            "moved to the end": [*others, members[index]],
        }
        for what, variant in variants.items():
            if variant == members:
                continue
            tar_path.write_bytes(repack(variant))
            assert refused(tar_path), (what, index)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "engine/../../evil",
        "/tmp/evil",
        "C:evil",
        "..\\evil",
        "engine\\model.onnx",
        "./engine/model.onnx",
        "engine//model.onnx",
        "Engine/model.onnx",
        "engine/m\u043edel.onnx",
        "engine/model.onnx/",
        "",
    ],
    ids=ascii,
)
def test_a_member_with_another_name(sound_tar: bytes, tar_path: Path, refused: Refused, name: str) -> None:
    members = members_of(sound_tar)
    assert members[1][0].name == "engine/model.onnx"
    members[1][0].name = name
    tar_path.write_bytes(repack(members))
    refused(tar_path)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "character device"),
        (tarfile.BLKTYPE, "block device"),
        (tarfile.FIFOTYPE, "named pipe"),
        (tarfile.DIRTYPE, "folder"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (tarfile.CONTTYPE, "file"),
        (tarfile.AREGTYPE, "file"),
        (tarfile.XHDTYPE, "extended header"),
    ],
)
def test_a_member_of_another_kind(sound_tar: bytes, tar_path: Path, refused: Refused, kind: bytes, word: str) -> None:
    members = members_of(sound_tar)
    info = members[1][0]
    info.type, info.linkname = kind, "../../outside"
    header = bytearray(ustar_header(info.name, info.size))
    header[156:157] = kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)  # a checksum that is right, so that only the kind is wrong
    damaged = repack(members[:1]).removesuffix(END_OF_ARCHIVE) + bytes(header) + members[1][1]
    damaged += padding_after(len(members[1][1])) + repack(members[2:])
    assert len(damaged) == len(sound_tar)
    tar_path.write_bytes(damaged)
    assert word in str(refused(tar_path))


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_of_another_program_is_told_apart(sound: Path, tar_path: Path, refused: Refused, style: int) -> None:
    with tarfile.open(tar_path, "w", format=style) as writer:
        writer.add(sound, arcname=".")
    assert "unpack it with that program" in str(refused(tar_path))


@pytest.mark.parametrize(
    "size", ["77777777777", "00020000001", "-0000000001", "          9", "0o000000012", "99999999999"]
)
def test_a_manifest_of_an_impossible_size(sound_tar: bytes, tar_path: Path, refused: Refused, size: str) -> None:
    damaged = bytearray(sound_tar)
    damaged[124:135] = size.encode()
    tar_path.write_bytes(bytes(damaged))
    refused(tar_path)


def test_a_size_in_binary_as_gnu_writes_large_ones(sound_tar: bytes, tar_path: Path, refused: Refused) -> None:
    damaged = bytearray(sound_tar)
    damaged[124:136] = b"\x80" + bytes(10) + b"\x10"
    tar_path.write_bytes(bytes(damaged))
    refused(tar_path)


def test_a_member_larger_than_any_bundle(sound_tar: bytes, tar_path: Path, refused: Refused) -> None:
    # The header alone claims 8 GiB; nothing of that size may be reserved or written.
    members = members_of(sound_tar)
    damaged = repack(members[:1]).removesuffix(END_OF_ARCHIVE) + ustar_header(members[1][0].name, 8**11 - 1)
    tar_path.write_bytes(damaged + members[1][1])
    refused(tar_path)


def test_a_kill_in_the_middle_leaves_nothing_under_the_final_name(
    sound_tar: bytes, tar_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar_path.write_bytes(sound_tar)
    destination = tmp_path / "release"

    def interrupt(*_: object) -> None:
        assert not destination.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(unpack._Reader, "end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_bundle(tar_path, unpack_to=destination)
    assert [path.name for path in tmp_path.iterdir()] == [tar_path.name]


def test_unpacking_replaces_a_bundle_but_nothing_else(sound_tar: bytes, tar_path: Path, tmp_path: Path) -> None:
    tar_path.write_bytes(sound_tar)
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "letter.txt").write_text("dear")
    with pytest.raises(BadInputError):
        open_bundle(tar_path, unpack_to=documents)
    assert (documents / "letter.txt").read_text() == "dear"
    older = tmp_path / "older"
    open_bundle(tar_path, unpack_to=older)
    (older / "policy.json").write_bytes(b"damaged")
    assert open_bundle(tar_path, unpack_to=older).read_json("policy.json") == {"rules": []}
