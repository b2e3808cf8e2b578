"""Private keys, on the host: made, stored encrypted or not, read, and used to sign; the one place with `cryptography`.

A private key leaves this module as a signature, or as a file that only its owner can read. It is in no message, no
exception, no `repr` and no pickle, and it is never written where a bundle might take it along.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from edgekit.bundle.layout import MANIFEST
from edgekit.core.files import foreign_os_errors
from edgekit.errors import BadInputError, UnavailableError
from edgekit.signing.keys import PublicKey

__all__ = ["PrivateKey", "check_private_file", "new_private_key", "read_private_key", "write_key_pair"]

_LARGEST = 16 * 1024
_PRIVATE, _PUBLIC = ".key", ".pub"


class PrivateKey:
    """A key that signs.

    Args:
        key: `cryptography`'s Ed25519PrivateKey.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: Any) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes."""
        return bytes(self._key.sign(message))

    def to_pem(self, passphrase: str | None) -> bytes:
        """PKCS 8 in PEM, encrypted where there is a passphrase."""
        serialization = _serialization()
        how = (
            serialization.BestAvailableEncryption(passphrase.encode("utf-8"))
            if passphrase
            else serialization.NoEncryption()
        )
        return bytes(self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))

    def __repr__(self) -> str:
        return f"PrivateKey(of {self.public.key_id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled")


def new_private_key() -> PrivateKey:
    """A new key from the system's random numbers. Raises `UnavailableError` without `cryptography`."""
    _serialization()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return PrivateKey(Ed25519PrivateKey.generate())


def write_key_pair(key: PrivateKey, folder: Path, name: str, passphrase: str | None = None) -> tuple[Path, Path]:
    """Store a private key and its public key as `name`.key and `name`.pub.

    Args:
        key: The key.
        folder: Where; made, for its owner alone, where it is missing.
        name: Of the files, without folders in it.
        passphrase: Encrypt the private key under it; None or empty leaves it readable for whoever has the file.

    Returns:
        Both paths, the private one first.

    Raises:
        BadInputError: One of the files is there (none is ever replaced), the name is no name, the folder is a
            bundle's, inside one or holds one, or it cannot be written.
    """
    if not name or name != Path(name).name or name in (".", ".."):
        raise BadInputError("This is no name for a key.", expected="a file name without folders", found=ascii(name))
    private, public = folder / f"{name}{_PRIVATE}", folder / f"{name}{_PUBLIC}"
    _check_place(folder)
    with foreign_os_errors(folder, "write a key"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.path.lexists(public):
        raise _occupied(public)
    _write_new(private, key.to_pem(passphrase), 0o600)
    try:
        _write_new(public, key.public.to_pem(), 0o644)
    except BaseException:
        private.unlink(missing_ok=True)
        raise
    return private, public


def read_private_key(path: Path, passphrase: Callable[[], str]) -> PrivateKey:
    """Read a private key.

    Args:
        path: PKCS 8 in PEM, of an Ed25519 key.
        passphrase: Asked only where the key is encrypted.

    Raises:
        BadInputError: It cannot be read, others can read it, it is no such key, or the passphrase is wrong.
        UnavailableError: `cryptography` is not installed.
    """
    serialization = _serialization()
    data = check_private_file(path)
    encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in data
    secret = passphrase().encode("utf-8") if encrypted else None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    problem = "the passphrase is wrong, or the file is damaged" if encrypted else "it is none, or damaged"
    key: Any = None
    # Nothing of the cause is handed on: what a parser says of a secret may quote it.
    with suppress(Exception):
        key = serialization.load_pem_private_key(data, password=secret)
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInputError(
            "A private key cannot be read.",
            where=str(path),
            expected="an Ed25519 key, PKCS 8 in PEM",
            found=problem if key is None else "a key of another kind",
            hint="'edgekit keys new' makes one" if not encrypted else "try the passphrase again",
        )
    return PrivateKey(key)


def check_private_file(path: Path) -> bytes:
    """The content of a private key's file. Raises `BadInputError` where it cannot be read, or others can read it."""
    with foreign_os_errors(path, "read a private key"), path.open("rb") as stream:
        _check_mode(os.fstat(stream.fileno()).st_mode, path)
        return stream.read(_LARGEST)


def _serialization() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as cause:
        raise UnavailableError(
            "Making keys and signing needs the package 'cryptography', which is not installed.",
            hint='python -m pip install "edgekit[host]"; checking a signature does not need it',
        ) from cause
    return serialization


def _check_place(folder: Path) -> None:
    """Refuse a folder whose files might be packed, copied or published together with a bundle."""
    with foreign_os_errors(folder, "look at the folder for a key"):
        place = folder.resolve()
        inside = [item for item in (place, *place.parents) if _is_bundle(item)]
        beside = sorted(place.iterdir()) if place.is_dir() else []
        found = inside or [item for item in beside if _is_bundle(item)]
    if found:
        raise BadInputError(
            "A private key is never written inside or beside a bundle: it would travel with it.",
            where=str(place),
            expected="a folder of its own, such as the default of 'edgekit keys new'",
            found=f"the bundle {found[0]}",
            hint="choose another folder with --output",
        )


def _is_bundle(path: Path) -> bool:
    # What may not be looked at is no bundle of this user's.
    with suppress(OSError):
        if path.is_dir():
            return (path / MANIFEST).is_file()
        if path.suffix == ".tar" and path.is_file():
            with path.open("rb") as stream:
                return stream.read(len(MANIFEST)) == MANIFEST.encode()
    return False


def _write_new(path: Path, data: bytes, mode: int) -> None:
    with foreign_os_errors(path, "write a key"):
        try:
            # O_BINARY is Windows' word for leaving line ends alone.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            descriptor = os.open(path, flags, mode)
        except FileExistsError as cause:
            raise _occupied(path) from cause
    try:
        with foreign_os_errors(path, "write a key"), os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _occupied(path: Path) -> BadInputError:
    return BadInputError(
        "A key is never replaced: what it signed could not be checked any more.",
        where=str(path),
        expected="no such file",
        hint="choose another --name",
    )


def _check_mode(mode: int, path: Path) -> None:
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadInputError(
            "Others on this machine may use this private key.",
            where=str(path),
            expected="a file that only its owner can read",
            found=f"mode {stat.S_IMODE(mode):04o}",
            hint=f"chmod 600 {path}; where others may have read it, make a new key",
        )
