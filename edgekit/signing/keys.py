"""Public keys: Ed25519 as PEM SubjectPublicKeyInfo (RFC 8410), read and written without `cryptography`.

An identifier of a key is the SHA-256 of its DER form. It says which of several keys to hold a signature against, and
proves nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.core.files import foreign_os_errors
from edgekit.errors import BadInputError
from edgekit.signing.ed25519 import PUBLIC_KEY_BYTES, is_sound_key, verify_signature

__all__ = ["PublicKey", "public_key_from_pem", "read_public_key"]

# SEQUENCE { SEQUENCE { OID 1.3.101.112 } BIT STRING { 0 unused bits, 32 bytes } }: fixed but for the key.
_DER_HEAD: Final = bytes.fromhex("302a300506032b6570032100")
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----\r?\n([A-Za-z0-9+/=\r\n]{60,70})-----END PUBLIC KEY-----\s*", re.ASCII)
_LARGEST = 4096
_MAKE_ONE = "'edgekit keys new' makes a pair of keys; the one that ends in .pub is public"


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are held against.

    Attributes:
        raw: 32 bytes, a sound point of the curve (see `is_sound_key`).
    """

    raw: bytes

    def __post_init__(self) -> None:
        if not is_sound_key(self.raw):
            raise BadInputError(
                "This is no public key.",
                expected=f"{PUBLIC_KEY_BYTES} bytes that encode a point of Ed25519, of large order and in one way",
                found=f"{len(self.raw)} bytes: {self.raw[:40].hex()}",
                hint=_MAKE_ONE,
            )

    @property
    def der(self) -> bytes:
        """SubjectPublicKeyInfo, 44 bytes."""
        return _DER_HEAD + self.raw

    @property
    def key_id(self) -> str:
        """SHA-256 of the DER form, 64 lower-case hexadecimal digits."""
        return hashlib.sha256(self.der).hexdigest()

    def to_pem(self) -> bytes:
        """The content of a .pub file, which OpenSSL reads too."""
        body = base64.b64encode(self.der)
        return b"-----BEGIN PUBLIC KEY-----\n" + body + b"\n-----END PUBLIC KEY-----\n"

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's, of `message`; see `verify_signature`."""
        return verify_signature(self.raw, message, signature)


def public_key_from_pem(data: bytes, *, where: str) -> PublicKey:
    """Read a public key.

    Raises:
        BadInputError: No PEM of one Ed25519 public key; a private key is called that, and nothing of it is shown.
    """
    # Said first, and without a look at the rest: a private key has no business where signatures are checked.
    if b"PRIVATE KEY" in data:
        raise BadInputError(
            "This is a private key where a public one belongs.",
            where=where,
            expected="-----BEGIN PUBLIC KEY-----",
            hint="give the file that ends in .pub, and take the private key away from here if others can read it",
        )
    match = _PEM.fullmatch(data)
    der = _strict_base64(b"".join(match[1].split())) if match else None
    if der is None or not der.startswith(_DER_HEAD) or len(der) != len(_DER_HEAD) + PUBLIC_KEY_BYTES:
        raise BadInputError(
            "This is no public key.",
            where=where,
            expected="one PEM block, BEGIN PUBLIC KEY, of an Ed25519 key",
            found=f"{len(data)} bytes of something else, or a key of another kind",
            hint=_MAKE_ONE,
        )
    try:
        return PublicKey(der[len(_DER_HEAD) :])
    except BadInputError as cause:
        raise BadInputError(
            cause.message, where=where, expected=cause.expected, found=cause.found, hint=cause.hint
        ) from cause


def read_public_key(path: Path) -> PublicKey:
    """Read a public key's file. Raises `BadInputError` where it cannot be read or is none."""
    with foreign_os_errors(path, "read a public key"), path.open("rb") as stream:
        data = stream.read(_LARGEST)
    return public_key_from_pem(data, where=str(path))


def _strict_base64(text: bytes) -> bytes | None:
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    # Several texts decode to the same bytes: those with bits behind the last byte.
    return decoded if base64.b64encode(decoded) == text else None
