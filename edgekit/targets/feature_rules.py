"""Rules of the support table about single features: a build is possible, and this part of it is not to be had."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgekit.jetson.releases import THOR, numbers_of
from edgekit.targets.setting import BINDINGS_SOURCE, Problem, Rule, Setting, version_text

__all__ = ["FEATURE_RULES"]

_DLA = "NVIDIA/Deep-Learning-Accelerator-SW; TensorRT 11.3 and 11.4.1 documentation"


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
        f"DLA with TensorRT {version_text(s.tensorrt)}",
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
        f"INT8 calibrators and calibration caches with TensorRT {version_text(s.tensorrt)}",
        "they are gone with 11.0",
        "use the explicit Q/DQ that edgekit writes",
        BINDINGS_SOURCE,
        blocks=False,
    )


def _weak_typing(s: Setting) -> Problem | None:
    if not s.uses_tensorrt or s.tensorrt is None or s.tensorrt < (11,):
        return None
    return Problem(
        "weak-typing",
        f"precision flags (FP16, INT8) with TensorRT {version_text(s.tensorrt)}",
        "they are gone with 11.0: types come from the ONNX graph alone",
        "build from a graph that carries its types",
        BINDINGS_SOURCE,
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
        f"the FP8 and FP4 flags of TensorRT {version_text(s.tensorrt)}",
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


FEATURE_RULES: Mapping[str, Rule] = MappingProxyType(
    {
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
"""Every rule about a feature."""
