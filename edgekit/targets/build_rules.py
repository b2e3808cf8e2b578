"""Rules of the support table that forbid a build: with such a setting nothing can be built, whatever is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgekit.export.operator_table import load_table, table_names
from edgekit.jetson.releases import RELEASES, numbers_of
from edgekit.targets.setting import BINDINGS_SOURCE, DEVICE_PYTHON, Problem, Rule, Setting, version_text

__all__ = ["BUILD_RULES", "operator_table_for"]


def operator_table_for(tensorrt: tuple[int, ...]) -> str | None:
    """Name of the newest table of operators that is no newer than this TensorRT, None where there is none."""
    tables = [name for name in table_names() if name.startswith("tensorrt-")]
    fitting = [name for name in tables if numbers_of(name.removeprefix("tensorrt-")) <= tensorrt[:2]]
    return fitting[-1] if fitting else None


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
        remedy = f"install JetPack {newer[0].jetpack} or later, whose Python is {version_text(newer[0].python)}"
    elif s.facts:
        remedy = (
            "no JetPack for this module has a newer Python, and its tensorrt module is for that one alone: use an Orin "
            "or Thor module, or run trtexec by hand on what 'edgekit export' wrote, which verifies nothing"
        )
    else:
        remedy = f"install Python {version_text(DEVICE_PYTHON)} or later"
    return Problem(
        "python-floor",
        f"Python {version_text(s.python)}",
        f"what runs on the device needs Python {version_text(DEVICE_PYTHON)} or later",
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
        f"Python {version_text(s.python)} on JetPack {s.release.jetpack}",
        f"its tensorrt module is a package of the distribution, for Python {version_text(s.release.python)}",
        "use the distribution's Python: /usr/bin/python3 -m venv --system-site-packages",
        "NVIDIA's packages for JetPack",
        blocks=True,
    )


def _tensorrt_floor(s: Setting) -> Problem | None:
    if not s.uses_tensorrt or s.tensorrt is None or s.tensorrt >= (8, 5):
        return None
    return Problem(
        "tensorrt-floor",
        f"TensorRT {version_text(s.tensorrt)}",
        "edgekit addresses tensors by name, which TensorRT can from 8.5 on",
        "install TensorRT 8.5 or later",
        "binding sources of TensorRT 8.5.2, " + BINDINGS_SOURCE,
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
        f"TensorRT {version_text(s.tensorrt)}",
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
        f"TensorRT {version_text(s.tensorrt)}",
        "what pip installs on Arm is built for servers (SBSA), and refuses the GPU of a Jetson before JetPack 7",
        "uninstall pip's tensorrt, and use JetPack's own from an environment made with --system-site-packages",
        "NVIDIA developer forum, topic 364236; that a build for servers was the cause is inferred",
        blocks=True,
    )


def _volta(s: Setting) -> Problem | None:
    if s.facts is None or s.tensorrt is None or s.tensorrt < (10, 5):
        return None
    if numbers_of(s.facts.compute_capability) >= (7, 5):
        return None
    return Problem(
        "volta",
        f"TensorRT {version_text(s.tensorrt)} on compute capability {s.facts.compute_capability}",
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
        f"operator set {s.target.opset} with TensorRT {version_text(s.tensorrt or ())}",
        f"its ONNX parser reads up to {load_table(table).opset[1]}",
        f"install a JetPack or TensorRT whose parser reads operator set {s.target.opset}",
        "operator tables of onnx/onnx-tensorrt",
        blocks=True,
    )


BUILD_RULES: Mapping[str, Rule] = MappingProxyType(
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
    }
)
"""Every rule that forbids a build."""
