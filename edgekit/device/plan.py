"""The device plan: everything a device needs to know to build the engines that its host could only prepare.

It is written by the host into the candidate bundle, and covered by the manifest's digest there. It repeats the digests
of what it is about, so that evidence which names the plan names those too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.bench.options import LatencyOptions
from edgekit.core.canonical import dump_canonical
from edgekit.core.digests import digest_bytes
from edgekit.core.strict import canonical_document, checked_keys, sha256_text
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.running import RunOptions
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.errors import BadInputError, IntegrityError
from edgekit.jetson.releases import numbers_of

__all__ = ["DevicePlan", "PlannedBuild", "RunLimits", "VersionRange", "read_plan_bytes"]

_FORMAT = "edgekit.device-plan/1"
_WHAT = "A device plan"

# Folders and packages of the machine that builds are no part of a plan.
_LOCAL = ("timing_cache", "calibration_cache", "scales", "half_graph", "memory", "device")


@dataclass(frozen=True)
class VersionRange:
    """TensorRT versions that the plan is for, both ends included.

    Attributes:
        oldest: Such as "8.6.2".
        newest: Such as "10.16.2"; "10.13" takes any 10.13.
        basis: Where the range comes from, for people.
    """

    oldest: str
    newest: str
    basis: str

    def __contains__(self, version: object) -> bool:
        try:
            found = numbers_of(str(version))
        except BadInputError:
            return False
        newest = numbers_of(self.newest)
        return numbers_of(self.oldest) <= found and found[: len(newest)] <= newest

    def __str__(self) -> str:
        return self.oldest if self.oldest == self.newest else f"{self.oldest} to {self.newest}"


@dataclass(frozen=True)
class RunLimits:
    """When the device gives up.

    Attributes:
        silence_s: Longest time, in seconds, without a sign of life of the process that builds and verifies. TensorRT
            8 tells of no progress, so a whole build counts as one silence.
        largest_engine: Bytes that an engine's file may have at most.
    """

    silence_s: float = 7200.0
    largest_engine: int = 4 * 1024**3


@dataclass(frozen=True)
class PlannedBuild:
    """One engine.

    Attributes:
        graph: Bundle path of the explained graph.
        sha256: Digest of that file.
        options: How it is built and run; folders and packages of the device are the device's own affair.
        trtexec: TensorRT version to the same build as a command line of NVIDIA's tool.
        typed: Bundle path of the graph with FP16 types, which is built in its place where networks are strongly typed;
            empty for none. Its digest is among the plan's inputs.
        unrounded: Bundle path of the FP32 graph that is built in its place, with the bundle's scale table, where the
            DLA takes no Q/DQ; empty for none. Its digest is among the plan's inputs.
    """

    graph: str
    sha256: str
    options: BuildOptions
    trtexec: Mapping[str, str] = field(default_factory=dict)
    typed: str = ""
    unrounded: str = ""


@dataclass(frozen=True)
class DevicePlan:
    """What is to be done.

    Attributes:
        created_with: edgekit version that wrote it.
        target: Name of the target.
        modules: Names of the Jetson modules that it may be built on.
        tensorrt: Versions that it may be built with.
        operators: The table that the graphs were checked against: "name", "opset", and "used", the graphs' operators.
        inputs: Bundle path to SHA-256 of what the host made: "golden" is the digest of that folder.
        builds: "int8" and "fp32" to what is built, and "fp16" where the graph can have FP16 types.
        caches: TensorRT version to bundle path of its INT8 calibration cache; empty where none can be written.
        no_caches: Why there are none; empty where there are.
        latency: How the engines are timed.
        limits: When the device gives up.
        notice: What was never run.
    """

    created_with: str
    target: str
    modules: tuple[str, ...]
    tensorrt: VersionRange
    operators: Mapping[str, Any]
    inputs: Mapping[str, str]
    builds: Mapping[str, PlannedBuild]
    caches: Mapping[str, str] = field(default_factory=dict)
    no_caches: str = ""
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    limits: RunLimits = field(default_factory=RunLimits)
    notice: str = NEVER_RUN

    @property
    def digest(self) -> str:
        """SHA-256 of the plan's bytes."""
        return digest_bytes(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return dump_canonical(
            {
                "format": _FORMAT,
                "created_with": self.created_with,
                "target": self.target,
                "modules": list(self.modules),
                "tensorrt": asdict(self.tensorrt),
                "operators": dict(self.operators),
                "inputs": dict(self.inputs),
                "builds": {name: _build_to_dict(build) for name, build in self.builds.items()},
                "caches": dict(self.caches),
                "no_caches": self.no_caches,
                "latency": self.latency.to_dict(),
                "limits": asdict(self.limits),
                "notice": self.notice,
            }
        )


_KINDS: Mapping[str, tuple[type, ...]] = {
    "format": (str,),
    "created_with": (str,),
    "target": (str,),
    "modules": (list,),
    "tensorrt": (dict,),
    "operators": (dict,),
    "inputs": (dict,),
    "builds": (dict,),
    "caches": (dict,),
    "no_caches": (str,),
    "latency": (dict,),
    "limits": (dict,),
    "notice": (str,),
}


def read_plan_bytes(data: bytes, *, where: str) -> DevicePlan:
    """Read a plan.

    Raises:
        IntegrityError: It is not one, not a whole one, or was edited.
    """
    raw = checked_keys(canonical_document(data, where=where), _KINDS, where=where, what=_WHAT)
    if raw["format"] != _FORMAT:
        raise IntegrityError("A device plan has an unknown format.", where=where, expected=_FORMAT, found=raw["format"])
    versions = checked_keys(
        raw["tensorrt"], dict.fromkeys(("oldest", "newest", "basis"), (str,)), where=where, what=_WHAT
    )
    try:
        numbers_of(versions["oldest"]), numbers_of(versions["newest"])
        plan = DevicePlan(
            created_with=raw["created_with"],
            target=raw["target"],
            modules=tuple(map(str, raw["modules"])),
            tensorrt=VersionRange(**versions),
            operators=raw["operators"],
            inputs={name: sha256_text(digest, where=f"{where}: {name}") for name, digest in raw["inputs"].items()},
            builds={name: _build_from_dict(build, f"{where}: {name}") for name, build in raw["builds"].items()},
            caches={str(version): str(path) for version, path in raw["caches"].items()},
            no_caches=raw["no_caches"],
            latency=LatencyOptions(**raw["latency"]),
            limits=RunLimits(**checked_keys(raw["limits"], _LIMIT_KINDS, where=where, what=_WHAT)),
            notice=raw["notice"],
        )
    except (BadInputError, TypeError) as cause:
        raise IntegrityError("A device plan is malformed.", where=where, found=str(cause)) from cause
    if not {"int8", "fp32"} <= set(plan.builds) <= {"int8", "fp16", "fp32"} or not plan.modules:
        raise IntegrityError(
            "A device plan is malformed.",
            where=where,
            expected="builds int8 and fp32, fp16 perhaps, and at least one module",
            found=f"builds {', '.join(sorted(plan.builds)) or 'none'}; {len(plan.modules)} modules",
        )
    return plan


_LIMIT_KINDS: Mapping[str, tuple[type, ...]] = {"silence_s": (float,), "largest_engine": (int,)}


def _build_to_dict(build: PlannedBuild) -> dict[str, Any]:
    options = {key: value for key, value in build.options.to_dict().items() if key not in _LOCAL}
    return {
        "graph": build.graph,
        "sha256": build.sha256,
        "options": options,
        "trtexec": dict(build.trtexec),
        "typed": build.typed,
        "unrounded": build.unrounded,
    }


def _build_from_dict(raw: object, where: str) -> PlannedBuild:
    kinds: dict[str, tuple[type, ...]] = {
        **dict.fromkeys(("graph", "sha256", "typed", "unrounded"), (str,)),
        **dict.fromkeys(("options", "trtexec"), (dict,)),
    }
    found = checked_keys(raw, kinds, where=where, what="A planned build")
    options = dict(found["options"])
    known = {key for key in BuildOptions().to_dict() if key not in _LOCAL}
    if set(options) != known:
        raise IntegrityError(
            "A planned build has other options than this edgekit knows.",
            where=where,
            expected=", ".join(sorted(known)),
            found=", ".join(sorted(options)),
            hint="use the version of edgekit on the device that wrote the bundle on the host",
        )
    options["batches"] = tuple(options["batches"])
    if options["tactic_sources"] is not None:
        options["tactic_sources"] = tuple(options["tactic_sources"])
    run = RunOptions.from_dict(options["run"])
    if run is None:
        raise IntegrityError("A device plan is malformed.", where=where, found=f"run {options['run']!r}")
    options["run"] = run
    return PlannedBuild(
        graph=found["graph"],
        sha256=sha256_text(found["sha256"], where=where),
        options=BuildOptions(**options),
        trtexec={str(version): str(line) for version, line in found["trtexec"].items()},
        typed=found["typed"],
        unrounded=found["unrounded"],
    )
