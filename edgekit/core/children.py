"""Child processes of edgekit's own: what they inherit, and how an error of ours travels back through a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit import errors
from edgekit.errors import DefectError, EdgekitError

__all__ = ["child_environment", "error_from_dict", "error_to_dict"]

_DETAILS = ("expected", "found", "where", "hint")


def child_environment() -> dict[str, str]:
    """This process's environment, with its module search path: the child imports what we import."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


def error_to_dict(error: EdgekitError) -> dict[str, str | None]:
    """An error, JSON-ready."""
    details = {key: getattr(error, key) for key in ("message", *_DETAILS)}
    return {"error": type(error).__name__, **details}


def error_from_dict(raw: Mapping[str, Any]) -> EdgekitError:
    """What `error_to_dict` wrote; a `DefectError` where it is no error of ours."""
    kind = getattr(errors, str(raw.get("error")), None)
    details = {key: None if raw.get(key) is None else str(raw[key]) for key in _DETAILS}
    if not (isinstance(kind, type) and issubclass(kind, EdgekitError)):
        return DefectError("A process of edgekit's own failed in an unknown way.", found=repr(dict(raw))[:500])
    return kind(str(raw.get("message")), **details)
