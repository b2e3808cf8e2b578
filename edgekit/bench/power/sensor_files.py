"""Reading files that a kernel shows of its sensors: one short line each, and every trouble told in the same words."""

from __future__ import annotations

from pathlib import Path

from edgekit.bench.power.registry import PowerReadError

__all__ = ["read_number", "read_text"]

_LONGEST = 200


def read_text(file: Path) -> str:
    """The text of a file without blanks around it. Raises `PowerReadError` where it cannot be read."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(_LONGEST)
    except PermissionError as cause:
        raise PowerReadError(f"{_shown(file)} may not be read by this user (often root alone may)") from cause
    except OSError as cause:
        raise PowerReadError(f"{_shown(file)} cannot be read ({cause.strerror or 'unknown'})") from cause
    text = raw.decode("utf-8", errors="replace")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def read_number(file: Path) -> int:
    """The whole number in a file. Raises `PowerReadError` where there is none."""
    text = read_text(file)
    # int() takes more than the kernel writes: "1_000", or digits of other scripts.
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit()):
        raise PowerReadError(f"{_shown(file)} holds {text[:40]!r} where a whole number is expected")
    return int(text)


def _shown(file: Path) -> str:
    """The last two parts of a path tell which sensor it is, and stay the same on every machine."""
    return "/".join(file.parts[-2:])
