"""Gradients of reductions over axes, and of softmax, which divides by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from edgekit.calibrate.gradients.tape import InputGradients, Step

__all__ = ["REDUCTION_RULES"]

_Rule = Callable[[Step], InputGradients]
_Derivative = Callable[[Step, str, str, Sequence[int]], str]
"""From step, gradient and output with the reduced axes kept, and the axes, to the gradient, broadcast or not."""


def _reduced_axes(step: Step) -> list[int]:
    rank = len(step.tape.dims(step.x))
    axes = step.axes()
    if axes:
        return sorted(axis % rank for axis in axes)
    return [] if step.attribute("noop_with_empty_axes", 0) else list(range(rank))


def _reduction(derivative: _Derivative) -> _Rule:
    def rule(step: Step) -> InputGradients:
        axes = _reduced_axes(step)
        gradient, result = step.gradient, step.y
        if axes and not step.attribute("keepdims", 1):
            kept = step.tape.integers(axes)
            gradient = step.tape.op("Unsqueeze", gradient, kept)
            result = step.tape.op("Unsqueeze", result, kept)
        return {0: step.tape.expanded(derivative(step, gradient, result, axes), step.x, axes)}

    return rule


def _globally(derivative: _Derivative) -> _Rule:
    def rule(step: Step) -> InputGradients:
        axes = list(range(2, len(step.tape.dims(step.x))))
        return {0: step.tape.expanded(derivative(step, step.gradient, step.y, axes), step.x, axes)}

    return rule


def _sum(_step: Step, gradient: str, _result: str, _axes: Sequence[int]) -> str:
    return gradient


def _mean(step: Step, gradient: str, _result: str, axes: Sequence[int]) -> str:
    return step.tape.op("Div", gradient, step.tape.count(step.x, axes))


def _extreme(step: Step, gradient: str, result: str, axes: Sequence[int]) -> str:
    # Cells that tie share, as in torch's amax.
    tape = step.tape
    equal = tape.op("Cast", tape.op("Equal", step.x, result), to=tape.facts.element_type(step.x))
    ties = tape.op("ReduceSum", equal, tape.integers(list(axes)), keepdims=1) if axes else equal
    return tape.op("Mul", equal, tape.op("Div", gradient, ties))


def _length(step: Step, gradient: str, result: str, _axes: Sequence[int]) -> str:
    # x / |x|; of a zero vector any gradient of length at most one serves, and zero is the one that is safe.
    tape, zero = step.tape, step.tape.number(0.0, step.x)
    safe = tape.op("Where", tape.op("Greater", result, zero), result, tape.number(1.0, step.x))
    return tape.op("Mul", step.x, tape.op("Div", gradient, safe))


def _softmax(step: Step) -> InputGradients:
    tape, axes = step.tape, step.tape.integers([step.attribute("axis", -1)])
    product = tape.op("Mul", step.gradient, step.y)
    total = tape.op("ReduceSum", product, axes, keepdims=1)
    return {0: tape.op("Sub", product, tape.op("Mul", step.y, total))}


def _log_softmax(step: Step) -> InputGradients:
    tape, axes = step.tape, step.tape.integers([step.attribute("axis", -1)])
    total = tape.op("ReduceSum", step.gradient, axes, keepdims=1)
    return {0: tape.op("Sub", step.gradient, tape.op("Mul", tape.op("Exp", step.y), total))}


_TABLE: dict[str, _Rule] = {
    "GlobalAveragePool": _globally(_mean),
    "GlobalMaxPool": _globally(_extreme),
    "LogSoftmax": _log_softmax,
    "ReduceL2": _reduction(_length),
    "ReduceMax": _reduction(_extreme),
    "ReduceMean": _reduction(_mean),
    "ReduceMin": _reduction(_extreme),
    "ReduceSum": _reduction(_sum),
    "Softmax": _softmax,
}
REDUCTION_RULES: Mapping[str, _Rule] = MappingProxyType(_TABLE)
"""Operator to rule."""
