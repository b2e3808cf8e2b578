"""Which student's weights are in a bundle's engine, by the records of the stages that it came from."""

from __future__ import annotations

from edgekit.bundle.layout import LINEAGE
from edgekit.bundle.open import Bundle

__all__ = ["bundled_student"]

# The last of these that ran left the weights.
_STAGES = ("qat", "compress")
_STUDENT = "student.pt"


def bundled_student(bundle: Bundle) -> str:
    """SHA-256 of the student's file; empty where the bundle does not tell, as one that was packed by hand."""
    lineage = bundle.read_json(LINEAGE) if LINEAGE in bundle else {}
    try:
        record = next(lineage[name] for name in _STAGES if name in lineage)
        return str(record["outputs"][_STUDENT]["sha256"])
    except (StopIteration, KeyError, TypeError, AttributeError):
        return ""
