"""One byte of a signed bundle changed, anywhere: thousands of times, never accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from signed_bundles import KEY, OPTIONS
from tampering import changed_at, copied, counted, signed_bundle

from edgekit.bundle.layout import ENVELOPE
from edgekit.bundle.pack import write_tar
from edgekit.bundle.ustar import BLOCK
from edgekit.release.check import check

EVERY = 5
"""Bytes between two places that are changed, in files other than the envelope."""


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed_bundle(tmp_path_factory.mktemp("signed-bytes"))


def bit_at(position: int) -> int:
    """Another bit from place to place; every one gets its turn."""
    return 1 << (position * 5 + position // 8) % 8


def test_the_bundle_is_good_before_it_is_changed(signed: Path, tmp_path: Path) -> None:
    write_tar(signed, tmp_path / "release.tar")
    for path in (signed, tmp_path / "release.tar"):
        assert check(path, [KEY.public], OPTIONS).key_id == KEY.public.key_id
    assert {bit_at(position) for position in range(0, 200, EVERY)} == {1 << bit for bit in range(8)}


def test_a_byte_of_any_file_of_the_folder(signed: Path, tmp_path: Path) -> None:
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 4500) as tally:
        for path in sorted(item for item in victim.rglob("*") if item.is_file() and item.name != ENVELOPE):
            for position in range(0, path.stat().st_size, EVERY):
                with changed_at(path, position, bit_at(position)):
                    tally.attempt(victim, f"{path.name} at {position}")
    assert check(victim, [KEY.public], OPTIONS).digest


def test_a_byte_of_the_tar_file(signed: Path, tmp_path: Path) -> None:
    tar = tmp_path / "release.tar"
    write_tar(signed, tar)
    data = tar.read_bytes()
    envelope = data.rindex(ENVELOPE.encode())
    assert envelope % BLOCK == 0
    places = {
        *range(0, len(data), 8 * EVERY),
        *range(envelope, envelope + BLOCK, 3),
        *range(len(data) - 3 * BLOCK, len(data), 11),
    }
    with counted(tmp_path, 1100) as tally:
        for position in sorted(places):
            with changed_at(tar, position, bit_at(position)):
                tally.attempt(tar, f"tar at {position}")
    assert tar.read_bytes() == data


def test_a_file_cut_short_or_made_longer(signed: Path, tmp_path: Path) -> None:
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 300) as tally:
        for path in sorted(item for item in victim.rglob("*") if item.is_file()):
            data = path.read_bytes()
            size = len(data)
            lengths = {0, 1, size // 2, size - 2, size - 1, *(size * part // 16 for part in range(1, 16))}
            for length in sorted(lengths):
                path.write_bytes(data[:length])
                tally.attempt(victim, f"{path.name} cut to {length}")
            for more in (b"\0", b"\n", b" ", data):
                path.write_bytes(data + more)
                tally.attempt(victim, f"{path.name} with {len(more)} bytes more")
            path.write_bytes(data)
