"""Packages that only the host side has, named when they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.errors import UnavailableError

__all__ = ["needs_package"]


@contextmanager
def needs_package(package: str, extra: str) -> Iterator[None]:
    """Around an import: a missing package is an `UnavailableError` that says how to install it.

    Args:
        package: As people call it.
        extra: The extra of edgekit that brings it.
    """
    try:
        yield
    except ModuleNotFoundError as cause:
        raise UnavailableError(
            f"Drawing a report needs {package}, which is not installed.", hint=f"pip install 'edgekit[{extra}]'"
        ) from cause
