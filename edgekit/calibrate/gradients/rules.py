"""Which operators can be walked back through: the table of rules, and the operators where every gradient stops.

A rule writes, for one node, the gradients of its inputs from those of its outputs (a vector-Jacobian product). Rules of
one kind stand in a module each; this one only gathers them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from edgekit.calibrate.gradients.rules_broadcast import BROADCAST_RULES
from edgekit.calibrate.gradients.rules_convolution import CONVOLUTION_RULES
from edgekit.calibrate.gradients.rules_normalisation import NORMALISATION_RULES
from edgekit.calibrate.gradients.rules_pointwise import POINTWISE_RULES
from edgekit.calibrate.gradients.rules_products import PRODUCT_RULES
from edgekit.calibrate.gradients.rules_reductions import REDUCTION_RULES
from edgekit.calibrate.gradients.rules_shapes import SHAPE_RULES
from edgekit.calibrate.gradients.rules_windows import WINDOW_RULES
from edgekit.calibrate.gradients.tape import InputGradients, Step

__all__ = ["STOPPING_OPS", "VJP_RULES"]

VJP_RULES: Mapping[str, Callable[[Step], InputGradients]] = MappingProxyType(
    {
        **BROADCAST_RULES,
        **CONVOLUTION_RULES,
        **NORMALISATION_RULES,
        **POINTWISE_RULES,
        **PRODUCT_RULES,
        **REDUCTION_RULES,
        **SHAPE_RULES,
        **WINDOW_RULES,
    }
)
"""Operator to its rule. A rule answers for the slots of `Step.wanted`, each gradient shaped as the input."""

STOPPING_OPS: frozenset[str] = frozenset(
    {
        "And",
        "ArgMax",
        "ArgMin",
        "Ceil",
        "ConstantOfShape",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "IsInf",
        "IsNaN",
        "Less",
        "LessOrEqual",
        "NonZero",
        "Not",
        "Or",
        "Range",
        "Round",
        "Shape",
        "Sign",
        "Size",
        "Xor",
    }
)
"""Operators that are constant wherever they are smooth: their gradient is zero, and nothing is passed on."""
