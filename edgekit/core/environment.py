"""The environment print: what a result was obtained with. Names no user, host or path."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["distribution_version", "environment_print", "onnxruntime_distributions", "processor_name"]

_DISTRIBUTIONS = (
    "edgekit",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "torch",
    "torch-pruning",
)


def distribution_version(name: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def onnxruntime_distributions() -> tuple[str, ...]:
    """Installed distributions that all provide the one folder `onnxruntime`; more than one overwrite each other."""
    names = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "ort-nightly")
    return tuple(name for name in names if distribution_version(name) is not None)


def processor_name() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment_print() -> dict[str, Any]:
    """A JSON-ready description of machine and libraries, small enough to stand beside every number."""
    versions = {name: distribution_version(name) for name in _DISTRIBUTIONS}
    return {
        "machine": platform.machine(),
        "processor": processor_name(),
        "logical_cpus": os.cpu_count() or 0,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version for name, version in versions.items() if version is not None},
    }
