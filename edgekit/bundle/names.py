"""Which file names a bundle may use: names that mean the same file on every system that may ever unpack it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgekit.errors import IntegrityError

__all__ = ["MAX_NAME_LENGTH", "check_names"]

# A USTAR header holds this much without splitting; every name of the layout is far shorter.
MAX_NAME_LENGTH = 100
_MAX_FILES = 4096

# An allow-list. Every name in a bundle is one that edgekit chose, so nothing is lost by refusing the rest, and with it
# go at once: absolute and drive-letter paths, "..", hidden files, backslashes, control characters, spaces, and every
# pair of names that Unicode makes look alike or a file system folds together by normalisation.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?<!\.)", re.ASCII)

# Device names on Windows, whatever the extension (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", *(f"com{digit}" for digit in "0123456789"), *(f"lpt{digit}" for digit in "0123456789")]
)


def check_names(names: Iterable[str], *, where: str) -> None:
    """Refuse a set of names that could leave the bundle's folder or collide on some file system.

    Args:
        names: Relative POSIX paths of files.
        where: What names them, for the message.

    Raises:
        IntegrityError: A name is not plain ASCII segments joined by "/", is reserved on Windows, is too long, differs
            from another only by case, or is also the folder of another; or there are too many.
    """
    # Folded path of every file and folder, and the spelling it was first seen under.
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        problem = _problem(name)
        if problem is not None:
            raise IntegrityError("A bundle names a file unsafely.", where=where, expected=problem, found=ascii(name))
        if name.lower() in files:
            raise _collision(name, files[name.lower()], where)
        files[name.lower()] = name
        parents = name.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            folder = "/".join(parents[:depth])
            if folders.setdefault(folder.lower(), folder) != folder:
                raise _collision(folder, folders[folder.lower()], where)
    for folded in files.keys() & folders.keys():
        raise _collision(files[folded], folders[folded], where)
    if len(files) > _MAX_FILES:
        raise IntegrityError("A bundle names too many files.", where=where, expected=f"at most {_MAX_FILES}")


def _collision(name: str, other: str, where: str) -> IntegrityError:
    return IntegrityError(
        "A bundle holds two names that are one file or folder on some systems.",
        where=where,
        found=f"{name!r} and {other!r}",
    )


def _problem(name: object) -> str | None:
    """What was expected of `name` instead, or None when it is safe."""
    if not isinstance(name, str) or not name:
        return "a relative path"
    if len(name) > MAX_NAME_LENGTH:
        return f"at most {MAX_NAME_LENGTH} characters"
    for segment in name.split("/"):
        if _SEGMENT.fullmatch(segment) is None:
            return "segments of letters, digits and . _ - joined by '/', none hidden and none ending in a dot"
        if segment.split(".")[0].lower() in _RESERVED:
            return "no name that Windows reserves for a device"
    return None
