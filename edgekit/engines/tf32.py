"""TensorFloat-32 in ONNX Runtime's TensorRT provider: off, unless a recipe asks for it, and the same wherever it runs.

The provider has no option for it, so NVIDIA's variable is what is left (microsoft/onnxruntime issues 6427 and 26029).
Libraries read it once, as that second issue reports: a process decides once. An artifact says how it was built.
Never run on a GPU, see `onnxruntime_gpu_status`.
"""

from __future__ import annotations

import os

from edgekit.engines.tensorrt.onnx_outline import read_outline
from edgekit.errors import UnavailableError

__all__ = ["decide_tf32", "stored_tf32", "with_tf32"]

_VARIABLE = "NVIDIA_TF32_OVERRIDE"
_KEY = "edgekit.tf32"
# Field 14 of a ModelProto, `metadata_props`; 1 and 2 of an entry are its key and its value, all of them bytes.
_METADATA, _ENTRY_KEY, _ENTRY_VALUE = 14 << 3 | 2, 1 << 3 | 2, 2 << 3 | 2

_decided: list[bool] = []


def decide_tf32(allowed: bool, *, where: str) -> None:
    """Tell NVIDIA's libraries in this process, before a session is opened.

    Raises:
        UnavailableError: It was decided otherwise before.
    """
    if _decided and _decided[0] != allowed:
        raise UnavailableError(
            "This process has decided otherwise on TensorFloat-32, and NVIDIA's libraries ask once.",
            where=where,
            expected=f"tf32 {str(_decided[0]).lower()}, as before",
            found=f"tf32 {str(allowed).lower()}",
            hint="run the engines of the two kinds in processes of their own",
        )
    if not _decided:
        _decided.append(allowed)
    if allowed:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = "0"


def with_tf32(model: bytes, allowed: bool) -> bytes:
    """An ONNX model that says how it was built."""
    key, value = _KEY.encode(), str(allowed).lower().encode()
    entry = bytes((_ENTRY_KEY, len(key))) + key + bytes((_ENTRY_VALUE, len(value))) + value
    return model + bytes((_METADATA, len(entry))) + entry


def stored_tf32(model: bytes, *, where: str) -> bool:
    """What it says; one that says nothing was built with the provider's default, which is to use it.

    Raises:
        BadInputError: It is no ONNX model.
    """
    return read_outline(model, where).metadata.get(_KEY, "true") == "true"
