"""Gradients of normalisations: by stored statistics, and by those of the tensor itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from edgekit.calibrate.gradients.tape import InputGradients, Step

__all__ = ["NORMALISATION_RULES"]


def _only_data(step: Step) -> None:
    if step.wanted != {0}:
        raise step.refused("scales or statistics that depend on an activation", "stored ones")


def _a_channel(step: Step, name: str) -> str:
    """A vector, one number a channel, as it broadcasts over maps."""
    rank = len(step.tape.dims(step.x))
    return step.tape.op("Reshape", name, step.tape.integers([-1] + [1] * (rank - 2)))


def _batch_normalisation(step: Step) -> InputGradients:
    _only_data(step)
    if step.attribute("training_mode", 0):
        raise step.refused("training mode", "stored statistics")
    tape = step.tape
    widened = tape.op("Add", str(step.node.input[4]), tape.number(step.attribute("epsilon", 1e-5), step.x))
    factor = tape.op("Div", str(step.node.input[1]), tape.op("Sqrt", widened))
    return {0: tape.op("Mul", step.gradient, _a_channel(step, factor))}


def _normalised(step: Step, scale: str, axes: Sequence[int]) -> InputGradients:
    """With `u = (x - mean) / s` over `axes`: `dx = (h - mean(h) - u mean(h u)) / s`, h the gradient by `u`."""
    tape = step.tape
    centred = tape.op("Sub", step.x, tape.mean(step.x, step.x, axes))
    variance = tape.mean(tape.op("Mul", centred, centred), step.x, axes)
    widened = tape.op("Add", variance, tape.number(step.attribute("epsilon", 1e-5), step.x))
    deviation = tape.op("Sqrt", widened)
    unit = tape.op("Div", centred, deviation)
    inner = tape.op("Mul", step.gradient, scale)
    along = tape.op("Mul", unit, tape.mean(tape.op("Mul", inner, unit), step.x, axes))
    rest = tape.op("Sub", tape.op("Sub", inner, tape.mean(inner, step.x, axes)), along)
    return {0: tape.op("Div", rest, deviation)}


def _instance_normalisation(step: Step) -> InputGradients:
    _only_data(step)
    axes = list(range(2, len(step.tape.dims(step.x))))
    return _normalised(step, _a_channel(step, str(step.node.input[1])), axes)


def _layer_normalisation(step: Step) -> InputGradients:
    _only_data(step)
    rank = len(step.tape.dims(step.x))
    return _normalised(step, str(step.node.input[1]), list(range(step.attribute("axis", -1) % rank, rank)))


NORMALISATION_RULES: Mapping[str, Callable[[Step], InputGradients]] = MappingProxyType(
    {
        "BatchNormalization": _batch_normalisation,
        "InstanceNormalization": _instance_normalisation,
        "LayerNormalization": _layer_normalisation,
    }
)
"""Operator to rule."""
