"""Strict reading of documents that travel: exact keys, exact types, canonical bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.errors import IntegrityError

__all__ = ["canonical_document", "checked_keys", "sha256_text"]

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def canonical_document(data: bytes, *, where: str) -> Any:
    """The JSON value of bytes that are its one canonical form.

    Raises:
        IntegrityError: No JSON, or other bytes than `dump_canonical` writes of it: somebody edited the file.
    """
    value = parse_strict(data, where=where)
    if dump_canonical(value) != data:
        raise IntegrityError(
            "A document was edited after edgekit wrote it.",
            where=where,
            expected="canonical JSON: keys in order, one space of indentation a level",
            found="the same document in other bytes, or with another spelling of a number",
            hint="use the file as it was written",
        )
    return value


def checked_keys(raw: object, kinds: Mapping[str, tuple[type, ...]], *, where: str, what: str) -> dict[str, Any]:
    """A mapping with exactly these keys and types; `bool` is no `int`.

    Raises:
        IntegrityError: It is something else; the message names the keys.
    """
    if not isinstance(raw, dict) or set(raw) != set(kinds):
        found = ", ".join(sorted(map(str, raw))) if isinstance(raw, dict) else type(raw).__name__
        raise IntegrityError(
            f"{what} is malformed.", where=where, expected="exactly the keys " + ", ".join(sorted(kinds)), found=found
        )
    wrong = sorted(key for key, allowed in kinds.items() if type(raw[key]) not in allowed)
    if wrong:
        raise IntegrityError(
            f"{what} is malformed.",
            where=f"{where}: {', '.join(wrong)}",
            expected=", ".join(" or ".join(kind.__name__ for kind in kinds[key]) for key in wrong),
            found=", ".join(type(raw[key]).__name__ for key in wrong),
        )
    return raw


def sha256_text(value: object, *, where: str) -> str:
    """A digest as it is written. Raises `IntegrityError` where it is none."""
    if not isinstance(value, str) or _SHA256.fullmatch(value) is None:
        raise IntegrityError(
            "A digest is malformed.", where=where, expected="64 lower-case hexadecimal digits", found=ascii(value)[:100]
        )
    return value
