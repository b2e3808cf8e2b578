"""How a preset's name and a file's are told apart, in one place for recipes and policies."""

from __future__ import annotations

from pathlib import Path

__all__ = ["is_file_name"]


def is_file_name(source: str | Path) -> bool:
    """Whether `source` is a path rather than the name of a preset.

    By its looks and not by what lies in the current folder: a file called "default" must not change what a command
    means.
    """
    text = str(source)
    return isinstance(source, Path) or "/" in text or "\\" in text or bool(Path(text).suffix)
