"""Verifying Ed25519 signatures with the standard library alone: RFC 8032, and strict where it leaves a choice.

Only verification: nothing here ever sees a secret, so nothing has to take the same time for every input. Devices have
no `cryptography` (its wheels need a newer C library than JetPack 5 brings), and one implementation for host and device
means that no envelope is good on one and bad on the other. Source of formulas and constants: RFC 8032, section 5.1.
"""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias

__all__ = ["PUBLIC_KEY_BYTES", "SIGNATURE_BYTES", "is_sound_key", "verify_signature"]

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_ROOT_OF_MINUS_ONE: Final = pow(2, (_P - 1) // 4, _P)

# Extended homogeneous coordinates: x = X/Z, y = Y/Z, x*y = T/Z.
_Point: TypeAlias = tuple[int, int, int, int]
_NEUTRAL: Final[_Point] = (0, 1, 1, 0)


def is_sound_key(key: bytes) -> bool:
    """Whether 32 bytes are a public key that signatures may be held against.

    False for another length, for no point of the curve, for a second spelling of one (y not below the field's prime, or
    a sign for x = 0), and for the points of small order: under those, one signature is good for many messages.
    """
    point = _decoded(key)
    return point is not None and not _is_small(point)


def verify_signature(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the signature of `message` under `key`. Never raises for any bytes.

    Stricter than RFC 8032 asks: besides S not below the group's order, which would make a second signature of every
    one, it refuses keys and commitments R that `is_sound_key` refuses. The equation is the one without the cofactor,
    as in OpenSSL, so that two verifiers do not differ over crafted signatures.

    Args:
        key: 32 bytes.
        message: Of any length.
        signature: 64 bytes, R and S.
    """
    if len(signature) != SIGNATURE_BYTES:
        return False
    commitment, scalar = signature[:32], int.from_bytes(signature[32:], "little")
    public = _decoded(key)
    if scalar >= _ORDER or public is None or _is_small(public) or not is_sound_key(commitment):
        return False
    challenge = int.from_bytes(hashlib.sha512(commitment + key + message).digest(), "little") % _ORDER
    return _encoded(_sum_of_multiples(scalar, _BASE, challenge, _negated(public))) == commitment


def _decoded(data: bytes) -> _Point | None:
    """RFC 8032, 5.1.3; None for whatever is not the one encoding of a point."""
    if len(data) != PUBLIC_KEY_BYTES:
        return None
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= _P:
        return None
    x = _root(y)
    if x is None or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return (x, y, 1, x * y % _P)


def _root(y: int) -> int | None:
    """A square root of x^2 = (y^2 - 1) / (d y^2 + 1), or None where there is none."""
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P == u:
        return x
    x = x * _ROOT_OF_MINUS_ONE % _P
    return x if v * x * x % _P == u else None


def _encoded(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _added(one: _Point, two: _Point) -> _Point:
    a = (one[1] - one[0]) * (two[1] - two[0]) % _P
    b = (one[1] + one[0]) * (two[1] + two[0]) % _P
    c = 2 * one[3] * two[3] * _D % _P
    d = 2 * one[2] * two[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _doubled(point: _Point) -> _Point:
    a = point[0] * point[0] % _P
    b = point[1] * point[1] % _P
    h = a + b
    e = h - (point[0] + point[1]) ** 2
    g = a - b
    f = 2 * point[2] * point[2] + g
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _negated(point: _Point) -> _Point:
    return (-point[0] % _P, point[1], point[2], -point[3] % _P)


def _is_small(point: _Point) -> bool:
    """Whether eight times the point is the neutral element: its order divides the cofactor."""
    x, y, z, _ = _doubled(_doubled(_doubled(point)))
    return x % _P == 0 and (y - z) % _P == 0


def _sum_of_multiples(m: int, one: _Point, n: int, two: _Point) -> _Point:
    """The sum of m times one and n times two, bit by bit in one pass."""
    chosen = (None, one, two, _added(one, two))
    total = _NEUTRAL
    for bit in range(max(m.bit_length(), n.bit_length()) - 1, -1, -1):
        total = _doubled(total)
        term = chosen[(m >> bit & 1) | (n >> bit & 1) << 1]
        if term is not None:
            total = _added(total, term)
    return total


def _base() -> _Point:
    point = _decoded((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    if point is None:  # the RFC's own constant
        raise AssertionError("the base point of Ed25519 is not on its curve")
    return point


_BASE: Final = _base()
