"""The envelope that carries signed bytes: DSSE with one Ed25519 signature, in one canonical form.

DSSE signs the payload's bytes together with their type (its pre-authentication encoding, PAE), so nothing has to be
parsed before the signature is checked. The specification allows several signatures, both alphabets of Base64 and any
spelling of the JSON; other tools may read ours, and ours reads only its own, so that no byte of one can be changed
without being noticed. Source: github.com/secure-systems-lab/dsse, protocol.md and envelope.md.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgekit.bundle.layout import ENVELOPE, MAX_ENVELOPE_BYTES
from edgekit.core.canonical import dump_canonical
from edgekit.core.strict import canonical_document, checked_keys, sha256_text
from edgekit.errors import DefectError, IntegrityError
from edgekit.signing.ed25519 import SIGNATURE_BYTES
from edgekit.signing.keys import PublicKey

__all__ = ["PAYLOAD_TYPE", "Envelope", "pae", "parse_envelope"]

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

_WHAT = "An envelope"
_KINDS: Mapping[str, tuple[type, ...]] = {"payload": (str,), "payloadType": (str,), "signatures": (list,)}
_SIGNATURE_KINDS: Mapping[str, tuple[type, ...]] = {"keyid": (str,), "sig": (str,)}


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: type and payload, each behind its length in bytes."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True)
class Envelope:
    """Signed bytes and their signature.

    Attributes:
        payload: The bytes; of type `PAYLOAD_TYPE`.
        key_id: Which key is said to have signed them; see `PublicKey.key_id`.
        signature: 64 bytes over `signed_bytes`.
    """

    payload: bytes
    key_id: str
    signature: bytes

    @property
    def signed_bytes(self) -> bytes:
        """What the signature is of."""
        return pae(PAYLOAD_TYPE, self.payload)

    def is_signed_by(self, key: PublicKey) -> bool:
        """Whether this very key signed it; what the envelope says of its key has to agree."""
        return self.key_id == key.key_id and key.verifies(self.signed_bytes, self.signature)

    def to_bytes(self) -> bytes:
        """Canonical JSON.

        Raises:
            DefectError: Larger than any envelope may be.
        """
        signature = {"keyid": self.key_id, "sig": _text(self.signature)}
        data = dump_canonical({"payload": _text(self.payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]})
        if len(data) > MAX_ENVELOPE_BYTES:
            raise DefectError("An envelope became too large.", found=f"{len(data)} bytes")
        return data


def parse_envelope(data: bytes, *, where: str) -> Envelope:
    """Read an untrusted envelope; whether its signature is good is a question for `Envelope.is_signed_by`.

    Raises:
        IntegrityError: Anything but the bytes that `Envelope.to_bytes` writes: too large, another spelling or order,
            a repeated, missing or unknown key, another type of payload, Base64 in another alphabet or with spare bits,
            no signature or several.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise _malformed(where, f"at most {MAX_ENVELOPE_BYTES} bytes", f"{len(data)} bytes")
    raw = checked_keys(canonical_document(data, where=where), _KINDS, where=where, what=_WHAT)
    if raw["payloadType"] != PAYLOAD_TYPE:
        raise _malformed(f"{where}: payloadType", PAYLOAD_TYPE, ascii(raw["payloadType"])[:100])
    if len(raw["signatures"]) != 1:
        raise _malformed(f"{where}: signatures", "exactly one", str(len(raw["signatures"])))
    signature = checked_keys(raw["signatures"][0], _SIGNATURE_KINDS, where=f"{where}: signatures", what=_WHAT)
    envelope = Envelope(
        payload=_bytes(raw["payload"], f"{where}: payload"),
        key_id=sha256_text(signature["keyid"], where=f"{where}: keyid"),
        signature=_bytes(signature["sig"], f"{where}: sig"),
    )
    if len(envelope.signature) != SIGNATURE_BYTES:
        raise _malformed(f"{where}: sig", f"{SIGNATURE_BYTES} bytes", f"{len(envelope.signature)} bytes")
    return envelope


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str, where: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as cause:
        raise _malformed(where, "standard Base64", ascii(text)[:60]) from cause
    # Several texts decode to the same bytes: those with bits behind the last byte.
    if _text(data) != text:
        raise _malformed(where, "standard Base64 without spare bits", ascii(text[-8:]))
    return data


def _malformed(where: str, expected: str, found: str) -> IntegrityError:
    return IntegrityError(
        f"{_WHAT} is malformed.",
        where=where,
        expected=expected,
        found=found,
        hint=f"take the bundle again from where it was signed; or delete {ENVELOPE} from it unpacked, and sign it anew",
    )
