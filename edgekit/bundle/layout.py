"""Where things lie in a bundle: the one place that spells its file names."""

from __future__ import annotations

from edgekit.bundle.golden import GOLDEN_NAME

__all__ = [
    "CANDIDATES",
    "GOLDEN",
    "GOLDEN_INDEX",
    "LATENCY",
    "LINEAGE",
    "MANIFEST",
    "MODEL",
    "POLICY",
    "RECIPE",
    "REFERENCE",
    "REPORT_HTML",
    "REPORT_JSON",
    "SCALES",
    "SCORES",
    "VERDICT",
    "required_files",
]

MANIFEST = "manifest.json"

MODEL = "engine/model.onnx"
"""The artifact that ships: what was verified, byte for byte."""

REFERENCE = "engine/reference.onnx"
"""The FP32 explained graph, yardstick and bench partner. Absent where the shipped artifact is that very file."""

SCALES = "scales.json"
"""The scale table. Absent exactly where the shipped artifact is not quantised."""

GOLDEN = "golden"
GOLDEN_INDEX = f"{GOLDEN}/{GOLDEN_NAME}"
POLICY = "policy.json"
RECIPE = "recipe.json"
LINEAGE = "lineage.json"
"""The records of the stages that led here, in order."""

SCORES = "evidence/scores.json"
VERDICT = "evidence/verdict.json"
LATENCY = "evidence/latency.json"
CANDIDATES = "evidence/candidates.json"
"""Every candidate that was measured, and why the shipped one was chosen."""

REPORT_HTML = "report/report.html"
REPORT_JSON = "report/report.json"


def required_files(precision: str, status: str) -> tuple[str, ...]:
    """Names without which a bundle of this precision and status cannot say what it claims, sorted.

    Latency, candidates and the report are evidence for people; a bundle is whole without them.
    """
    names = {MODEL, GOLDEN_INDEX, POLICY, RECIPE, LINEAGE}
    if precision == "int8":
        names |= {REFERENCE, SCALES}
    if status != "unverified":
        names |= {SCORES, VERDICT}
    return tuple(sorted(names))
