"""Choosing channel factors: the ones by which rounding is expected to move map and logits least.

Cross-layer equalisation (Nagel et al., 2019, arXiv:1906.04721) makes all channels reach equally far. Here a channel
that the answers hardly depend on may reach further: with s the factors, D the step of an activation and S_c how much
errors in channel c cost, its rounding is expected to cost D(s)^2 / 12 * sum_c s_c^2 S_c, where D(s) is the widest
channel's reach divided by s_c and by the number of levels. Rounding a weight that reads the channels costs, for each
output o, d_o(s)^2 / 12 * sum_c H_oc / s_c^2, with d_o its largest magnitude after scaling over the number of levels and
H_oc how much errors in that element cost. Weights that make the channels have a step for each, and cost what they did.

In log s all of this is convex: sums and maxima of exponentials of linear functions, multiplied. So descent finds the
optimum of all tensors that share the factors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.adjustments import ChannelFactors
from edgekit.calibrate.attribution.channel_evidence import ChannelEvidence, GroupEvidence
from edgekit.calibrate.attribution.scale_groups import GroupMember, ScaleGroup, WeightLink, factors_of
from edgekit.calibrate.formats import NumberFormat
from edgekit.calibrate.graph import ExplainedGraph

__all__ = ["EqualisationCost", "choose_factors", "choose_scales"]

_Floats: TypeAlias = npt.NDArray[np.float64]

# Starting points s_c = reach_c ^ alpha.
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_STEPS = 120
_FIRST_STEP = 0.2
# A channel that nothing depends on would otherwise grow or shrink for ever.
_WIDEST = 6 * np.log(2.0)
# What is expected to save less is left alone: the expectation is not that good.
_WORTHWHILE = 0.98
_TINY = 1e-30


@dataclass(frozen=True)
class _ActivationTerm:
    """One rounded activation: reaches below and above zero, and sensitivities, [channels] each."""

    variables: npt.NDArray[np.int64]
    below: _Floats
    above: _Floats
    sensitivity: _Floats
    levels: int
    symmetric: bool

    def cost(self, logs: _Floats) -> tuple[float, _Floats]:
        """Cost and its gradient by the logarithms of the factors, the last of which is fixed."""
        own = logs[self.variables]
        noise = self.sensitivity * np.exp(2 * own)
        sides = [np.maximum(self.below, self.above)] if self.symmetric else [self.below, self.above]
        step, slope = 0.0, np.zeros(len(logs))
        for side in sides:
            reach = side * np.exp(-own)
            widest = int(reach.argmax())
            step += reach[widest]
            slope[self.variables[widest]] -= reach[widest]
        cost = (step / self.levels) ** 2 / 12 * noise.sum()
        if cost <= 0:
            return 0.0, np.zeros(len(logs))
        shares = np.bincount(self.variables, noise / noise.sum(), minlength=len(logs))
        return float(cost), 2 * cost * (slope / step + shares)


@dataclass(frozen=True)
class _WeightTerm:
    """One weight that reads the channels: largest magnitudes and what errors cost, [outputs, columns] each."""

    variables: npt.NDArray[np.int64]
    largest: _Floats
    sensitivity: _Floats
    levels: int

    def cost(self, logs: _Floats) -> tuple[float, _Floats]:
        """As `_ActivationTerm.cost`."""
        own = logs[self.variables]
        scaled = self.largest * np.exp(own)
        widest = scaled.argmax(axis=1)
        steps = (scaled[np.arange(len(scaled)), widest] / self.levels) ** 2 / 12
        shrink = np.exp(-2 * own)
        costs = steps * (self.sensitivity @ shrink)
        shares = (steps @ self.sensitivity) * shrink
        slope = np.bincount(self.variables[widest], costs, minlength=len(logs)).astype(np.float64)
        slope -= np.bincount(self.variables, shares, minlength=len(logs))
        return float(costs.sum()), 2 * slope


class EqualisationCost:
    """What rounding a group's activations and the weights that read them is expected to cost, by its factors.

    Args:
        graph: The FP32 graph.
        group: The group.
        evidence: Evidence of the group's members. Weights that it does not know cost nothing.
        fmt: Number format.
    """

    def __init__(self, graph: ExplainedGraph, group: ScaleGroup, evidence: GroupEvidence, fmt: NumberFormat) -> None:
        self.size = group.size
        self._activations = [
            _activation_term(member, group.size, evidence.channels[member.tensor], fmt) for member in group.members
        ]
        self._weights = [
            term for link in group.links if (term := _weight_term(graph, link, group.size, evidence, fmt)) is not None
        ]

    def __call__(self, scales: _Floats) -> float:
        """The cost of factors, positive [size]."""
        return self.with_gradient(np.log(scales))[0]

    def with_gradient(self, logs: _Floats) -> tuple[float, _Floats]:
        """The cost of the factors' logarithms [size], and a subgradient by them."""
        padded = np.append(logs, 0.0)
        total, slope = 0.0, np.zeros(self.size + 1)
        terms: list[_ActivationTerm | _WeightTerm] = [*self._activations, *self._weights]
        for term in terms:
            cost, gradient = term.cost(padded)
            total += cost
            slope += gradient
        return total, slope[:-1]

    def starts(self) -> list[_Floats]:
        """Logarithms of factors to start from: powers of how far each channel reaches, over all members."""
        reach = np.zeros(self.size + 1)
        for term in self._activations:
            furthest = np.maximum(term.below, term.above)
            np.maximum.at(reach, term.variables, furthest / max(furthest.max(initial=0), _TINY))
        free = reach[:-1]
        known = free > 0
        logs = np.zeros(self.size)
        if known.any():
            logs[known] = np.log(free[known])
            logs[known] -= logs[known].mean()
        return [np.clip(power * logs, -_WIDEST, _WIDEST) for power in _POWERS]


def choose_scales(cost: EqualisationCost) -> _Floats:
    """The factors of least cost, float64 [size], all one where others are not worth it.

    Descends from the best starting point by subgradients with momentum (Adam), in steps that shrink to nothing, and
    keeps the best that it came by.
    """
    before, _ = cost.with_gradient(np.zeros(cost.size))
    logs = min(cost.starts(), key=lambda start: cost.with_gradient(start)[0])
    best, least = logs, cost.with_gradient(logs)[0]
    mean, square = np.zeros(cost.size), np.zeros(cost.size)
    for step in range(1, _STEPS + 1):
        value, slope = cost.with_gradient(logs)
        if value < least:
            best, least = logs, value
        slope = slope / max(value, _TINY)
        mean = 0.9 * mean + 0.1 * slope
        square = 0.98 * square + 0.02 * slope * slope
        moved = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.98**step)) + 1e-12)
        size = _FIRST_STEP * (1 - (step - 1) / _STEPS) ** 2
        logs = np.clip(logs - size * moved, -_WIDEST, _WIDEST)
    scales: _Floats = np.exp(best) if least < _WORTHWHILE * before else np.ones(cost.size)
    return scales


def choose_factors(
    graph: ExplainedGraph,
    groups: Iterable[ScaleGroup],
    evidence: GroupEvidence,
    fmt: NumberFormat,
) -> tuple[ChannelFactors, ...]:
    """The changes of stored tensors by which rounding is expected to cost least, none where nothing is to be gained.

    Args:
        graph: The FP32 graph.
        groups: Groups that may be scaled.
        evidence: As `collect_evidence` gives it.
        fmt: Number format.
    """
    changes: list[ChannelFactors] = []
    for group in groups:
        changes += factors_of(group, choose_scales(EqualisationCost(graph, group, evidence, fmt)))
    return tuple(changes)


def _numbers(variables: tuple[int, ...], size: int) -> npt.NDArray[np.int64]:
    """Indices into `size` factors with a one behind them."""
    numbers = np.asarray(variables, dtype=np.int64)
    return np.where(numbers < 0, size, numbers)


def _activation_term(member: GroupMember, size: int, evidence: ChannelEvidence, fmt: NumberFormat) -> _ActivationTerm:
    return _ActivationTerm(
        _numbers(member.variables, size),
        -evidence.low.ravel(),
        evidence.high.ravel(),
        evidence.sensitivity.ravel(),
        fmt.qmax if fmt.symmetric else fmt.qmax - fmt.qmin,
        fmt.symmetric,
    )


def _weight_term(
    graph: ExplainedGraph, link: WeightLink, size: int, evidence: GroupEvidence, fmt: NumberFormat
) -> _WeightTerm | None:
    sensitivity = evidence.weights.get(link.constant)
    if not link.costs or sensitivity is None:
        return None
    weight = np.abs(graph.constant(link.constant).astype(np.float64))
    largest = np.moveaxis(weight, link.axis, 1).reshape(*sensitivity.shape, -1).max(axis=2)
    return _WeightTerm(_numbers(link.variables, size), largest, sensitivity, fmt.weight_limit)
