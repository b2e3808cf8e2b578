"""What an explained graph says it was made of: digests that `export` writes into it and runners read out of it.

They ride in the metadata of the ONNX file and of all that is made of it: Q/DQ graph, FP16 types. Nothing trusts them:
they are what a diagnosis compares, and a graph without them is as good as one with them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["MADE_OF", "STUDENT_KEY", "TEACHER_KEY", "made_of", "said_to_be_made_of"]

STUDENT_KEY = "edgekit.student"
"""Key of the SHA-256 of the file with the weights that are in the graph."""
TEACHER_KEY = "edgekit.teacher"
"""Key of the SHA-256 of the file of the teacher that they are compared with."""
MADE_OF = "made_of"
"""Where an engine's `EngineInfo.details` hold both, as "student" and "teacher"."""

_NAMES = {STUDENT_KEY: "student", TEACHER_KEY: "teacher"}
_DIGEST = re.compile(r"[0-9a-f]{64}")


def made_of(metadata: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The entry for `EngineInfo.details` by the metadata of an ONNX file; empty where that says nothing.

    What is no SHA-256 is left out: it names no file.
    """
    said = {name: metadata[key] for key, name in _NAMES.items() if _DIGEST.fullmatch(metadata.get(key, ""))}
    return {MADE_OF: said} if said else {}


def said_to_be_made_of(details: Mapping[str, Any], name: str) -> str:
    """The SHA-256 of "student" or "teacher" by an engine's details; empty where the engine does not tell."""
    said = details.get(MADE_OF, {})
    return str(said.get(name, "")) if isinstance(said, Mapping) else ""
