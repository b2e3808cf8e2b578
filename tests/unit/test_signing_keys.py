"""Keys: public ones are one text for one key, private ones stay where they are and say nothing."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import shutil
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_bundles import KEY, key_of, make_bundle

from edgekit.bundle.pack import write_tar
from edgekit.errors import BadInputError
from edgekit.signing.keys import PublicKey, public_key_from_pem, read_public_key
from edgekit.signing.private import PrivateKey, new_private_key, read_private_key, write_key_pair

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes of files are a matter of POSIX")


def openssl_key(key: PublicKey) -> bytes:
    """The raw key that `cryptography` reads out of our text."""
    loaded = serialization.load_pem_public_key(key.to_pem())
    return loaded.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def nobody() -> str:
    raise AssertionError("a key without a passphrase asked for one")


@settings(max_examples=40, derandomize=True, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32))
def test_the_text_of_a_public_key_is_openssls(seed: bytes) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key = PublicKey(private.public_key().public_bytes_raw())
    theirs = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert key.to_pem() == theirs
    assert public_key_from_pem(theirs, where="pem") == key
    assert openssl_key(key) == key.raw
    assert key.der == private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def other_curve() -> bytes:
    key = generate_private_key(SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def pem_of(der: bytes) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        KEY.public.raw,
        KEY.public.to_pem()[:-5],
        KEY.public.to_pem() * 2,
        b"x" + KEY.public.to_pem(),
        KEY.public.to_pem() + b"trailing",
        KEY.public.to_pem().replace(b"PUBLIC", b"PUBL1C"),
        KEY.public.to_pem().replace(b"MCow", b"MCo*"),
        pem_of(KEY.public.der[:-1]),
        pem_of(KEY.public.der + b"\0"),
        pem_of(KEY.public.der[:8] + b"\x71" + KEY.public.der[9:]),
        pem_of(KEY.public.der[:12] + b"\1" + bytes(31)),
        pem_of(KEY.public.der[:12] + b"\xff" * 32),
        other_curve(),
    ],
    ids=lambda data: str(len(data)),
)
def test_what_is_no_public_key(data: bytes) -> None:
    with pytest.raises(BadInputError, match="no public key") as raised:
        public_key_from_pem(data, where="release.pub")
    assert raised.value.where == "release.pub"
    assert "edgekit keys new" in (raised.value.hint or "")


def test_spare_bits_at_the_end_of_the_text_are_refused() -> None:
    text = KEY.public.to_pem()
    assert text.count(b"=\n-----END") == 1
    body = text.splitlines()[1]
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = body.rstrip(b"=")[-1:]
    other = alphabet[alphabet.index(last) + 1 :][:1]
    changed = text.replace(body, body.rstrip(b"=")[:-1] + other + b"=")
    assert base64.b64decode(changed.splitlines()[1]) == base64.b64decode(body)
    with pytest.raises(BadInputError):
        public_key_from_pem(changed, where="pem")


def test_windows_line_ends_are_the_same_key() -> None:
    assert public_key_from_pem(KEY.public.to_pem().replace(b"\n", b"\r\n"), where="pem") == KEY.public


def test_a_private_key_where_a_public_one_belongs_is_named_and_not_shown(tmp_path: Path) -> None:
    private, _ = write_key_pair(KEY, tmp_path / "keys", "k")
    with pytest.raises(BadInputError, match="private key where a public one") as raised:
        read_public_key(private)
    secret = private.read_text().splitlines()[1]
    assert secret not in str(raised.value)


@posix_only
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_a_pair_is_written_for_its_owner(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        private, public = write_key_pair(KEY, tmp_path / "keys", "release")
    finally:
        os.umask(before)
    assert (private.name, public.name) == ("release.key", "release.pub")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    assert read_public_key(public) == KEY.public
    assert read_private_key(private, nobody).public == KEY.public


def test_openssl_reads_what_is_written(tmp_path: Path) -> None:
    private, _ = write_key_pair(KEY, tmp_path, "plain")
    loaded = serialization.load_pem_private_key(private.read_bytes(), None)
    assert isinstance(loaded, Ed25519PrivateKey)
    private, _ = write_key_pair(KEY, tmp_path, "locked", "correct horse \u00e9")
    loaded = serialization.load_pem_private_key(private.read_bytes(), "correct horse \u00e9".encode())
    assert loaded.sign(b"m") == KEY.sign(b"m")


def test_a_new_key_is_a_new_key_and_signs(tmp_path: Path) -> None:
    one, two = new_private_key(), new_private_key()
    assert one.public.key_id != two.public.key_id
    assert one.public.verifies(b"m", one.sign(b"m"))
    assert not two.public.verifies(b"m", one.sign(b"m"))


def test_a_passphrase_is_needed_and_has_to_be_right(tmp_path: Path) -> None:
    private, _ = write_key_pair(KEY, tmp_path, "k", "open sesame")
    assert b"ENCRYPTED" in private.read_bytes()
    assert read_private_key(private, lambda: "open sesame").public == KEY.public
    for wrong in ("open sesame ", "x"):
        with pytest.raises(BadInputError, match="cannot be read") as raised:
            read_private_key(private, lambda text=wrong: text)  # type: ignore[misc]
        assert raised.value.__cause__ is None
        assert wrong not in (raised.value.found or "").split()


@pytest.mark.parametrize("present", ["k.key", "k.pub"])
def test_no_key_is_ever_replaced(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_bytes(b"precious")
    with pytest.raises(BadInputError, match="never replaced"):
        write_key_pair(KEY, tmp_path, "k")
    assert [path.name for path in tmp_path.iterdir()] == [present]
    assert (tmp_path / present).read_bytes() == b"precious"


def test_no_key_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "k.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInputError, match="never replaced"):
        write_key_pair(KEY, tmp_path / "keys", "k")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../k", "/k"])
def test_a_name_with_folders_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInputError, match="no name for a key"):
        write_key_pair(KEY, tmp_path / "keys", name)
    assert list(tmp_path.rglob("*.key")) == []


def test_no_key_goes_inside_or_beside_a_bundle(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "work", count=4)
    write_tar(folder, tmp_path / "tars" / "release.tar")
    (tmp_path / "link").symlink_to(folder / "golden", target_is_directory=True)
    places: dict[str, Path] = {
        "the bundle": folder,
        "a folder inside": folder / "golden",
        "a new folder inside": folder / "keys" / "mine",
        "the folder it lies in": folder.parent,
        "the folder of its tar file": tmp_path / "tars",
        "a link to the inside": tmp_path / "link",
    }
    before = sorted(tmp_path.rglob("*"))
    for what, place in places.items():
        with pytest.raises(BadInputError, match="inside or beside a bundle"):
            write_key_pair(KEY, place, "k")
        assert sorted(tmp_path.rglob("*")) == before, what
    write_key_pair(KEY, tmp_path / "keys", "k")


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    private, _ = write_key_pair(KEY, tmp_path, "k")
    private.chmod(mode)
    with pytest.raises(BadInputError, match="Others on this machine") as raised:
        read_private_key(private, nobody)
    assert "chmod 600" in (raised.value.hint or "")
    private.chmod(0o400)
    assert read_private_key(private, nobody).public == KEY.public


@pytest.mark.parametrize("content", [b"", b"text", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_private_key(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BadInputError, match="cannot be read"):
        read_private_key(path, nobody)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.key"
    how = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(generate_private_key(SECP256R1()).private_bytes(*how))
    path.chmod(0o600)
    with pytest.raises(BadInputError) as raised:
        read_private_key(path, nobody)
    assert raised.value.found == "a key of another kind"


def secrets_of(key: PrivateKey) -> tuple[str, ...]:
    raw = key._key.private_bytes_raw()
    return (raw.hex(), base64.b64encode(raw).decode()[:40], repr(raw), key.to_pem(None).splitlines()[1].decode())


def raised_by(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception:
        return traceback.format_exc()
    raise AssertionError("nothing was raised")


def test_nothing_tells_a_private_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = key_of(9)
    with caplog.at_level(logging.DEBUG):
        folder = make_bundle(tmp_path / "work", count=4)
        private, _ = write_key_pair(key, tmp_path / "keys", "k")
        damaged = tmp_path / "damaged.key"
        shutil.copy(private, damaged)
        damaged.write_bytes(private.read_bytes().replace(b"MC4", b"MC5"))
        damaged.chmod(0o600)
        told = [
            repr(key),
            str(key),
            f"{key}",
            repr(vars(type(key))),
            repr(read_private_key(private, nobody)),
            raised_by(lambda: pickle.dumps(key)),
            raised_by(lambda: write_key_pair(key, folder, "k")),
            raised_by(lambda: write_key_pair(key, tmp_path / "keys", "k")),
            raised_by(lambda: read_private_key(damaged, nobody)),
            raised_by(lambda: read_public_key(private)),
            caplog.text,
        ]
    assert key.public.key_id in told[0]
    assert not [secret for secret in secrets_of(key) for text in told if secret in text]
