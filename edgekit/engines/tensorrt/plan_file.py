"""The artifact: a TensorRT plan with a header that says what it fits, in one file, so that one digest covers both.

TensorRT trusts the bytes of a plan, and a damaged or foreign one can end the process. So the plan's digest, its
TensorRT and its device are compared before TensorRT sees a byte of it. The layout is a line with the format, eight
bytes with the header's length (big endian), the header as canonical JSON, and the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes, write_bytes
from edgekit.engines.tensorrt.memory import DeviceFacts
from edgekit.engines.tensorrt.running import RunOptions
from edgekit.errors import IntegrityError, UnavailableError

__all__ = ["PlanHeader", "check_plan_fits", "plan_bytes_of", "read_plan", "write_plan"]

# 2: how the plan runs.
_MAGIC = b"edgekit.tensorrt-plan/2\n"
_LARGEST_HEADER = 16 << 20
_ONNX_HINT = "build it with 'edgekit build' on the device that runs it"


@dataclass(frozen=True)
class PlanHeader:
    """What a plan was built with, and what it fits.

    Attributes:
        tensorrt: Version, exactly.
        device: Name of the GPU.
        capability: Its compute capability.
        multiprocessors: Its streaming multiprocessors: modules of one capability differ in them.
        l4t: Jetson Linux that it was built on; empty elsewhere.
        plan_sha256: Of the plan's bytes.
        graph_sha256: Of the ONNX file it was built from.
        dla_core: The DLA core it runs on; None on the GPU.
        version_compatible: It may run on later TensorRT of the same major version, and carries code for that.
        hardware_compatible: It may run on other GPUs: "" no, "same" of one capability, "ampere+" of later ones.
        run: How it runs, wherever it is opened.
        build: The build record, JSON-ready: flags, pools, layers.
    """

    tensorrt: str
    device: str
    capability: tuple[int, int]
    multiprocessors: int
    l4t: str
    plan_sha256: str
    graph_sha256: str
    dla_core: int | None = None
    version_compatible: bool = False
    hardware_compatible: str = ""
    run: RunOptions = field(default_factory=RunOptions)
    build: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **vars(self),
            "capability": list(self.capability),
            "run": self.run.to_dict(),
            "build": dict(self.build),
        }

    def fits(self) -> str:
        """For people: what the plan runs on."""
        sm = f"{self.capability[0]}.{self.capability[1]}"
        where = f"{self.device} (SM {sm}, {self.multiprocessors} multiprocessors)"
        return f"TensorRT {self.tensorrt} on {where}"


def write_plan(path: Path, header: PlanHeader, plan: bytes) -> None:
    """Write both, atomically."""
    raw = dump_canonical(header.to_dict())
    write_bytes(path, _MAGIC + len(raw).to_bytes(8, "big") + raw + plan)


def read_plan(path: Path) -> tuple[PlanHeader, bytes]:
    """The header and the plan's bytes.

    Raises:
        BadInputError: The file cannot be read.
        IntegrityError: Not such a file, or damaged.
    """
    data, where = read_bytes(path), str(path)
    if not data.startswith(_MAGIC):
        raise _broken(where, "another kind of file")
    start = len(_MAGIC) + 8
    size = int.from_bytes(data[len(_MAGIC) : start], "big")
    if size > min(_LARGEST_HEADER, len(data) - start):
        raise _broken(where, "a header that is cut short")
    header = _header(parse_strict(data[start : start + size], where=where), where)
    plan = data[start + size :]
    if digest_bytes(plan) != header.plan_sha256:
        raise _broken(where, f"{len(plan)} bytes with another digest: the plan was damaged or cut short")
    return header, plan


def plan_bytes_of(path: Path) -> bytes:
    """The plan alone, as `trtexec --loadEngine` takes it. Raises as `read_plan`."""
    return read_plan(path)[1]


def check_plan_fits(header: PlanHeader, tensorrt: str, device: DeviceFacts, where: str) -> None:
    """Refuse a plan that was built for something else, before TensorRT is given it.

    Raises:
        UnavailableError: Another TensorRT or GPU.
    """
    if _version_fits(header, tensorrt) and _device_fits(header, device):
        return
    here = f"{device.name} (SM {device.sm}, {device.multiprocessors} multiprocessors)"
    raise UnavailableError(
        "The engine was built for another TensorRT or another GPU.",
        where=where,
        expected=header.fits(),
        found=f"TensorRT {tensorrt} on {here}",
        hint="build it again on this device from the graph; plans do not travel between devices or JetPack releases",
    )


def _version_fits(header: PlanHeader, tensorrt: str) -> bool:
    if tensorrt == header.tensorrt:
        return True
    built, here = (
        [int(part) for part in text.split(".")[:3] if part.isdigit()] for text in (header.tensorrt, tensorrt)
    )
    return header.version_compatible and built[:1] == here[:1] and here >= built


def _device_fits(header: PlanHeader, device: DeviceFacts) -> bool:
    if header.hardware_compatible == "ampere+":
        return device.capability >= max(header.capability, (8, 0))
    if device.capability != header.capability:
        return False
    # TensorRT warns of another model with the same capability, and what was measured there does not hold here.
    same = (device.name, device.multiprocessors) == (header.device, header.multiprocessors)
    return same or header.hardware_compatible == "same"


def _header(raw: Any, where: str) -> PlanHeader:
    kinds: dict[str, tuple[type, ...]] = {
        "tensorrt": (str,),
        "device": (str,),
        "capability": (list,),
        "multiprocessors": (int,),
        "l4t": (str,),
        "plan_sha256": (str,),
        "graph_sha256": (str,),
        "dla_core": (int, type(None)),
        "version_compatible": (bool,),
        "hardware_compatible": (str,),
        "run": (dict,),
        "build": (dict,),
    }
    if not isinstance(raw, dict) or set(raw) != set(kinds):
        raise _broken(where, "a header with other keys")
    wrong = [key for key, allowed in kinds.items() if type(raw[key]) not in allowed]
    capability = raw["capability"]
    if wrong or [type(part) for part in capability] != [int, int]:
        raise _broken(where, f"a malformed header: {', '.join(wrong or ['capability'])}")
    run = RunOptions.from_dict(raw["run"])
    if run is None:
        raise _broken(where, "a malformed header: run")
    return PlanHeader(**{**raw, "capability": (capability[0], capability[1]), "run": run})


def _broken(where: str, found: str) -> IntegrityError:
    return IntegrityError(
        "This is not a TensorRT engine of edgekit's, or not a whole one.",
        where=where,
        expected="a plan with its header",
        found=found,
        hint=_ONNX_HINT,
    )
