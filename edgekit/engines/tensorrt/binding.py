"""TensorRT's Python module, imported when it is needed, and what its version can do.

Versions differ in names that exist, and enum numbers move between them (`STRONGLY_TYPED` is 1 in 10.x and 0 in 11.x).
So whether a name is there is asked of the module, members are used by name, and what cannot be asked (typing, Q/DQ on
DLA) stands in the table below. Sources: the dumps of the genuine bindings 8.6.1 to 11.4.0, and NVIDIA's release notes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgekit.errors import UnavailableError

__all__ = [
    "INSTALL_HINT",
    "OLDEST",
    "TensorRt",
    "absent_tensorrt",
    "find_tensorrt",
    "load_tensorrt",
    "tensorrt_problem",
]

OLDEST = (8, 5, 0)
"""The first version with the calls by tensor name that we use: JetPack 5.1."""

INSTALL_HINT = (
    "on a Jetson TensorRT comes with JetPack (python3-libnvinfer; a virtual environment needs --system-site-packages, "
    "and pip's tensorrt does not fit JetPack 6); on a PC: python -m pip install tensorrt"
)


@dataclass(frozen=True)
class TensorRt:
    """The module and its version.

    Attributes:
        module: `tensorrt`.
        text: Its version as it gives it, such as "10.3.0".
    """

    module: Any
    text: str

    @property
    def version(self) -> tuple[int, int, int]:
        """Major, minor, patch."""
        numbers = [int(part) for part in re.findall(r"\d+", self.text)[:3]]
        major, minor, patch = (*numbers, 0, 0, 0)[:3]
        return major, minor, patch

    def has(self, path: str) -> bool:
        """Whether a name such as "BuilderFlag.FP16" exists in this version."""
        found = self.module
        for part in path.split("."):
            found = getattr(found, part, None)
            if found is None:
                return False
        return True

    @property
    def always_strong(self) -> bool:
        """Every network is strongly typed: precision is what the graph says, and no flag changes it."""
        return self.version >= (11, 0, 0)

    @property
    def may_be_strong(self) -> bool:
        """Strong typing can be asked for. The flag is older; from 10.12 on it is what NVIDIA wants to be used."""
        known = self.module is None or self.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
        return self.version >= (10, 12, 0) and known

    @property
    def may_calibrate(self) -> bool:
        """The implicit INT8 path with a calibrator exists."""
        return self.version < (11, 0, 0) if self.module is None else self.has("IInt8EntropyCalibrator2")

    @property
    def dla_by_cache(self) -> bool:
        """DLA takes INT8 by calibration cache, and no Q/DQ."""
        return self.version < (10, 8, 0)

    @property
    def dla_by_graph(self) -> bool:
        """DLA takes INT8 by Q/DQ."""
        return self.version >= (11, 4, 1)


def tensorrt_problem() -> str:
    """Empty where TensorRT can be imported and is new enough; otherwise why not. Never raises, creates no object."""
    try:
        found = find_tensorrt()
    except Exception as cause:  # a library that is missing or broken is told in many ways
        return f"tensorrt cannot be imported: {(str(cause).splitlines() or [type(cause).__name__])[0]}"
    if found.version < OLDEST:
        return f"TensorRT {found.text} is older than {'.'.join(map(str, OLDEST))}"
    if not found.has("Builder") or not found.has("OnnxParser"):
        return f"TensorRT {found.text} is a runtime only: it can neither parse nor build"
    return ""


def absent_tensorrt(text: str) -> TensorRt:
    """A version that is not here, judged by its number alone: whatever name is asked of it, it does not have."""
    return TensorRt(None, text)


def find_tensorrt() -> TensorRt:
    """Import the module. Raises whatever the import raises."""
    module: Any = import_module("tensorrt")
    return TensorRt(module, str(module.__version__))


def load_tensorrt() -> TensorRt:
    """TensorRT, checked.

    Raises:
        UnavailableError: Not installed, broken, or too old.
    """
    problem = tensorrt_problem()
    if problem:
        hint = INSTALL_HINT
        if "libnvinfer" in problem:
            hint = "the Python package is here but its libraries are not on the loader's path; " + INSTALL_HINT
        raise UnavailableError(
            "The engine 'tensorrt' cannot run here.",
            expected=f"TensorRT {OLDEST[0]}.{OLDEST[1]} or later, with builder and ONNX parser",
            found=problem,
            hint=hint,
        )
    return find_tensorrt()
