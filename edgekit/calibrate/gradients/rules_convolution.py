"""Gradients of convolutions by their input: the one by the other, with the same stored kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.gradients.tape import InputGradients, Step
from edgekit.calibrate.gradients.tensors import Dims

__all__ = ["CONVOLUTION_RULES"]


@dataclass(frozen=True)
class _Geometry:
    """A convolution's numbers, one an axis of the map; `pads` with the automatic ones worked out."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    group: int

    @property
    def reach(self) -> tuple[int, ...]:
        """Distance from the first to the last cell that a window reads."""
        return tuple(gap * (size - 1) for size, gap in zip(self.kernel, self.dilations, strict=True))


def _geometry(step: Step, outer: Dims, inner: Dims) -> _Geometry:
    """The numbers of a convolution from sizes `outer` to sizes `inner`; a transposed one has them exchanged."""
    weight = step.tape.dims(str(step.node.input[1]))
    kernel = tuple(int(size or 0) for size in weight[2:])
    ones = [1] * len(kernel)
    strides, dilations = step.attribute("strides", ones), step.attribute("dilations", ones)
    automatic = step.text("auto_pad", "NOTSET")
    if automatic == "NOTSET" and not step.attribute("output_shape", None):
        pads = list(step.attribute("pads", [0, 0] * len(kernel)))
        begin, end = pads[: len(kernel)], pads[len(kernel) :]
    else:
        sizes = zip(outer, inner, kernel, strides, dilations, strict=True)
        totals = [
            max((int(small or 0) - 1) * stride + gap * (size - 1) + 1 - int(large or 0), 0)
            for large, small, size, stride, gap in sizes
        ]
        if automatic == "VALID":
            totals = [0] * len(kernel)
        smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
        # Of an odd total the end gets more with SAME_UPPER, the beginning with SAME_LOWER.
        begin, end = (smaller, larger) if automatic == "SAME_UPPER" else (larger, smaller)
    group = step.attribute("group", 1)
    return _Geometry(kernel, tuple(strides), tuple(dilations), tuple(begin), tuple(end), group)


def _sizes(step: Step, name: str) -> Dims:
    sizes = step.tape.dims(name)[2:]
    if None in sizes:
        raise step.refused(f"sizes {list(sizes)} of {name!r}", "maps of one size")
    return sizes


def _weight(step: Step) -> npt.NDArray[Any] | None:
    """The stored kernels, None where they are computed."""
    if 1 in step.wanted:
        raise step.refused("kernels that depend on an activation", "stored kernels")
    return step.tape.facts.value(str(step.node.input[1]))


def _conv(step: Step) -> InputGradients:
    found: dict[int, str] = {}
    outer, inner = _sizes(step, step.x), _sizes(step, step.y)
    weight, numbers = _weight(step), _geometry(step, outer, inner)
    if 0 in step.wanted:
        room = all(reach >= max(pads) for reach, *pads in zip(numbers.reach, numbers.begin, numbers.end, strict=True))
        if weight is not None and room and set(numbers.strides) == {1}:
            found[0] = _by_convolution(step, weight, numbers)
        else:
            found[0] = _by_transposed(step, numbers, outer, inner)
    if 2 in step.wanted:
        found[2] = _bias(step)
    return found


def _by_convolution(step: Step, weight: npt.NDArray[Any], numbers: _Geometry) -> str:
    """With strides of one it is a convolution with turned kernels, which runtimes do faster than transposed ones."""
    outputs, inputs, *kernel = weight.shape
    grouped = weight.reshape(numbers.group, outputs // numbers.group, inputs, *kernel).swapaxes(1, 2)
    turned = np.flip(grouped, axis=tuple(range(3, grouped.ndim))).reshape(
        inputs * numbers.group, outputs // numbers.group, *kernel
    )
    pads = [reach - pad for reach, pad in zip(numbers.reach, numbers.begin, strict=True)]
    pads += [reach - pad for reach, pad in zip(numbers.reach, numbers.end, strict=True)]
    return step.tape.op(
        "Conv",
        step.gradient,
        step.tape.constant(turned),
        kernel_shape=list(kernel),
        dilations=list(numbers.dilations),
        group=numbers.group,
        pads=pads,
    )


def _by_transposed(step: Step, numbers: _Geometry, outer: Dims, inner: Dims) -> str:
    # The rows and columns that the stride left over at the end come back as zeros.
    reached = [
        stride * (int(small or 0) - 1) + reach + 1 - begin - end
        for small, stride, reach, begin, end in zip(
            inner, numbers.strides, numbers.reach, numbers.begin, numbers.end, strict=True
        )
    ]
    return step.tape.op(
        "ConvTranspose",
        step.gradient,
        str(step.node.input[1]),
        kernel_shape=list(numbers.kernel),
        strides=list(numbers.strides),
        dilations=list(numbers.dilations),
        group=numbers.group,
        pads=[*numbers.begin, *numbers.end],
        output_padding=[int(size or 0) - got for size, got in zip(outer, reached, strict=True)],
    )


def _conv_transpose(step: Step) -> InputGradients:
    found: dict[int, str] = {}
    _weight(step)
    numbers = _geometry(step, _sizes(step, step.y), _sizes(step, step.x))
    if 0 in step.wanted:
        found[0] = step.tape.op(
            "Conv",
            step.gradient,
            str(step.node.input[1]),
            kernel_shape=list(numbers.kernel),
            strides=list(numbers.strides),
            dilations=list(numbers.dilations),
            group=numbers.group,
            pads=[*numbers.begin, *numbers.end],
        )
    if 2 in step.wanted:
        found[2] = _bias(step)
    return found


def _bias(step: Step) -> str:
    axes = [axis for axis in range(len(step.tape.dims(step.y))) if axis != 1]
    return step.tape.op("ReduceSum", step.gradient, step.tape.integers(axes), keepdims=0)


CONVOLUTION_RULES: Mapping[str, Callable[[Step], InputGradients]] = MappingProxyType(
    {"Conv": _conv, "ConvTranspose": _conv_transpose}
)
"""Operator to rule."""
