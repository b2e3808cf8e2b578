"""Where things lie in a bundle: the one place that spells its file names."""

from __future__ import annotations

from edgekit.bundle.golden import GOLDEN_NAME

__all__ = [
    "BASELINE",
    "CANDIDATES",
    "CONTROLS",
    "DEVICE_CACHES",
    "DEVICE_COMMANDS",
    "DEVICE_EVIDENCE",
    "DEVICE_INSTALLER",
    "DEVICE_PLAN",
    "ENVELOPE",
    "FLOAT16_MODEL",
    "GOLDEN",
    "GOLDEN_INDEX",
    "HALF_MODEL",
    "LATENCY",
    "LINEAGE",
    "MANIFEST",
    "MAX_ENVELOPE_BYTES",
    "MODEL",
    "PLAN",
    "POLICY",
    "RECIPE",
    "REFERENCE",
    "REFERENCE_PLAN",
    "REHEARSAL",
    "REPORT_HTML",
    "REPORT_JSON",
    "SCALES",
    "SCORES",
    "VERDICT",
    "required_files",
]

MANIFEST = "manifest.json"

ENVELOPE = "release.intoto.json"
"""The signed statement about the bundle; see `edgekit.signing`. The one file that the manifest does not name, since the
manifest's digest is among what is signed. Only where 'edgekit release' signed the bundle."""

MAX_ENVELOPE_BYTES = 256 * 1024
"""An envelope holds one statement: digests of engine files, names of clauses and an environment print."""

MODEL = "engine/model.onnx"
"""The explained graph that ships, FP32, FP16-typed or Q/DQ: the artifact itself for engines that run ONNX, and else
what the artifact was, or is to be, built from. In older bundles the artifact of every engine lies here: those have no
PLAN."""

PLAN = "engine/model.plan"
"""The artifact of an engine that does not run ONNX: what was verified, byte for byte. Absent for other engines, and
until a device has built it."""

HALF_MODEL = "engine/model.fp16.onnx"
"""MODEL with FP16 types, for engines that compute in the types of a graph. Absent where none could be written."""

FLOAT16_MODEL = "engine/float16.onnx"
"""REFERENCE with FP16 types, in a candidate whose device builds an FP16 engine too. Where that ships it is MODEL."""

REFERENCE = "engine/reference.onnx"
"""The FP32 explained graph, yardstick and bench partner. Absent where MODEL is that very file."""

REFERENCE_PLAN = "engine/reference.plan"
"""The FP32 artifact of an engine that does not run ONNX, its bench partner. Absent where PLAN is that very file."""

SCALES = "scales.json"
"""The scale table. Absent exactly where the shipped artifact is not quantised."""

GOLDEN = "golden"
GOLDEN_INDEX = f"{GOLDEN}/{GOLDEN_NAME}"
DEVICE_PLAN = "device/plan.json"
"""What a device is to build, and how, where the host cannot; see `edgekit.device.plan`."""

DEVICE_COMMANDS = "device/trtexec.sh"
"""The same builds as command lines of NVIDIA's trtexec."""

DEVICE_INSTALLER = "device/install.sh"
"""A script that makes an environment on the device and runs the plan."""

DEVICE_CACHES = "device/calibration"
"""Folder of INT8 calibration caches, one a TensorRT version."""

POLICY = "policy.json"
RECIPE = "recipe.json"
LINEAGE = "lineage.json"
"""The records of the stages that led here, in order."""

SCORES = "evidence/scores.json"
VERDICT = "evidence/verdict.json"
LATENCY = "evidence/latency.json"
CANDIDATES = "evidence/candidates.json"
"""Every candidate that was measured, and why the shipped one was chosen."""

BASELINE = "evidence/baseline.json"
"""The scores of the release that this one was judged beside. Only where one was named."""

CONTROLS = "evidence/controls.json"
"""Which controls were verified beside the engine; their scores lie in a folder beside it. Absent in older bundles."""

DEVICE_EVIDENCE = "evidence/device.json"
"""What the device said of its build; see `edgekit.device.evidence`. Only where a device completed the release."""

REHEARSAL = "evidence/rehearsal.json"
"""What the reference engine made of the graphs on the host, before any device: no evidence for the release."""

REPORT_HTML = "report/report.html"
REPORT_JSON = "report/report.json"


def required_files(precision: str, status: str) -> tuple[str, ...]:
    """Names without which a bundle of this precision and status cannot say what it claims, sorted.

    Latency, candidates and the report are evidence for people; a bundle is whole without them.
    """
    names = {MODEL, GOLDEN_INDEX, POLICY, RECIPE, LINEAGE}
    if precision != "fp32":
        names.add(REFERENCE)
    if precision == "int8":
        names.add(SCALES)
    if status != "unverified":
        names |= {SCORES, VERDICT}
    return tuple(sorted(names))
