"""The tar file of a signed bundle: what tar can say beyond plain files is refused, and so is every other order."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from signed_bundles import KEY, OPTIONS
from tampering import counted, signed_bundle

from edgekit.bundle.layout import ENVELOPE, MANIFEST, MAX_ENVELOPE_BYTES
from edgekit.bundle.pack import write_tar
from edgekit.bundle.ustar import BLOCK, END_OF_ARCHIVE, padding_after, ustar_header
from edgekit.release.check import check


@dataclass(frozen=True)
class Member:
    """A member as it stands in an archive: its header block and what follows."""

    name: str
    header: bytes
    content: bytes

    @property
    def raw(self) -> bytes:
        return self.header + self.content + padding_after(len(self.content))


def plain(name: str, content: bytes) -> Member:
    return Member(name, ustar_header(name, len(content)), content)


def special(name: str, content: bytes = b"", **fields: object) -> Member:
    """A member as the standard library writes it, with whatever it can say."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return Member(name, info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"), content)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed_bundle(tmp_path_factory.mktemp("signed-tar"))


@pytest.fixture(scope="module")
def archive(signed: Path) -> bytes:
    path = signed.with_name("whole.tar")
    write_tar(signed, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def members(archive: bytes) -> list[Member]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        for info in reader:
            stream = reader.extractfile(info)
            assert stream is not None
            found.append(plain(info.name, stream.read()))
    return found


def packed(members: list[Member], end: bytes = END_OF_ARCHIVE) -> bytes:
    return b"".join([*(member.raw for member in members), end])


def test_the_archive_is_good_and_has_the_envelope_last(members: list[Member], archive: bytes, tmp_path: Path) -> None:
    assert packed(members) == archive
    assert (members[0].name, members[-1].name) == (MANIFEST, ENVELOPE)
    (tmp_path / "good.tar").write_bytes(archive)
    assert check(tmp_path / "good.tar", [KEY.public], OPTIONS).key_id == KEY.public.key_id


def orders(members: list[Member]) -> Iterator[tuple[str, list[Member]]]:
    for index, member in enumerate(members):
        others = members[:index] + members[index + 1 :]
        yield f"{member.name} removed", others
        for place in range(len(members) + 1):
            yield f"{member.name} again at {place}", [*members[:place], member, *members[place:]]
        for place in range(len(others) + 1):
            if place != index:
                yield f"{member.name} moved to {place}", [*others[:place], member, *others[place:]]
    yield "reversed", members[::-1]
    yield "the envelope first", [members[-1], *members[:-1]]


def test_members_removed_repeated_and_moved(members: list[Member], tmp_path: Path) -> None:
    with counted(tmp_path, 400) as tally:
        for number, (what, order) in enumerate(orders(members)):
            path = tmp_path / f"{number}.tar"
            path.write_bytes(packed(order))
            tally.attempt(path, what)
            path.unlink()


def intruders(content: bytes) -> Iterator[tuple[str, Member]]:
    outside = ("../evil", "/etc/evil", "engine/../../evil", "C:\\evil", "..\\evil", "./x", "", "x\0y", "x" * 100)
    alike = (
        "release.intoto.json.",
        "RELEASE.INTOTO.JSON",
        "release.intoto.js\u043en",
        "cafe\u0301",
        "caf\u00e9",
        "a b",
    )
    for name in (*outside, *alike, MANIFEST, ENVELOPE, "engine/model.onnx", "golden/masks.npy"):
        yield f"a file {name!a}", special(name, content)
        yield f"an empty file {name!a}", special(name)
    for target in ("../../evil", "/etc/passwd", MANIFEST, ENVELOPE, "."):
        for name in (ENVELOPE, "engine/model.onnx", "golden", "link"):
            yield f"{name} linked to {target}", special(name, type=tarfile.SYMTYPE, linkname=target)
            yield f"{name} hard-linked to {target}", special(name, type=tarfile.LNKTYPE, linkname=target)
    for kind in (
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
        tarfile.AREGTYPE,
    ):
        for name in (ENVELOPE, "engine", "null"):
            yield f"{name} of type {kind!r}", special(name, type=kind)
    records = (b"path=../evil", b"size=99999999999", b"linkpath=/etc/passwd", b"GNU.sparse.size=9", b"comment=x")
    for record in records:
        # A record begins with its own length, a blank and what it says, and ends with a newline.
        line = next(text for size in range(200) if len(text := b"%d %s\n" % (size, record)) == size)
        for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
            yield f"{record!r} by {kind!r}", special("pax", line, type=kind)
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE):
        yield f"of type {kind!r}", special("././@LongLink", b"../evil\0", type=kind)


def test_members_that_are_no_plain_files(members: list[Member], tmp_path: Path) -> None:
    """Before everything, after the manifest, in the middle, before and after the envelope, and in its place."""
    with counted(tmp_path, 500) as tally:
        path = tmp_path / "tampered.tar"
        for what, intruder in intruders(members[-1].content):
            for place in (0, 1, len(members) // 2, len(members) - 1, len(members)):
                path.unlink(missing_ok=True)
                path.write_bytes(packed([*members[:place], intruder, *members[place:]]))
                tally.attempt(path, f"{what} at {place}")
            path.unlink()
            path.write_bytes(packed([*members[:-1], intruder]))
            if intruder.header != members[-1].header:
                tally.attempt(path, f"{what} for the envelope")


FIELDS: dict[str, tuple[int, int]] = {
    "name": (0, 100),
    "mode": (100, 8),
    "owner": (108, 8),
    "group": (116, 8),
    "size": (124, 12),
    "time": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 6),
    "version": (263, 2),
    "owner's name": (265, 32),
    "group's name": (297, 32),
    "device": (329, 16),
    "prefix": (345, 155),
    "rest": (500, 12),
}
VALUES = (
    b"",
    b"\0",
    b" ",
    b"0",
    b"7",
    b"77777777777",
    b"\x80" + b"\0" * 6 + b"\xff" * 4,
    b"\xff" * 8,
    b"..",
    b"/",
    b"-1",
)


def with_checksum(header: bytes) -> bytes:
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def test_every_field_of_every_header(members: list[Member], tmp_path: Path) -> None:
    """Other values, with the old checksum and with one that is right."""
    path = tmp_path / "tampered.tar"
    with counted(tmp_path, 600) as tally:
        for index in (0, 1, len(members) - 1):
            member = members[index]
            for field, (start, size) in FIELDS.items():
                for value in VALUES:
                    filled = value.ljust(size, b"\0")[:size]
                    header = member.header[:start] + filled + member.header[start + size :]
                    for changed in {header, with_checksum(header)} - {member.header}:
                        other = Member(member.name, changed, member.content)
                        path.unlink(missing_ok=True)
                        path.write_bytes(packed([*members[:index], other, *members[index + 1 :]]))
                        tally.attempt(path, f"{field} of {member.name}: {value!r}")


def test_padding_and_ends(members: list[Member], archive: bytes, tmp_path: Path) -> None:
    """Bytes hidden between members, behind the end, and ends that are none."""
    bodies = packed(members, b"")
    ends = [b"", bytes(1), bytes(BLOCK), bytes(BLOCK - 1), bytes(2 * BLOCK - 1), bytes(3 * BLOCK), bytes(20 * BLOCK)]
    ends += [END_OF_ARCHIVE + more for more in (b"\0", b"x", bytes(BLOCK), archive, members[-1].raw, b"PK\x03\x04")]
    ends += [bytes(BLOCK) + members[-1].raw + bytes(BLOCK), members[-1].raw + END_OF_ARCHIVE]
    path = tmp_path / "tampered.tar"
    with counted(tmp_path, 100) as tally:
        for number, end in enumerate(ends):
            path.write_bytes(bodies + end)
            tally.attempt(path, f"end {number}")
        start = 0
        for member in members:
            stop = start + len(member.raw)
            inside = start + BLOCK + len(member.content)
            for position in range(inside, stop, 61):
                path.write_bytes(archive[:position] + b"\1" + archive[position + 1 :])
                tally.attempt(path, f"padding of {member.name} at {position}")
            start = stop
        for length in range(0, len(archive), BLOCK):
            path.write_bytes(archive[:length])
            tally.attempt(path, f"cut at {length}")


def sized(member: Member, size: int) -> Member:
    return Member(member.name, ustar_header(member.name, size), member.content)


def test_sizes_that_are_lies(members: list[Member], tmp_path: Path) -> None:
    """Of manifest, file and envelope: more than is there, less, and more than any disk holds."""
    path = tmp_path / "tampered.tar"
    sizes = (0, 1, 511, 512, 513, MAX_ENVELOPE_BYTES, MAX_ENVELOPE_BYTES + 1, 2**31, 2**32, 8**11 - 1)
    with counted(tmp_path, 30) as tally:
        for index in (0, 1, len(members) - 1):
            for size in (*sizes, len(members[index].content) - 1, len(members[index].content) + 1):
                if size == len(members[index].content):
                    continue
                path.unlink(missing_ok=True)
                path.write_bytes(packed([*members[:index], sized(members[index], size), *members[index + 1 :]]))
                tally.attempt(path, f"{members[index].name} of {size}")


def test_bombs(members: list[Member], archive: bytes, tmp_path: Path) -> None:
    """Holes of terabytes, a compressed archive, and an envelope larger than any: refused without being read."""
    path = tmp_path / "bomb.tar"
    with counted(tmp_path, 6) as tally:
        for size in (2**30, 2**40):
            path.write_bytes(archive)
            os.truncate(path, size)
            tally.attempt(path, f"a hole up to {size}")
        for size in (MAX_ENVELOPE_BYTES + 1, 64 * MAX_ENVELOPE_BYTES):
            path.write_bytes(packed([*members[:-1], plain(ENVELOPE, bytes(size))]))
            tally.attempt(path, f"an envelope of {size}")
        path.write_bytes(gzip.compress(archive))
        tally.attempt(path, "compressed")
        path.write_bytes(packed([plain(MANIFEST, bytes(5 << 20)), *members[1:]]))
        tally.attempt(path, "a manifest of 5 MiB")


def test_archives_of_other_programs(members: list[Member], tmp_path: Path) -> None:
    """The very same files, packed by the standard library in each of its formats."""
    path = tmp_path / "other.tar"
    with counted(tmp_path, 6) as tally:
        for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            for mode in (0o644, 0o755):
                with tarfile.open(path, "w", format=form) as writer:
                    for member in members:
                        info = tarfile.TarInfo(member.name)
                        info.size, info.mode = len(member.content), mode
                        writer.addfile(info, io.BytesIO(member.content))
                tally.attempt(path, f"format {form}, mode {mode:o}")


def test_two_bundles_in_one(members: list[Member], archive: bytes, tmp_path: Path) -> None:
    other = signed_bundle(tmp_path / "other", seed=9)
    write_tar(other, tmp_path / "other.tar")
    second = (tmp_path / "other.tar").read_bytes()
    path = tmp_path / "tampered.tar"
    with counted(tmp_path, 6) as tally:
        for number, data in enumerate(
            (
                archive + second,
                second + archive,
                archive[: -2 * BLOCK] + second,
                packed(members[:-1], b"") + second,
                packed([*members[:-1], plain(ENVELOPE, (other / ENVELOPE).read_bytes())]),
                second[: len(second) // 2 // BLOCK * BLOCK] + archive[len(archive) // 2 // BLOCK * BLOCK :],
            )
        ):
            path.write_bytes(data)
            tally.attempt(path, f"two bundles, {number}")
