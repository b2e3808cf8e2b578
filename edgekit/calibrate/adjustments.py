"""What is changed in an FP32 graph before its numbers are rounded, as data that travels in the scale table.

All but the rounding itself leave what the graph computes as it is, up to float arithmetic: they choose among equal
networks the one that loses least. `adjusted` applies them, so that the Q/DQ graph stays a function of graph and table.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.strict_reader import StrictReader

__all__ = ["NO_ADJUSTMENTS", "Adjustments", "ChannelFactors", "InputGrid", "offsets_of", "stored_offsets"]

# A stored weight is never larger than the file it lies in; this only bounds what a hostile table may unpack to.
_MOST_WEIGHTS = 1 << 31


@dataclass(frozen=True)
class InputGrid:
    """The grid that images were captured on: `pixels = image * factor + offset`, channel by channel.

    Attributes:
        factor: Positive, one a channel.
        offset: One a channel, in units of pixels.
    """

    factor: tuple[float, float, float]
    offset: tuple[float, float, float]


@dataclass(frozen=True)
class ChannelFactors:
    """Slices of a stored tensor are multiplied.

    Attributes:
        constant: Name of the stored tensor.
        axis: Axis of the slices.
        factors: Positive, one a slice.
    """

    constant: str
    axis: int
    factors: tuple[float, ...]


@dataclass(frozen=True)
class Adjustments:
    """All changes, in the order in which they are applied.

    Attributes:
        input_grid: Where the image is rounded on its own grid.
        factors: Channels scaled here and scaled back there.
        bias_shifts: Name of a stored bias to what is added to it, one a channel.
        rounding: Name of a weight to its offsets from the nearest integers, int8 as bytes in C order: which weights are
            rounded the other way.
    """

    input_grid: InputGrid | None = None
    factors: tuple[ChannelFactors, ...] = ()
    bias_shifts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rounding: Mapping[str, bytes] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self != NO_ADJUSTMENTS

    @property
    def changes_graph(self) -> bool:
        """Anything but rounding."""
        return bool(self.input_grid or self.factors or self.bias_shifts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        grid = self.input_grid
        return {
            "input_grid": None if grid is None else {"factor": list(grid.factor), "offset": list(grid.offset)},
            "factors": [
                {"constant": item.constant, "axis": item.axis, "factors": list(item.factors)} for item in self.factors
            ],
            "bias_shifts": {name: list(values) for name, values in self.bias_shifts.items()},
            "rounding": {
                name: base64.b64encode(zlib.compress(data, 9)).decode("ascii") for name, data in self.rounding.items()
            },
        }

    @classmethod
    def from_dict(cls, raw: Any, reader: StrictReader) -> Adjustments:
        """Check and build from untrusted data. Raises `IntegrityError` saying which entry is wrong."""
        top = reader.mapping(raw, "adjustments", {"input_grid", "factors", "bias_shifts", "rounding"})
        grid = top["input_grid"]
        shifts = reader.mapping(top["bias_shifts"], "adjustments.bias_shifts")
        rounding = reader.mapping(top["rounding"], "adjustments.rounding")
        return cls(
            input_grid=None if grid is None else _read_grid(grid, reader),
            factors=tuple(_read_factors(item, reader) for item in reader.items(top["factors"], "adjustments.factors")),
            bias_shifts={name: _numbers(values, f"bias_shifts.{name}", reader) for name, values in shifts.items()},
            rounding={name: _unpacked(text, f"rounding.{name}", reader) for name, text in rounding.items()},
        )


NO_ADJUSTMENTS = Adjustments()


def stored_offsets(offsets: npt.NDArray[np.int8]) -> bytes:
    """Offsets of a weight, int8 of its shape, as `Adjustments.rounding` holds them."""
    return np.ascontiguousarray(offsets, dtype=np.int8).tobytes()


def offsets_of(adjustments: Adjustments, weight: str, shape: tuple[int, ...]) -> npt.NDArray[np.int8] | None:
    """The offsets of a weight, int8 of `shape`, or None where it is rounded to nearest.

    Raises:
        ValueError: They are of another number.
    """
    data = adjustments.rounding.get(weight)
    return None if data is None else np.frombuffer(data, dtype=np.int8).reshape(shape)


def _numbers(raw: Any, key: str, reader: StrictReader) -> tuple[float, ...]:
    key = f"adjustments.{key}"
    numbers = tuple(reader.number(item, key) for item in reader.items(raw, key))
    if not all(map(math.isfinite, numbers)):
        raise reader.error(key, "finite numbers", raw)
    return numbers


def _read_grid(raw: Any, reader: StrictReader) -> InputGrid:
    entry = reader.mapping(raw, "adjustments.input_grid", {"factor", "offset"})
    factor, offset = (_numbers(entry[key], f"input_grid.{key}", reader) for key in ("factor", "offset"))
    if len(factor) != 3 or len(offset) != 3 or min(factor) <= 0:
        raise reader.error("adjustments.input_grid", "three positive factors and three offsets", raw)
    return InputGrid((factor[0], factor[1], factor[2]), (offset[0], offset[1], offset[2]))


def _read_factors(raw: Any, reader: StrictReader) -> ChannelFactors:
    key = "adjustments.factors"
    entry = reader.mapping(raw, key, {"constant", "axis", "factors"})
    factors = _numbers(entry["factors"], "factors", reader)
    if not factors or min(factors) <= 0:
        raise reader.error(key, "positive factors", entry["factors"])
    return ChannelFactors(reader.text(entry["constant"], key), reader.integer(entry["axis"], key), factors)


def _unpacked(raw: Any, key: str, reader: StrictReader) -> bytes:
    key = f"adjustments.{key}"
    text = reader.text(raw, key)
    try:
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(base64.b64decode(text, validate=True), _MOST_WEIGHTS)
    except (binascii.Error, ValueError, zlib.error) as cause:
        raise reader.error(key, "packed offsets", text[:40]) from cause
    if not unpacking.eof or unpacking.unused_data or not set(data) <= {0, 1, 255}:
        raise reader.error(key, "offsets of -1, 0 and 1", text[:40])
    return data
