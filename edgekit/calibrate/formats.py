"""Number formats: how a target writes real numbers as small integers, and the arithmetic of doing so.

The rule is that of ONNX QuantizeLinear: `q = clamp(round_half_even(x / scale) + zero_point)` and
`x' = (q - zero_point) * scale`, both in float32. Whoever simulates a target uses these functions and no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import BadInputError

__all__ = [
    "NUMBER_FORMATS",
    "SIMULATED_FORMATS",
    "SMALLEST_SCALE",
    "NumberFormat",
    "QuantParams",
    "Range",
    "activation_params",
    "bias_scales",
    "dequantise",
    "fake_quantise",
    "number_format",
    "quantise",
    "weight_scales",
]

# Products of two scales (a bias scale) must stay normal float32 numbers, hence half of the exponent range each.
SMALLEST_SCALE = 2.0**-60
_BIAS_LIMIT = 2**30


@dataclass(frozen=True)
class Range:
    """The values of a tensor that are kept: everything outside [low, high] is clipped. Always contains zero.

    Attributes:
        low: At most 0.
        high: At least 0.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", min(float(self.low), 0.0))
        object.__setattr__(self, "high", max(float(self.high), 0.0))
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise BadInputError("A range is not finite.", found=f"[{self.low}, {self.high}]")

    @property
    def amax(self) -> float:
        """The largest magnitude in the range."""
        return max(-self.low, self.high)


@dataclass(frozen=True)
class QuantParams:
    """Scale and zero point of one tensor.

    Attributes:
        scale: Width of one step, positive, exactly a float32.
        zero_point: The integer that stands for 0.0.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True)
class NumberFormat:
    """How one kind of target quantises.

    Attributes:
        name: Name in recipes, target profiles and scale tables.
        placement: Which rules say where pairs of QuantizeLinear and DequantizeLinear stand; see `placement`.
        signed: Activations are int8 rather than uint8.
        symmetric: The activations' zero point is 0 and their scale is amax / `qmax`.
        weight_limit: Weights use the integers -limit..limit. 127 is every level but -128; 64 would keep sums of two
            products within 16 bits, as processors without dot-product instructions need it.
        integer_bias: The bias is stored as int32 of scale s_x * s_w; otherwise it stays float32.
        stored_weights: Weights are stored as integers; otherwise as float32 in front of a QuantizeLinear.
        activation_bits: Bits of an activation. Fewer than eight are simulated: the graph clips in float and rounds on
            an eight-bit grid, and no runtime computes it in integers.
    """

    name: str
    placement: str
    signed: bool
    symmetric: bool
    weight_limit: int = 127
    integer_bias: bool = True
    stored_weights: bool = True
    activation_bits: int = 8

    @property
    def simulated(self) -> bool:
        """No runtime has integer kernels of this width: it shows a trend and cannot ship."""
        return self.activation_bits < 8 or self.weight_limit < 64

    @property
    def qmin(self) -> int:
        """Smallest activation integer."""
        return -(1 << (self.activation_bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """Largest activation integer."""
        return (1 << (self.activation_bits - self.signed)) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Integer type of activations."""
        return np.dtype(np.int8 if self.signed else np.uint8)


NUMBER_FORMATS: Mapping[str, NumberFormat] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            NumberFormat("x86-u8s8", placement="onnxruntime", signed=False, symmetric=False),
            NumberFormat("arm-s8s8", placement="onnxruntime", signed=True, symmetric=False),
            NumberFormat(
                "trt-s8s8",
                placement="tensorrt",
                signed=True,
                symmetric=True,
                integer_bias=False,
                stored_weights=False,
            ),
        )
    }
)


SIMULATED_FORMATS: Mapping[str, NumberFormat] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            NumberFormat("x86-u8s6", "onnxruntime", signed=False, symmetric=False, weight_limit=31),
            NumberFormat("x86-u8s4", "onnxruntime", signed=False, symmetric=False, weight_limit=7),
            NumberFormat("x86-u6s6", "onnxruntime", signed=False, symmetric=False, weight_limit=31, activation_bits=6),
            NumberFormat("x86-u4s4", "onnxruntime", signed=False, symmetric=False, weight_limit=7, activation_bits=4),
        )
    }
)
"""Fewer bits than any target computes with, to see a trend. No target may name one."""


def number_format(name: str) -> NumberFormat:
    """The number format called `name`, simulated ones included. Raises `BadInputError` naming the known ones."""
    found = NUMBER_FORMATS.get(name) or SIMULATED_FORMATS.get(name)
    if found is None:
        known = sorted((*NUMBER_FORMATS, *SIMULATED_FORMATS))
        raise BadInputError(f"There is no number format called {name!r}.", expected="one of " + ", ".join(known))
    return found


def activation_params(limits: Range, fmt: NumberFormat) -> QuantParams:
    """Scale and zero point that cover `limits`.

    A tensor that was zero throughout gets the range [0, 1]: nothing is known about it, and its scale must be positive.
    """
    low, high = (limits.low, limits.high) if limits.amax > 0 else (0.0, 1.0)
    if fmt.symmetric:
        # scale = amax / 127 in eight bits; the integer -128 is there for values that round past it.
        return QuantParams(_as_scale(max(-low, high) / fmt.qmax), 0)
    scale = _as_scale((high - low) / (fmt.qmax - fmt.qmin))
    if np.float32(fmt.qmax - fmt.qmin) * np.float32(scale) > np.float32(high - low):
        # A grid that ends above the bound of a Clip, were it by one rounding, keeps the runtime from dropping the Clip
        # and with it from running the convolution before it in integers.
        scale = max(float(np.nextafter(np.float32(scale), np.float32(0))), SMALLEST_SCALE)
    zero_point = int(np.clip(np.rint(fmt.qmin - low / scale), fmt.qmin, fmt.qmax))
    return QuantParams(scale, zero_point)


def _as_scale(value: float) -> float:
    return float(np.float32(max(value, SMALLEST_SCALE)))


def quantise(values: npt.NDArray[np.float32], params: QuantParams, fmt: NumberFormat) -> npt.NDArray[Any]:
    """QuantizeLinear: float32 to the format's activation integers, same shape."""
    steps = np.rint(values / np.float32(params.scale)) + np.float32(params.zero_point)
    clipped: npt.NDArray[Any] = np.clip(steps, fmt.qmin, fmt.qmax).astype(fmt.dtype)
    return clipped


def dequantise(integers: npt.NDArray[Any], params: QuantParams) -> npt.NDArray[np.float32]:
    """DequantizeLinear: integers to float32, same shape."""
    return (integers.astype(np.int32) - params.zero_point).astype(np.float32) * np.float32(params.scale)


def fake_quantise(values: npt.NDArray[np.float32], params: QuantParams, fmt: NumberFormat) -> npt.NDArray[np.float32]:
    """`values` as the target sees them after a pair of QuantizeLinear and DequantizeLinear."""
    return dequantise(quantise(values, params, fmt), params)


def weight_scales(amax: npt.NDArray[np.float64], fmt: NumberFormat) -> npt.NDArray[np.float32]:
    """Scales of a weight tensor, one for each output channel.

    Args:
        amax: Largest magnitude of each channel, [channels], at least 0.
        fmt: Decides the number of levels.

    Returns:
        float32 [channels], positive. A channel of zeros takes the tensor's widest scale: any would do for the zeros,
        and this one leaves the channel's bias as finely stepped as its neighbours'.
    """
    widest = float(amax.max(initial=0.0)) or 1.0
    filled = np.where(amax > 0, amax, widest) / fmt.weight_limit
    return np.maximum(filled, SMALLEST_SCALE).astype(np.float32)


def bias_scales(
    scales: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], input_scale: float
) -> npt.NDArray[np.float32]:
    """Weight scales widened where the bias would not fit into int32 in steps of `input_scale * scale`.

    Happens in channels whose weights are almost zero beside their bias, as pruning and batch-norm folding leave them;
    the weights lose what is under a billionth of the bias.
    """
    needed = np.abs(bias.astype(np.float64)) / (input_scale * _BIAS_LIMIT)
    return np.maximum(scales, needed.astype(np.float32))
