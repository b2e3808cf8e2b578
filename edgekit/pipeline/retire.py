"""Bundles of earlier runs in the same output: what must not be left standing beside a new one."""

from __future__ import annotations

import shutil

from edgekit.core.files import foreign_os_errors
from edgekit.pipeline.folders import BuildFolders

__all__ = ["retire_others"]

_VERIFIED = ("released", "blocked")


def retire_others(folders: BuildFolders, status: str) -> None:
    """Remove bundles of earlier runs with another status: a blocked build must not leave a release standing.

    A candidate that awaits its device claims nothing, and is left where it is until another replaces it.

    Args:
        folders: Where the bundles lie.
        status: Of the bundle that is about to be written.

    Raises:
        BadInputError: One cannot be removed.
    """
    for other in {folders.bundle(each) for each in _VERIFIED} - {folders.bundle(status)}:
        with foreign_os_errors(other, "remove the bundle of an earlier run"):
            if other.is_dir():
                shutil.rmtree(other)
            other.with_suffix(".tar").unlink(missing_ok=True)
