"""What cannot work, rule by rule. A rule looks at one setting and says what is wrong with it, why, and what to do.

A rule holds for facts with a source, and for nothing that was merely never tried: that is what a target's status is
for. Sources named here were read, not measured; nothing of this ran on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgekit.export.operator_table import load_table, table_names
from edgekit.jetson.releases import RELEASES, THOR, Release, numbers_of
from edgekit.targets.target import JetsonFacts, Target

__all__ = ["DEVICE_PYTHON", "RULES", "Problem", "Setting", "operator_table_for"]

DEVICE_PYTHON = (3, 10)
"""The oldest Python that the device side of edgekit runs on."""

_VERSION = tuple[int, ...]
_BINDINGS = "the bindings of TensorRT 8.6.1 to 11.4.0, compared"
_DLA = "NVIDIA/Deep-Learning-Accelerator-SW; TensorRT 11.3 and 11.4.1 documentation"


@dataclass(frozen=True)
class Problem:
    """Something that cannot work.

    Attributes:
        rule: Name in `RULES`.
        what: What does not work.
        why: The reason.
        remedy: What to do instead.
        source: Where the fact comes from.
        blocks: Nothing can be built; otherwise one feature is missing.
    """

    rule: str
    what: str
    why: str
    remedy: str
    source: str
    blocks: bool


@dataclass(frozen=True)
class Setting:
    """One device with what runs on it, as far as it is known.

    Attributes:
        target: The device; not a family.
        jetpack: JetPack as it was named.
        release: What is known of that JetPack.
        python: Python of the device, major and minor.
        tensorrt: TensorRT's version; where only that of the release is known, that.
        tensorrt_named: The version was named, and is not merely what the release ships.
    """

    target: Target
    jetpack: str | None
    release: Release | None
    python: tuple[int, int] | None
    tensorrt: _VERSION | None
    tensorrt_named: bool

    @property
    def facts(self) -> JetsonFacts | None:
        """Facts about the Jetson module, None for another device."""
        return self.target.jetson

    @property
    def uses_tensorrt(self) -> bool:
        """Whether the target's engine is TensorRT."""
        return "tensorrt" in self.target.engines


Rule = Callable[[Setting], "Problem | None"]


def operator_table_for(tensorrt: _VERSION) -> str | None:
    """Name of the newest table of operators that is no newer than this TensorRT, None where there is none."""
    tables = [name for name in table_names() if name.startswith("tensorrt-")]
    fitting = [name for name in tables if numbers_of(name.removeprefix("tensorrt-")) <= tensorrt[:2]]
    return fitting[-1] if fitting else None


def _text(version: _VERSION) -> str:
    return ".".join(map(str, version))


def _jetpack_unknown(s: Setting) -> Problem | None:
    if s.jetpack is None or s.release is not None:
        return None
    return Problem(
        "jetpack-unknown",
        f"JetPack {s.jetpack}",
        "edgekit does not know what this release brings",
        "use one of " + ", ".join(release.jetpack for release in (s.facts.releases if s.facts else RELEASES)),
        "releases from JetPack 5.1 on were looked up",
        blocks=True,
    )


def _jetpack_board(s: Setting) -> Problem | None:
    if s.release is None or (s.facts is not None and s.release in s.facts.releases):
        return None
    releases = s.facts.releases if s.facts else ()
    return Problem(
        "jetpack-board",
        f"JetPack {s.release.jetpack} on {s.target.title}",
        "this release does not run on it" if releases else "JetPack is the software of Jetson modules",
        f"use JetPack {releases[0].jetpack} to {releases[-1].jetpack}" if releases else "leave JetPack out",
        s.release.source,
        blocks=True,
    )


def _python_floor(s: Setting) -> Problem | None:
    if s.python is None or s.python >= DEVICE_PYTHON:
        return None
    newer = [release for release in (s.facts.releases if s.facts else ()) if release.python >= DEVICE_PYTHON]
    if newer:
        remedy = f"install JetPack {newer[0].jetpack} or later, whose Python is {_text(newer[0].python)}"
    elif s.facts:
        remedy = (
            "no JetPack for this module has a newer Python, and its tensorrt module is for that one alone: use an Orin "
            "or Thor module, or run trtexec by hand on what 'edgekit export' wrote, which verifies nothing"
        )
    else:
        remedy = f"install Python {_text(DEVICE_PYTHON)} or later"
    return Problem(
        "python-floor",
        f"Python {_text(s.python)}",
        f"what runs on the device needs Python {_text(DEVICE_PYTHON)} or later",
        remedy,
        s.release.source if s.release else "edgekit's own requirement",
        blocks=True,
    )


def _python_of_jetpack(s: Setting) -> Problem | None:
    if s.release is None or s.python is None or not s.uses_tensorrt or s.python == s.release.python:
        return None
    if s.python < DEVICE_PYTHON:
        return None  # said already
    return Problem(
        "python-of-jetpack",
        f"Python {_text(s.python)} on JetPack {s.release.jetpack}",
        f"its tensorrt module is a package of the distribution, for Python {_text(s.release.python)}",
        f"make the environment with /usr/bin/python3 -m venv --system-site-packages (Python {_text(s.release.python)})",
        "NVIDIA's packages for JetPack",
        blocks=True,
    )


def _tensorrt_floor(s: Setting) -> Problem | None:
    if not s.uses_tensorrt or s.tensorrt is None or s.tensorrt >= (8, 5):
        return None
    return Problem(
        "tensorrt-floor",
        f"TensorRT {_text(s.tensorrt)}",
        "edgekit addresses tensors by name, which TensorRT can from 8.5 on",
        "install TensorRT 8.5 or later",
        "binding sources of TensorRT 8.5.2, " + _BINDINGS,
        blocks=True,
    )


def _tensorrt_11(s: Setting) -> Problem | None:
    if s.facts is None or s.tensorrt is None or s.tensorrt < (11,) or not s.tensorrt_named:
        return None
    taking = [release for release in s.facts.releases if "11.4.1" in release.also_tensorrt]
    big = s.target.name.startswith(("jetson-agx-orin", "jetson-thor"))
    if s.tensorrt >= (11, 4, 1) and big and (s.release is None or s.release in taking):
        return None
    if big and taking:
        remedy = f"use what JetPack ships, or TensorRT 11.4.1 on JetPack {taking[0].jetpack} (the package for SBSA)"
    else:
        remedy = "use the TensorRT that JetPack ships"
    return Problem(
        "tensorrt-11-jetpack",
        f"TensorRT {_text(s.tensorrt)}",
        "11.0 to 11.4.0 do not support JetPack; 11.4.1 supports AGX Orin and Thor from JetPack 7.2.2 on",
        remedy,
        "migration pages of the TensorRT 11.3 and 11.4.1 documentation",
        blocks=True,
    )


def _tensorrt_of_jetpack(s: Setting) -> Problem | None:
    # From JetPack 7 on Jetson runs the software of servers, and nothing is known against another TensorRT there.
    if s.release is None or s.release.numbers >= (7,) or s.tensorrt is None or not s.tensorrt_named:
        return None
    shipped = [version for version in (s.release.tensorrt, *s.release.also_tensorrt) if version]
    if s.tensorrt >= (11,) or any(numbers_of(version)[:2] == s.tensorrt[:2] for version in shipped):
        return None
    return Problem(
        "tensorrt-of-jetpack",
        f"TensorRT {_text(s.tensorrt)}",
        "what pip installs on Arm is built for servers (SBSA), and refuses the GPU of a Jetson before JetPack 7",
        "uninstall pip's tensorrt, and use JetPack's own from an environment made with --system-site-packages",
        "NVIDIA developer forum, topic 364236 (that an SBSA build was the cause is inferred); files of tensorrt on PyPI",
        blocks=True,
    )


def _volta(s: Setting) -> Problem | None:
    if s.facts is None or s.tensorrt is None or s.tensorrt < (10, 5):
        return None
    if numbers_of(s.facts.compute_capability) >= (7, 5):
        return None
    return Problem(
        "volta",
        f"TensorRT {_text(s.tensorrt)} on compute capability {s.facts.compute_capability}",
        "TensorRT dropped Volta with 10.5",
        "use the TensorRT that JetPack ships",
        "release notes of TensorRT 10.5",
        blocks=True,
    )


def _opset(s: Setting) -> Problem | None:
    table = operator_table_for(s.tensorrt) if s.uses_tensorrt and s.tensorrt else None
    if table is None or load_table(table).opset[1] >= s.target.opset:
        return None
    return Problem(
        "opset",
        f"operator set {s.target.opset} with TensorRT {_text(s.tensorrt or ())}",
        f"its ONNX parser reads up to {load_table(table).opset[1]}",
        f"install a JetPack or TensorRT whose parser reads operator set {s.target.opset}",
        "operator tables of onnx/onnx-tensorrt",
        blocks=True,
    )


def _plan_elsewhere(s: Setting) -> Problem | None:
    if s.facts is None:
        return None
    return Problem(
        "plan-elsewhere",
        "an engine built on another machine",
        "a plan is bound to TensorRT's exact version, the platform and the GPU it was built on",
        "build on the device itself",
        "NVIDIA/TensorRT issues 564, 2176 and 2900",
        blocks=False,
    )


def _dla_none(s: Setting) -> Problem | None:
    if s.facts is None or s.facts.dla_cores:
        return None
    return Problem(
        "dla-none",
        "DLA",
        "the module has no deep learning accelerator",
        "let the GPU compute; among Orin modules, NX and AGX have one",
        _DLA,
        blocks=False,
    )


def _dla_version(s: Setting) -> Problem | None:
    if s.facts is None or not s.facts.dla_cores or s.tensorrt is None or s.tensorrt[:2] <= (10, 7):
        return None
    if s.tensorrt >= (11, 4, 1) and s.target.name.startswith("jetson-agx-orin"):
        return None
    return Problem(
        "dla-version",
        f"DLA with TensorRT {_text(s.tensorrt)}",
        "10.7 is the last 10.x with DLA, and 11.4.1 has it on AGX Orin alone"
        + ("; that 10.16 has none is inferred" if s.tensorrt[0] == 10 else ""),
        "use JetPack 6, or let the GPU compute",
        _DLA,
        blocks=False,
    )


def _dla_qdq(s: Setting) -> Problem | None:
    if s.facts is None or not s.facts.dla_cores or s.tensorrt is None or s.tensorrt[:2] > (10, 7):
        return None
    return Problem(
        "dla-qdq",
        "explicit Q/DQ on the DLA",
        "the DLA takes INT8 ranges from a calibration cache alone"
        + ("" if s.tensorrt[0] < 9 else "; said of 8.x, and assumed of 10.x until measured"),
        "let the GPU compute INT8, or give the DLA a calibration cache",
        "TensorRT 8 developer guide; NVIDIA/TensorRT issue 2222",
        blocks=False,
    )


def _calibrators(s: Setting) -> Problem | None:
    if not s.uses_tensorrt or s.tensorrt is None or s.tensorrt < (11,):
        return None
    return Problem(
        "calibrators",
        f"INT8 calibrators and calibration caches with TensorRT {_text(s.tensorrt)}",
        "they are gone with 11.0",
        "use the explicit Q/DQ that edgekit writes",
        _BINDINGS,
        blocks=False,
    )


def _weak_typing(s: Setting) -> Problem | None:
    if not s.uses_tensorrt or s.tensorrt is None or s.tensorrt < (11,):
        return None
    return Problem(
        "weak-typing",
        f"precision flags (FP16, INT8) with TensorRT {_text(s.tensorrt)}",
        "they are gone with 11.0: types come from the ONNX graph alone",
        "build from a graph that carries its types",
        _BINDINGS,
        blocks=False,
    )


def _fp8(s: Setting) -> Problem | None:
    if s.facts is None or numbers_of(s.facts.compute_capability) >= (8, 9):
        return None
    return Problem(
        "fp8",
        "FP8",
        f"it needs compute capability 8.9, and this GPU has {s.facts.compute_capability}",
        "use INT8",
        "TensorRT support matrix",
        blocks=False,
    )


def _fp8_flags(s: Setting) -> Problem | None:
    if s.facts is None or s.facts.soc != THOR or s.tensorrt is None or s.tensorrt[:2] != (10, 13):
        return None
    return Problem(
        "fp8-flags",
        f"the FP8 and FP4 flags of TensorRT {_text(s.tensorrt)}",
        "they were accepted, and the engine was FP32",
        "use INT8, and read the engine's layer types",
        "NVIDIA/TensorRT issue 4590",
        blocks=False,
    )


def _version_compatible(s: Setting) -> Problem | None:
    if not s.uses_tensorrt or s.tensorrt is None or s.tensorrt >= (8, 6):
        return None
    return Problem(
        "version-compatible",
        "plans that run on later versions of TensorRT",
        "version compatibility came with 8.6",
        "build again after each update",
        "binding sources of TensorRT 8.5.2 and 8.6.1",
        blocks=False,
    )


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "jetpack-unknown": _jetpack_unknown,
        "jetpack-board": _jetpack_board,
        "python-floor": _python_floor,
        "python-of-jetpack": _python_of_jetpack,
        "tensorrt-floor": _tensorrt_floor,
        "tensorrt-11-jetpack": _tensorrt_11,
        "tensorrt-of-jetpack": _tensorrt_of_jetpack,
        "volta": _volta,
        "opset": _opset,
        "plan-elsewhere": _plan_elsewhere,
        "dla-none": _dla_none,
        "dla-version": _dla_version,
        "dla-qdq": _dla_qdq,
        "calibrators": _calibrators,
        "weak-typing": _weak_typing,
        "fp8": _fp8,
        "fp8-flags": _fp8_flags,
        "version-compatible": _version_compatible,
    }
)
"""Every rule, those that forbid a build first."""
