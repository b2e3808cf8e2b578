"""Evidence: what a device says of the engines that it built by a plan. One canonical JSON document beside the engines.

It carries a digest over itself, so that no byte can change without being noticed, and names every file that lies beside
it. That finds accidents and careless edits; it does not find somebody who computes the digests again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgekit.bench.result import LatencyReport
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes
from edgekit.core.stages import FileRef
from edgekit.core.strict import canonical_document, checked_keys, sha256_text
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import IntegrityError

__all__ = ["EVIDENCE_FORMAT", "EVIDENCE_NAME", "CandidateEvidence", "DeviceEvidence", "DeviceFound", "read_evidence"]

EVIDENCE_NAME = "evidence.json"
EVIDENCE_FORMAT = "edgekit.device-evidence/1"
_WHAT = "Device evidence"


@dataclass(frozen=True)
class DeviceFound:
    """What the evidence was obtained on. Texts are empty where the device does not tell.

    Attributes:
        module: Name of the target that the module is, in its power mode.
        base_module: Name of the module's own target.
        model: What the device tree calls it.
        l4t: Jetson Linux version.
        jetpack: Release that brings it.
        power_mode: What nvpmodel calls it.
        tensorrt: Version, exactly.
        cuda: CUDA version that the driver supports.
        gpu: Facts of the GPU, as the driver describes it.
    """

    module: str
    base_module: str
    model: str
    l4t: str
    jetpack: str
    power_mode: str
    tensorrt: str
    cuda: str
    gpu: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CandidateEvidence:
    """What is said of one engine.

    Attributes:
        engine: Path of its file beside the evidence.
        header: The header of that file: what it fits, how it was built, and the inspection of the engine (shares of
            INT8, what fell back).
        runtime: `EngineInfo.to_dict()` of what ran over the golden set.
        scores: Score table, as `metrics.scores_io` writes it.
        verdict: What the bundle's policy says about it.
        findings: What the diagnosis said.
    """

    engine: str
    header: Mapping[str, Any]
    runtime: Mapping[str, Any]
    scores: Mapping[str, Any]
    verdict: Mapping[str, Any]
    findings: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class DeviceEvidence:
    """The document.

    Attributes:
        created_with: edgekit version on the device.
        bundle: Digest of the candidate's manifest.
        plan: SHA-256 of the device plan.
        golden: SHA-256 of the golden set's folder.
        policy: SHA-256 of the policy.
        device: Where it was obtained.
        environment: `environment_print()` there.
        candidates: "int8", "fp32" and, where it was planned, "fp16" to what is said of them.
        latency: The engines timed in turns.
        files: Path beside the evidence to digest and size, of every file that belongs to it.
        notice: What was never run.
    """

    created_with: str
    bundle: str
    plan: str
    golden: str
    policy: str
    device: DeviceFound
    environment: Mapping[str, Any]
    candidates: Mapping[str, CandidateEvidence]
    latency: LatencyReport
    files: Mapping[str, FileRef]
    notice: str = NEVER_RUN

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical document without its `digest` key: the identity of the evidence."""
        return digest_bytes(dump_canonical(self._body()))

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return dump_canonical(self._body() | {"digest": self.digest})

    def _body(self) -> dict[str, Any]:
        return {
            "format": EVIDENCE_FORMAT,
            "created_with": self.created_with,
            "bundle": self.bundle,
            "plan": self.plan,
            "golden": self.golden,
            "policy": self.policy,
            "device": asdict(self.device),
            "environment": dict(self.environment),
            "candidates": {
                name: {**vars(item), "findings": [dict(finding) for finding in item.findings]}
                for name, item in self.candidates.items()
            },
            "latency": self.latency.to_dict(),
            "files": {name: {"sha256": ref.sha256, "size": ref.size} for name, ref in self.files.items()},
            "notice": self.notice,
        }


_KINDS: Mapping[str, tuple[type, ...]] = {
    "format": (str,),
    "created_with": (str,),
    "bundle": (str,),
    "plan": (str,),
    "golden": (str,),
    "policy": (str,),
    "device": (dict,),
    "environment": (dict,),
    "candidates": (dict,),
    "latency": (dict,),
    "files": (dict,),
    "notice": (str,),
    "digest": (str,),
}
_DEVICE_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("module", "base_module", "model", "l4t", "jetpack", "power_mode", "tensorrt", "cuda"), (str,)),
    "gpu": (dict,),
}
_CANDIDATE_KINDS: Mapping[str, tuple[type, ...]] = {
    "engine": (str,),
    "header": (dict,),
    "runtime": (dict,),
    "scores": (dict,),
    "verdict": (dict,),
    "findings": (list,),
}
_FILE_KINDS: Mapping[str, tuple[type, ...]] = {"sha256": (str,), "size": (int,)}


def read_evidence(path: Path) -> DeviceEvidence:
    """Read evidence and check it against itself; whether it is of a bundle is `edgekit.device.check`'s question.

    Args:
        path: The document.

    Raises:
        BadInputError: It cannot be read.
        IntegrityError: It is no evidence, was cut short, or was edited.
    """
    where = str(path)
    raw = checked_keys(canonical_document(read_bytes(path), where=where), _KINDS, where=where, what=_WHAT)
    if raw["format"] != EVIDENCE_FORMAT:
        raise IntegrityError(
            "Device evidence has an unknown format.", where=where, expected=EVIDENCE_FORMAT, found=raw["format"]
        )
    body = {key: value for key, value in raw.items() if key != "digest"}
    digest = digest_bytes(dump_canonical(body))
    if digest != raw["digest"]:
        raise IntegrityError(
            "Device evidence was edited.",
            where=where,
            expected=f"the digest of its content, {digest}",
            found=raw["digest"],
            hint="run 'edgekit device build' again; evidence is not written by hand",
        )
    return DeviceEvidence(
        created_with=raw["created_with"],
        **{key: sha256_text(raw[key], where=f"{where}: {key}") for key in ("bundle", "plan", "golden", "policy")},
        device=DeviceFound(**checked_keys(raw["device"], _DEVICE_KINDS, where=f"{where}: device", what=_WHAT)),
        environment=raw["environment"],
        candidates={name: _candidate(item, f"{where}: {name}") for name, item in raw["candidates"].items()},
        latency=LatencyReport.from_dict(raw["latency"], where=f"{where}: latency"),
        files={name: _file(item, f"{where}: {name}") for name, item in raw["files"].items()},
        notice=raw["notice"],
    )


def _candidate(raw: object, where: str) -> CandidateEvidence:
    found = checked_keys(raw, _CANDIDATE_KINDS, where=where, what=_WHAT)
    if not all(isinstance(finding, dict) for finding in found["findings"]):
        raise IntegrityError("Device evidence is malformed.", where=f"{where}: findings", expected="a list of objects")
    return CandidateEvidence(**{**found, "findings": tuple(found["findings"])})


def _file(raw: object, where: str) -> FileRef:
    found = checked_keys(raw, _FILE_KINDS, where=where, what=_WHAT)
    return FileRef(sha256_text(found["sha256"], where=where), found["size"])
