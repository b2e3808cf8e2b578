"""Where a bundle is about to be installed, and whether that is where its engine was verified.

Compared is what a signed statement says of the machine that ran the verification: architecture and operating system,
the Jetson module, the version of TensorRT. An engine file that fits one GPU only is refused by the runtime's own check
when it is opened (`edgekit.engines.tensorrt.plan_file`); the model of a processor or graphics card is not compared.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Final

from edgekit.engines.tensorrt.binding import find_tensorrt
from edgekit.errors import UnavailableError
from edgekit.jetson.detect import Jetson, read_jetson
from edgekit.jetson.probe import Probe
from edgekit.signing.statement import BundleClaims, DeviceClaims

__all__ = ["Installation", "match_device", "this_installation"]

_SAME_MACHINE: Final = {"amd64": "x86_64", "arm64": "aarch64"}
# What the names of these targets promise by themselves; the targets' own files are YAML, which devices do not read.
_MACHINE_OF_TARGET: Final = {"cpu-x86": "x86_64", "cpu-arm": "aarch64"}
_JETSON: Final = "jetson-"
_HINT = "install the release that was verified for this device; --any-device accepts what was verified elsewhere"


@dataclass(frozen=True)
class Installation:
    """A machine, as far as it can be compared.

    Attributes:
        machine: Architecture, as `platform.machine()` says.
        system: Operating system, as `platform.system()` says.
        jetson: Which Jetson it is; None where it is none.
        tensorrt: Version of the TensorRT that Python imports; empty where there is none or it was not asked.
    """

    machine: str
    system: str
    jetson: Jetson | None = None
    tensorrt: str = ""


def this_installation(probe: Probe | None = None, *, tensorrt: bool = True) -> Installation:
    """This machine. Never raises.

    Args:
        probe: Whom to ask which Jetson this is; this machine unless given.
        tensorrt: Import TensorRT to ask for its version, which takes a while.
    """
    return Installation(
        platform.machine(), platform.system(), read_jetson(probe), _tensorrt_version() if tensorrt else ""
    )


def match_device(claims: BundleClaims, here: Installation, *, where: str) -> tuple[str, ...]:
    """Compare what a statement says of the verifying machine with this one.

    Args:
        claims: The statement's, whose signature was checked.
        here: This machine.
        where: The bundle, for messages.

    Returns:
        What was compared and is the same, in words; never empty.

    Raises:
        UnavailableError: Another device, or a statement that does not say which.
    """
    device = claims.device or DeviceClaims()
    same = [
        *_compared("architecture", _machine(claims), _normal(here.machine), where),
        *_compared("operating system", _told(claims, "system"), here.system, where),
    ]
    module = device.base_module or device.module or (claims.target if claims.target.startswith(_JETSON) else "")
    if module:
        same += _compared("module", module, _module(here, module), where)
    same += _compared("TensorRT", device.tensorrt, here.tensorrt, where)
    if not same:
        raise UnavailableError(
            "The release does not say what it was verified on.",
            where=where,
            expected="an environment print, a device's evidence, or a target that is an architecture",
            found=f"target {claims.target} and nothing else",
            hint="verify and build it again with this edgekit; --any-device accepts it as it is",
        )
    return tuple(same)


def _compared(what: str, expected: str, found: str, where: str) -> list[str]:
    if not expected:
        return []
    if expected != found:
        raise UnavailableError(
            f"The release was verified on another device: {what}.",
            where=where,
            expected=ascii(expected)[1:-1],
            found=found or "none that can be told",
            hint=_HINT,
        )
    return [f"{what} {expected}"]


def _machine(claims: BundleClaims) -> str:
    return _normal(_told(claims, "machine")) or _MACHINE_OF_TARGET.get(claims.target, "")


def _told(claims: BundleClaims, key: str) -> str:
    value = claims.environment.get(key, "")
    return value if isinstance(value, str) else ""


def _normal(machine: str) -> str:
    return _SAME_MACHINE.get(machine.lower(), machine.lower())


def _module(here: Installation, wanted: str) -> str:
    """This module under the name that is asked for, where it has two: its power modes do not change its answers."""
    names = (here.jetson.base_module, here.jetson.module) if here.jetson else ()
    return wanted if wanted in names else next((name for name in names if name), "")


def _tensorrt_version() -> str:
    try:
        return find_tensorrt().text
    except Exception:  # a library that is missing or broken is told in many ways
        return ""
