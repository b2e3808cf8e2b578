"""A folder for work in progress that survives a kill, beside the folder that a stage fills.

`<destination>.work/<key>`: the key is the stage's, so that work begun with other options or inputs is never gone on
with. It is removed when the stage has ended, and what is left of other keys with it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit.core.files import foreign_os_errors
from edgekit.errors import BadInputError, DefectError

__all__ = ["kept_workplace", "workplace_of"]

# What we made ourselves. Whatever else somebody keeps in a folder of that name stays.
_KEY = re.compile(r"[0-9a-f]{64}")


@contextmanager
def kept_workplace(destination: Path, key: str) -> Iterator[Path]:
    """Yield the folder in which the stage that fills `destination` under `key` may leave what it would go on with.

    It may not be there yet, and hold what a killed process left. It is removed when the block ends, unless by an error
    after which the same command could still succeed: an interrupt, a full disk.
    """
    around = workplace_of(destination, key).parent
    try:
        yield around / key
    except (BadInputError, DefectError):
        _clear(around)
        raise
    _clear(around)


def workplace_of(destination: Path, key: str) -> Path:
    """The same folder, for a process that only looks into it."""
    return destination.with_name(f"{destination.name}.work") / key


def _clear(around: Path) -> None:
    if not around.is_dir():
        return
    with foreign_os_errors(around, "remove finished work"):
        for item in around.iterdir():
            if _KEY.fullmatch(item.name):
                shutil.rmtree(item)
        if not any(around.iterdir()):
            around.rmdir()
