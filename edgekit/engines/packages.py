"""Which package an engine needs, and whether it is installed: told without loading it, and without asking for a device.

`Engine.availability` knows more and takes longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from types import MappingProxyType

__all__ = ["PACKAGES", "is_installed"]

PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "openvino": "openvino",
        "ort-cpu": "onnxruntime",
        "ort-cuda": "onnxruntime-gpu",
        "ort-tensorrt": "onnxruntime-gpu",
        "reference": "onnxruntime",
        "tensorrt": "tensorrt",
    }
)
"""Engine to package. The GPU package brings the module of the CPU package, so it is known by its name alone."""


def is_installed(engine: str) -> bool:
    """Whether the package of an engine is installed here.

    Args:
        engine: Registry name.
    """
    package = PACKAGES[engine]
    if package == "onnxruntime-gpu":
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            return False
        return True
    # Of TensorRT and others, distributions of the system have no entry that pip would know.
    return find_spec(package) is not None
