"""INT8 calibration caches: the scales of tensors as text, for the implicit path of TensorRT 10 and before.

A header `TRT-<version digits>-EntropyCalibration2`, then a line `name: hex` for every tensor, where hex is the
big-endian IEEE-754 float32 of its scale, the width of one step: amax / 127, not amax. Source of the format: the reader
in NVIDIA's Model-Optimizer and the writer in NVIDIA's Deep-Learning-Accelerator-SW. The digits for 10.x (10.3 as
"100300") are remembered, not confirmed; TensorRT calibrates again where they do not fit, which is refused here.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.errors import BadInputError

__all__ = ["CalibrationCache", "read_calibration_cache", "version_digits", "write_calibration_cache"]

_HEADER = re.compile(r"TRT-(?P<digits>\d+)-(?P<algorithm>\w+)")
_HEX = re.compile(r"[0-9a-fA-F]{1,8}")
_ALGORITHM = "EntropyCalibration2"


@dataclass(frozen=True)
class CalibrationCache:
    """What such a file says.

    Attributes:
        digits: Version of the TensorRT it was written for, as `version_digits`.
        algorithm: Such as "EntropyCalibration2".
        scales: Tensor name to scale, the width of one step of a symmetric int8.
    """

    digits: str
    algorithm: str
    scales: Mapping[str, float]


def version_digits(version: tuple[int, int, int]) -> str:
    """A version as the header has it: "8502" for 8.5.2, "100300" for 10.3.0."""
    major, minor, patch = version
    if major < 10:
        return f"{major}{minor}{patch:02d}"
    return f"{major}{minor:02d}{patch:02d}"


def write_calibration_cache(scales: Mapping[str, float], version: tuple[int, int, int]) -> bytes:
    """The file's bytes, ASCII unless a name is not.

    All eight digits are written: dropping leading zeros, as NVIDIA's own writer does, breaks strict readers.

    Args:
        scales: Tensor name to scale, as TensorRT names tensors after parsing: as ONNX does.
        version: Of the TensorRT that will read it.

    Raises:
        BadInputError: A scale that is not positive as float32, or a name that a line cannot hold.
    """
    lines = [f"TRT-{version_digits(version)}-{_ALGORITHM}"]
    for name, scale in scales.items():
        packed = _packed(name, scale)
        if not name or "\n" in name or "\r" in name:
            raise BadInputError("A tensor's name does not fit into a calibration cache.", found=repr(name))
        lines.append(f"{name}: {packed.hex()}")
    return ("\n".join(lines) + "\n").encode("utf-8")


def read_calibration_cache(data: bytes, where: str) -> CalibrationCache:
    """Read a file.

    Raises:
        BadInputError: Not such a file, or a scale in it is none.
    """
    try:
        head, *lines = data.decode("utf-8").splitlines()
    except (UnicodeDecodeError, ValueError) as cause:
        raise _malformed(where, "no text" if data else "nothing") from cause
    header = _HEADER.fullmatch(head.strip())
    if header is None:
        raise _malformed(where, head[:80])
    scales: dict[str, float] = {}
    for line in lines:
        if not line.strip():
            continue
        # Names may hold ": " themselves.
        name, separator, digits = line.rpartition(": ")
        if not separator or not _HEX.fullmatch(digits.strip()):
            raise _malformed(where, line[:80])
        (scale,) = struct.unpack("!f", bytes.fromhex(digits.strip().rjust(8, "0")))
        if not (math.isfinite(scale) and scale > 0) or name in scales:
            raise _malformed(where, line[:80])
        scales[name] = scale
    return CalibrationCache(header["digits"], header["algorithm"], scales)


def _packed(name: str, scale: float) -> bytes:
    try:
        packed = struct.pack("!f", scale)
    except (OverflowError, struct.error) as cause:
        raise _no_scale(name, scale) from cause
    (kept,) = struct.unpack("!f", packed)
    if not (math.isfinite(kept) and kept > 0):
        raise _no_scale(name, scale)
    return packed


def _no_scale(name: str, scale: float) -> BadInputError:
    return BadInputError("This is no scale of a tensor.", where=name, expected="a positive float32", found=repr(scale))


def _malformed(where: str, found: str) -> BadInputError:
    return BadInputError(
        "This is not a calibration cache of TensorRT.",
        where=where,
        expected="a line TRT-<version>-EntropyCalibration2, then 'name: hex' lines with positive float32 scales",
        found=found,
        hint="write it again from the scale table",
    )
