"""Canonical JSON: one byte string per value, so that digests of documents mean something.

Keys are sorted, separators fixed, text is UTF-8 without escapes, NaN and infinities are refused, and one newline ends
the file. Reading is strict: duplicate keys and non-finite numbers are integrity errors, since two readers could
otherwise see two documents in one file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from edgekit.core.files import read_bytes, write_bytes
from edgekit.errors import DefectError, IntegrityError

__all__ = ["JsonValue", "dump_canonical", "parse_strict", "read_json", "write_json"]

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

# Nesting deeper than any document of ours; json.loads would otherwise hit the interpreter's recursion limit.
_MAX_DEPTH = 64
_MAX_BYTES = 256 * 1024 * 1024


def dump_canonical(value: JsonValue) -> bytes:
    """Serialise `value` to canonical JSON bytes.

    Raises:
        DefectError: `value` holds something JSON cannot say, such as NaN; that is our bug, not the user's.
    """
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1, separators=(",", ": "))
        return (text + "\n").encode("utf-8")
    except (TypeError, ValueError) as cause:
        raise DefectError(f"A document could not be written as canonical JSON: {cause}") from cause


def parse_strict(data: bytes, *, where: str) -> Any:
    """Parse JSON from a source that may be hostile.

    Raises:
        IntegrityError: Not UTF-8, not JSON, a duplicate key, a non-finite number, half a surrogate pair, too deep or
            too large.
    """
    if len(data) > _MAX_BYTES:
        raise IntegrityError("A JSON file is implausibly large.", where=where, found=f"{len(data)} bytes")

    def refuse_constant(name: str) -> NoReturn:
        raise IntegrityError("A JSON file holds a number that is not finite.", where=where, found=name)

    def finite_float(digits: str) -> float:
        # "1e999" is valid JSON and reads as infinity.
        value = float(digits)
        return value if math.isfinite(value) else refuse_constant(digits)

    def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise IntegrityError("A JSON file names a key twice.", where=where, found=repr(repeated))
        return result

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=unique_object,
            parse_constant=refuse_constant,
            parse_float=finite_float,
        )
        # Half a surrogate pair can be escaped in JSON but never written as UTF-8, so it has no canonical form.
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    # ValueError: undecodable text, JSON that is none, and an integer of thousands of digits.
    except (ValueError, RecursionError) as cause:
        raise IntegrityError("A file is not valid JSON.", where=where, found=str(cause)) from cause
    _check_depth(value, where)
    return value


def _check_depth(value: Any, where: str) -> None:
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise IntegrityError("A JSON file is nested too deeply.", where=where, expected=f"at most {_MAX_DEPTH} levels")


def read_json(path: Path) -> Any:
    """Read a JSON file strictly. Raises like `parse_strict`, and `BadInputError` where the file cannot be read."""
    return parse_strict(read_bytes(path), where=str(path))


def write_json(path: Path, value: JsonValue) -> None:
    """Write `value` as canonical JSON, atomically."""
    write_bytes(path, dump_canonical(value))
