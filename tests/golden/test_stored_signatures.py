"""Envelopes that a released format wrote beside stored bundles still check, for ever.

Each was signed once, by a key whose private half was thrown away: nobody can make another one for the same key.
"""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edgekit.bundle.layout import ENVELOPE
from edgekit.bundle.open import open_bundle
from edgekit.bundle.pack import write_tar
from edgekit.errors import IntegrityError
from edgekit.release.check import CheckOptions, check
from edgekit.release.installation import Installation
from edgekit.signing.keys import read_public_key

STORED = sorted(Path(__file__).parent.glob("bundle-*.intoto.json"))
OPTIONS = CheckOptions(now=datetime(2027, 1, 1, tzinfo=timezone.utc), here=Installation("x86_64", "Linux"))


def signed(path: Path, work: Path) -> Path:
    """The stored bundle with its stored envelope in it."""
    name = path.name.removesuffix(".intoto.json")
    open_bundle(path.with_name(f"{name}.tar"), unpack_to=work / name)
    shutil.copyfile(path, work / name / ENVELOPE)
    return work / name


def test_envelopes_are_stored() -> None:
    assert STORED


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_a_stored_envelope_checks(path: Path, tmp_path: Path) -> None:
    key = read_public_key(path.with_name(path.name.replace(".intoto.json", ".pub")))
    folder = signed(path, tmp_path)
    write_tar(folder, tmp_path / "whole.tar")
    for place in (folder, tmp_path / "whole.tar"):
        done = check(place, [key], OPTIONS)
        assert (done.key_id, done.gate.outcome) == (key.key_id, "pass")
        assert done.device == ("architecture x86_64", "operating system Linux")


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_a_stored_envelope_can_fail(path: Path, tmp_path: Path) -> None:
    key = read_public_key(path.with_name(path.name.replace(".intoto.json", ".pub")))
    folder = signed(path, tmp_path)
    data = (folder / ENVELOPE).read_bytes()
    (folder / ENVELOPE).write_bytes(data.replace(b'"payload": "ew', b'"payload": "e3'))
    assert (folder / ENVELOPE).read_bytes() != data
    with pytest.raises(IntegrityError, match="signature is wrong"):
        check(folder, [key], OPTIONS)
