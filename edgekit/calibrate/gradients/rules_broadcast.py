"""Gradients of operators on several tensors whose shapes are broadcast: arithmetic, choice, extremes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from edgekit.calibrate.gradients.tape import InputGradients, Step

__all__ = ["BROADCAST_RULES"]

_Rule = Callable[[Step], InputGradients]
_Parts = Mapping[int, Callable[[Step], str]]


def _operands(parts: _Parts) -> _Rule:
    """One expression an input, in the shape of the output; each is summed over what was broadcast."""

    def rule(step: Step) -> InputGradients:
        dims = step.tape.dims(step.y)
        return {
            slot: step.tape.summed_to(parts[slot](step), dims, step.node.input[slot]) for slot in sorted(step.wanted)
        }

    return rule


def _other(step: Step, slot: int) -> str:
    return str(step.node.input[slot])


def _itself(step: Step) -> str:
    return step.gradient


def _negated(step: Step) -> str:
    return step.tape.op("Neg", step.gradient)


def _times(slot: int) -> Callable[[Step], str]:
    return lambda step: step.tape.op("Mul", step.gradient, _other(step, slot))


def _over_divisor(step: Step) -> str:
    return step.tape.op("Div", step.gradient, _other(step, 1))


def _divisor(step: Step) -> str:
    # a / b by b: -(a / b) / b.
    return step.tape.op("Neg", step.tape.op("Div", step.tape.op("Mul", step.gradient, step.y), _other(step, 1)))


def _base(step: Step) -> str:
    tape, exponent = step.tape, _other(step, 1)
    # ONNX lets the exponent have a type of its own.
    if tape.facts.element_type(exponent) != tape.facts.element_type(step.x):
        exponent = tape.op("Cast", exponent, to=tape.facts.element_type(step.x))
    lower = tape.op("Pow", step.x, tape.op("Sub", exponent, tape.number(1.0, step.x)))
    return tape.op("Mul", step.gradient, tape.op("Mul", exponent, lower))


def _exponent(step: Step) -> str:
    # x^e ln x; zero where x is zero, for a zero raised to any positive power is a zero.
    tape, zero = step.tape, step.tape.number(0.0, step.x)
    safe = tape.op("Where", tape.op("Greater", step.x, zero), step.x, tape.number(1.0, step.x))
    return tape.op("Mul", step.gradient, tape.op("Mul", step.y, tape.op("Log", safe)))


def _chosen(step: Step) -> str:
    return step.tape.op("Where", step.x, step.gradient, step.tape.number(0.0, step.y))


def _not_chosen(step: Step) -> str:
    return step.tape.op("Where", step.x, step.tape.number(0.0, step.y), step.gradient)


def _prelu(step: Step) -> str:
    negative = step.tape.op("Less", step.x, step.tape.number(0.0, step.x))
    steep = step.tape.op("Mul", step.gradient, _other(step, 1))
    return step.tape.op("Where", negative, steep, step.gradient)


def _prelu_slope(step: Step) -> str:
    return step.tape.op("Mul", step.gradient, step.tape.op("Min", step.x, step.tape.number(0.0, step.x)))


def _sum(step: Step) -> InputGradients:
    dims = step.tape.dims(step.y)
    return {slot: step.tape.summed_to(step.gradient, dims, step.node.input[slot]) for slot in sorted(step.wanted)}


def _extreme(step: Step) -> InputGradients:
    """The first input that equals the extreme gets the gradient."""
    tape, dims = step.tape, step.tape.dims(step.y)
    found: dict[int, str] = {}
    earlier: str | None = None
    for slot, name in enumerate(step.node.input):
        equal = tape.op("Equal", name, step.y)
        first = equal if earlier is None else tape.op("And", equal, tape.op("Not", earlier))
        earlier = equal if earlier is None else tape.op("Or", earlier, equal)
        if slot in step.wanted:
            own = tape.op("Where", first, step.gradient, tape.number(0.0, step.y))
            found[slot] = tape.summed_to(own, dims, name)
    return found


def _expand(step: Step) -> InputGradients:
    return {0: step.tape.summed_to(step.gradient, step.tape.dims(step.y), step.x)}


_TABLE: dict[str, _Rule] = {
    "Add": _operands({0: _itself, 1: _itself}),
    "Div": _operands({0: _over_divisor, 1: _divisor}),
    "Expand": _expand,
    "Max": _extreme,
    "Min": _extreme,
    "Mul": _operands({0: _times(1), 1: _times(0)}),
    "PRelu": _operands({0: _prelu, 1: _prelu_slope}),
    "Pow": _operands({0: _base, 1: _exponent}),
    "Sub": _operands({0: _itself, 1: _negated}),
    "Sum": _sum,
    "Where": _operands({1: _chosen, 2: _not_chosen}),
}
BROADCAST_RULES: Mapping[str, _Rule] = MappingProxyType(_TABLE)
"""Operator to rule."""
