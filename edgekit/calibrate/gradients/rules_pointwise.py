"""Derivatives of functions of one number: activations and elementary functions.

Where a function has a kink, either side's slope serves. From the output where that suffices: the input then need not be
kept, and a runtime may merge the activation with the layer before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from edgekit.calibrate.gradients.tape import InputGradients, Step

__all__ = ["POINTWISE_RULES"]

_Rule = Callable[[Step], InputGradients]


def _scaled(factor: Callable[[Step], str]) -> _Rule:
    """The gradient times a derivative that the function writes."""
    return lambda step: {0: step.tape.op("Mul", step.gradient, factor(step))}


def _number(step: Step, value: float) -> str:
    return step.tape.number(value, step.x)


def _as_number(step: Step, condition: str) -> str:
    return step.tape.op("Cast", condition, to=step.tape.facts.element_type(step.x))


def _relu(step: Step) -> str:
    return _as_number(step, step.tape.op("Greater", step.y, _number(step, 0.0)))


def _between(step: Step, low: str | None, high: str | None) -> str:
    """1 where the output lies strictly between two bounds."""
    tape = step.tape
    above = None if low is None else tape.op("Greater", step.y, low)
    below = None if high is None else tape.op("Less", step.y, high)
    both = tape.op("And", above, below) if above is not None and below is not None else above or below
    return _number(step, 1.0) if both is None else _as_number(step, both)


def _clip(step: Step) -> str:
    return _between(step, step.given(1), step.given(2))


def _hard_sigmoid(step: Step) -> str:
    inside = _between(step, _number(step, 0.0), _number(step, 1.0))
    return step.tape.op("Mul", inside, _number(step, step.attribute("alpha", 0.2)))


def _hard_swish(step: Step) -> str:
    # x h with h = clip(x / 6 + 1/2, 0, 1): h + x / 6 where h is neither 0 nor 1.
    tape = step.tape
    gate = tape.op("HardSigmoid", step.x, alpha=1 / 6, beta=0.5)
    inside = tape.op("And", tape.op("Greater", gate, _number(step, 0.0)), tape.op("Less", gate, _number(step, 1.0)))
    slope = tape.op("Mul", step.x, tape.op("Mul", _as_number(step, inside), _number(step, 1 / 6)))
    return tape.op("Add", gate, slope)


def _leaky_relu(step: Step) -> str:
    positive = step.tape.op("Greater", step.x, _number(step, 0.0))
    return step.tape.op("Where", positive, _number(step, 1.0), _number(step, step.attribute("alpha", 0.01)))


def _elu(step: Step) -> str:
    # alpha (e^x - 1) has the slope alpha e^x, which is the output plus alpha.
    tape = step.tape
    positive = tape.op("Greater", step.x, _number(step, 0.0))
    below = tape.op("Add", step.y, _number(step, step.attribute("alpha", 1.0)))
    return tape.op("Where", positive, _number(step, 1.0), below)


def _sigmoid(step: Step) -> str:
    return step.tape.op("Mul", step.y, step.tape.op("Sub", _number(step, 1.0), step.y))


def _tanh(step: Step) -> str:
    return step.tape.op("Sub", _number(step, 1.0), step.tape.op("Mul", step.y, step.y))


def _bell(step: Step, scale: float, width: float) -> str:
    """`scale exp(-width x^2)`."""
    tape = step.tape
    exponent = tape.op("Mul", tape.op("Mul", step.x, step.x), _number(step, -width))
    return tape.op("Mul", tape.op("Exp", exponent), _number(step, scale))


def _erf(step: Step) -> str:
    return _bell(step, 2 / math.sqrt(math.pi), 1.0)


def _gelu(step: Step) -> str:
    tape, half = step.tape, _number(step, 0.5)
    if step.text("approximate", "none") == "none":
        # x Phi(x): Phi(x) + x phi(x).
        inner = tape.op("Erf", tape.op("Mul", step.x, _number(step, math.sqrt(0.5))))
        share = tape.op("Mul", tape.op("Add", inner, _number(step, 1.0)), half)
        return tape.op("Add", share, tape.op("Mul", step.x, _bell(step, 1 / math.sqrt(2 * math.pi), 0.5)))
    # x (1 + t) / 2 with t = tanh(c (x + 0.044715 x^3)).
    slope, cubic = math.sqrt(2 / math.pi), 0.044715
    square = tape.op("Mul", step.x, step.x)
    inner = tape.op("Add", tape.op("Mul", square, _number(step, slope * cubic)), _number(step, slope))
    bent = tape.op("Tanh", tape.op("Mul", step.x, inner))
    rate = tape.op("Add", tape.op("Mul", square, _number(step, 3 * slope * cubic)), _number(step, slope))
    steep = tape.op("Mul", tape.op("Sub", _number(step, 1.0), tape.op("Mul", bent, bent)), rate)
    total = tape.op("Add", tape.op("Add", bent, _number(step, 1.0)), tape.op("Mul", step.x, steep))
    return tape.op("Mul", total, half)


def _sqrt(step: Step) -> str:
    return step.tape.op("Div", _number(step, 0.5), step.y)


def _reciprocal(step: Step) -> str:
    return step.tape.op("Neg", step.tape.op("Mul", step.y, step.y))


def _cast(step: Step) -> InputGradients:
    return {0: step.tape.op("Cast", step.gradient, to=step.tape.facts.element_type(step.x))}


_TABLE: dict[str, _Rule] = {
    "Abs": _scaled(lambda step: step.tape.op("Sign", step.x)),
    "Cast": _cast,
    "Clip": _scaled(_clip),
    "Elu": _scaled(_elu),
    "Erf": _scaled(_erf),
    "Exp": _scaled(lambda step: step.y),
    "Gelu": _scaled(_gelu),
    "HardSigmoid": _scaled(_hard_sigmoid),
    "HardSwish": _scaled(_hard_swish),
    "Identity": lambda step: {0: step.gradient},
    "LeakyRelu": _scaled(_leaky_relu),
    "Log": _scaled(lambda step: step.tape.op("Reciprocal", step.x)),
    "Neg": lambda step: {0: step.tape.op("Neg", step.gradient)},
    "Reciprocal": _scaled(_reciprocal),
    "Relu": _scaled(_relu),
    "Sigmoid": _scaled(_sigmoid),
    "Softplus": _scaled(lambda step: step.tape.op("Sigmoid", step.x)),
    "Sqrt": _scaled(_sqrt),
    "Tanh": _scaled(_tanh),
}
POINTWISE_RULES: Mapping[str, _Rule] = MappingProxyType(_TABLE)
"""Operator to rule."""
