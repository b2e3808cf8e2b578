"""Trying to pass changed bundles off as signed ones, and counting what came of it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from signed_bundles import KEY, NOW, OPTIONS, OTHER_KEY, make_bundle

from edgekit.bundle.layout import ENVELOPE, MANIFEST
from edgekit.bundle.open import open_bundle
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from edgekit.errors import BadInputError, EdgekitError, IntegrityError
from edgekit.release.check import CheckOptions, check
from edgekit.release.sign import release, sign_bundle
from edgekit.signing.dsse import PAYLOAD_TYPE, Envelope, pae
from edgekit.verify.gate import gate

__all__ = ["SAMPLES", "Tally", "changed_at", "copied", "counted", "forged_envelope", "put", "resealed", "signed_bundle"]

SAMPLES = 32
"""The fewest that the lenient policy can pass, nearly: small files are flipped through quickly."""


def signed_bundle(work: Path, **options: Any) -> Path:
    """A signed bundle's folder."""
    folder = make_bundle(work, **{"count": SAMPLES, **options})
    assert release(folder, KEY, now=NOW).envelope is not None
    return folder


class Tally:
    """Attempts, and how many of them were refused; what is no refusal of ours ends the test.

    Args:
        scratch: An empty folder that tar files are unpacked below; nothing may stay there.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self.tried = 0
        self.accepted: list[str] = []
        self.kinds: Counter[type[EdgekitError]] = Counter()

    @property
    def refused(self) -> int:
        """Attempts that ended as damage, or as what is no bundle at all."""
        return self.kinds[IntegrityError] + self.kinds[BadInputError]

    def attempt(self, path: Path, what: str, options: CheckOptions = OPTIONS) -> None:
        """One attempt; `what` names it where it is accepted."""
        self.tried += 1
        try:
            check(path, [KEY.public], options)
        except EdgekitError as error:
            self.kinds[type(error)] += 1
        else:
            self.accepted.append(what)
        left = list(self._scratch.iterdir())
        assert not left, f"{what}: {left}"

    def conclude(self, at_least: int) -> None:
        """Every attempt was refused, and there were enough."""
        assert self.accepted == []
        assert self.refused == self.tried >= at_least, dict(self.kinds)


@contextmanager
def counted(tmp_path: Path, at_least: int) -> Iterator[Tally]:
    """A tally that is concluded in the end, with a scratch folder of its own."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        # Whether bytes reach the disk is not what is tried here, and waiting for it takes most of the time.
        patch.setattr(os, "fsync", lambda descriptor: None)
        tally = Tally(scratch)
        yield tally
    tally.conclude(at_least)


def resealed(folder: Path, changes: dict[str, bytes | None]) -> None:
    """Change files and have the manifest agree with them, digest and all, as somebody would who knows how.

    Args:
        folder: The bundle.
        changes: Name to new content; None removes the file.
    """
    raw = json.loads((folder / MANIFEST).read_bytes())
    for name, data in changes.items():
        if data is None:
            (folder / name).unlink(missing_ok=True)
            raw["files"].pop(name, None)
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put(folder / name, data)
        raw["files"][name] = {"sha256": digest_bytes(data), "size": len(data)}
    del raw["digest"]
    put(folder / MANIFEST, dump_canonical(raw | {"digest": digest_bytes(dump_canonical(raw))}))


def forged_envelope(folder: Path, key_id: str) -> bytes:
    """A statement about the bundle as it is, signed by a key that nobody trusts, under a name of the forger's choice.

    Raises:
        EdgekitError: The bundle does not even pass its gate.
    """
    (folder / ENVELOPE).unlink(missing_ok=True)
    with open_bundle(folder) as opened:
        envelope, _ = sign_bundle(opened, gate(opened), OTHER_KEY, lifetime=None, now=NOW)
    signature = OTHER_KEY.sign(pae(PAYLOAD_TYPE, envelope.payload))
    return Envelope(envelope.payload, key_id, signature).to_bytes()


@contextmanager
def changed_at(path: Path, position: int, mask: int) -> Iterator[None]:
    """One byte of a file changed, in place, and changed back: writing files anew takes some file systems long."""
    with path.open("r+b", buffering=0) as stream:
        stream.seek(position)
        before = stream.read(1)
        for byte in (bytes([before[0] ^ mask]), before):
            stream.seek(position)
            stream.write(byte)
            if byte != before:
                yield


def put(path: Path, data: bytes) -> None:
    """A file written anew in place of an older one, which some file systems do faster than writing over it."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def copied(folder: Path, destination: Path) -> Path:
    """A fresh copy in place of an older one."""
    shutil.rmtree(destination, ignore_errors=True)
    return Path(shutil.copytree(folder, destination))
