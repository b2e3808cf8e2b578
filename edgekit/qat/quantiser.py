"""The rounding of one graph for one target, with scales that can learn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.calibrate.formats import SMALLEST_SCALE, NumberFormat, number_format
from edgekit.calibrate.graph import Edge, ExplainedGraph
from edgekit.calibrate.placement import Placement, WeightUse, place
from edgekit.calibrate.scale_table import ActivationScale, ScaleTable, WeightScale
from edgekit.errors import IntegrityError
from edgekit.qat.rounding import round_activation, round_bias, round_weight

__all__ = ["ForwardPass", "Quantiser"]

# A bias may take this many steps of its scale; as `calibrate.formats.bias_scales`.
_BIAS_STEPS = 2**30
# Held off its bound by this share, so that rounding of the exponential never crosses it.
_MARGIN = 1e-6


@dataclass(frozen=True)
class ForwardPass:
    """What one forward pass rounds with.

    Attributes:
        scales: A scale [] for each range, in the quantiser's order.
        replaced: What the quantised operations read in place of their stored weights and biases.
    """

    scales: tuple[torch.Tensor, ...]
    replaced: Mapping[Edge, torch.Tensor]


class Quantiser(nn.Module):
    """Rounds activations, weights and biases where `calibrate.placement` puts pairs.

    A scale is its calibrated value times the exponential of a parameter that starts at 0, its drift: steps are then
    relative, no scale can become negative, and a table written before training is the calibrated one exactly. Zero
    points stay, so a range grows and shrinks about zero.

    Args:
        graph: The FP32 graph.
        table: Its scale table.
        learned: Scales are parameters; otherwise they stay as they are.

    Raises:
        IntegrityError: The table was made for another graph.
    """

    _base: torch.Tensor
    _most: torch.Tensor

    def __init__(self, graph: ExplainedGraph, table: ScaleTable, *, learned: bool = True) -> None:
        super().__init__()
        if table.provenance.graph != graph.digest:
            raise IntegrityError(
                "The scale table was made for another graph.", expected=graph.digest, found=table.provenance.graph
            )
        self._table, self._format = table, number_format(table.number_format)
        self._placement = place(graph, self._format, table.provenance.exclude)
        self._uses = _uses_of(self._placement)
        self._roots = {name: place for place, name in enumerate(dict.fromkeys(self._placement.range_of.values()))}
        self.reads: Mapping[str, frozenset[Edge]] = {
            name: frozenset(edges) for name, edges in self._placement.dequantised_reads.items()
        }
        """Rounded tensor to the readings that get its rounded form."""
        base = [table.activations[name].scale for name in self._roots]
        most = [_largest_scale(graph, self._format, name, table.activations[name].zero_point) for name in self._roots]
        self.register_buffer("_base", torch.tensor(base), persistent=False)
        self.register_buffer("_most", torch.maximum(torch.tensor(most), self._base), persistent=False)
        for place_, name in enumerate(self._uses):
            scales = torch.tensor(table.weights[name].scales)
            self.register_buffer(f"_weight_base_{place_}", scales, persistent=False)
        self.drift: nn.Parameter | None = None
        self.weight_drift = nn.ParameterList()
        if learned:
            self.drift = nn.Parameter(torch.zeros(len(base)))
            self.weight_drift.extend(nn.Parameter(torch.zeros(len(table.weights[name].scales))) for name in self._uses)

    @property
    def number_format(self) -> NumberFormat:
        """The target's."""
        return self._format

    def _scales(self) -> torch.Tensor:
        """Scales of the activations, [roots], within what they may be."""
        if self.drift is None:
            return self._base
        return torch.clamp(self._base * torch.exp(self.drift), SMALLEST_SCALE).minimum(self._most)

    def _weight_scales(
        self, number: int, scales: Sequence[torch.Tensor], biases: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """Scales of a weight, [channels], wide enough for the biases of its operations to fit into int32."""
        base: torch.Tensor = getattr(self, f"_weight_base_{number}")
        own = base
        if len(self.weight_drift):
            own = torch.clamp(base * torch.exp(self.weight_drift[number]), SMALLEST_SCALE)
        if self._format.integer_bias:
            for use in list(self._uses.values())[number]:
                if use.bias is not None:
                    needed = biases[use.bias].detach().double().abs() / (self._scale_of(use.data, scales) * _BIAS_STEPS)
                    own = torch.maximum(own, needed.float().detach())
        return own

    def _scale_of(self, name: str, scales: Sequence[torch.Tensor]) -> torch.Tensor:
        return scales[self._roots[self._placement.range_of[name]]]

    def begin(self, stored: Callable[[str], torch.Tensor]) -> ForwardPass:
        """What a forward pass needs that does not depend on the images.

        Args:
            stored: Gives a stored tensor as it is now.
        """
        now = self._scales().unbind()
        replaced: dict[Edge, torch.Tensor] = {}
        for number, (name, uses) in enumerate(self._uses.items()):
            biases = {use.bias: stored(use.bias) for use in uses if use.bias is not None}
            own = self._weight_scales(number, now, biases)
            rounded = round_weight(stored(name), own, uses[0].axis, self._format.weight_limit)
            for use in uses:
                replaced[Edge(use.node, 1)] = rounded
                if use.bias is not None and self._format.integer_bias:
                    steps = (own * self._scale_of(use.data, now)).detach()
                    replaced[Edge(use.node, 2)] = round_bias(biases[use.bias], steps)
        return ForwardPass(now, replaced)

    def activation(self, name: str, tensor: torch.Tensor, begun: ForwardPass) -> torch.Tensor:
        """The rounded form of an activation in a forward pass."""
        zero_point = self._table.activations[name].zero_point
        scale = self._scale_of(name, begun.scales)
        return round_activation(tensor, scale, zero_point, self._format.qmin, self._format.qmax)

    @property
    def activations(self) -> tuple[str, ...]:
        """The tensors with a pair, in graph order."""
        return self._placement.activations

    def hold(self) -> None:
        """Put drifts back that left what their scales may be, in place and without a graph."""
        if self.drift is None:
            return
        with torch.no_grad():
            self.drift.copy_(
                self.drift.minimum(torch.log(self._most / self._base) - _MARGIN).maximum(_least(self._base))
            )
            for number, drift in enumerate(self.weight_drift):
                drift.copy_(drift.maximum(_least(getattr(self, f"_weight_base_{number}"))))

    @property
    def undecayed(self) -> tuple[str, ...]:
        """Names of the drifts."""
        return tuple(name for name, _ in self.named_parameters())

    def table(self, stored: Callable[[str], torch.Tensor]) -> ScaleTable:
        """The scale table as learned; that of the graph the quantiser was made for.

        Args:
            stored: Gives a stored tensor as it is now.
        """
        with torch.no_grad():
            scales = self._scales()
            now = dict(zip(self._roots, scales.tolist(), strict=True))
            activations = {
                name: _moved(entry, now[self._placement.range_of[name]])
                for name, entry in self._table.activations.items()
            }
            weights = {}
            for number, (name, uses) in enumerate(self._uses.items()):
                biases = {use.bias: stored(use.bias) for use in uses if use.bias is not None}
                own = self._weight_scales(number, scales.unbind(), biases)
                weights[name] = WeightScale(uses[0].axis, tuple(own.tolist()))
        return replace(self._table, activations=activations, weights=weights)


def _least(base: torch.Tensor) -> torch.Tensor:
    return torch.log(SMALLEST_SCALE / base) + _MARGIN


def _uses_of(placement: Placement) -> dict[str, tuple[WeightUse, ...]]:
    uses: dict[str, tuple[WeightUse, ...]] = {}
    for use in placement.weights:
        uses[use.weight] = (*uses.get(use.weight, ()), use)
    return uses


def _moved(entry: ActivationScale, scale: float) -> ActivationScale:
    """The same zero point with another scale: the range grows with it."""
    growth = scale / entry.scale
    return replace(entry, low=entry.low * growth, high=entry.high * growth, scale=scale)


def _largest_scale(graph: ExplainedGraph, fmt: NumberFormat, name: str, zero_point: int) -> float:
    """The largest scale whose grid ends within the bound of the Clip before the tensor, where there is one.

    A grid beyond it would keep the runtime from dropping the Clip; see `calibrate.formats.activation_params`.
    """
    index = graph.producer.get(name)
    if fmt.symmetric or zero_point != fmt.qmin or index is None or graph.nodes[index].op_type != "Clip":
        return math.inf
    bound = graph.nodes[index].input[2] if len(graph.nodes[index].input) > 2 else ""
    if not bound or not graph.is_constant(bound):
        return math.inf
    high: npt.NDArray[np.float32] = np.float32(graph.constant(bound).reshape(()))  # type: ignore[assignment]
    steps = np.float32(fmt.qmax - fmt.qmin)
    scale = np.float32(high / steps)
    while steps * scale > high:
        scale = np.nextafter(scale, np.float32(0))
    return float(scale) if scale > 0 else math.inf
