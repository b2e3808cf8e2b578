"""Channels that may be scaled in one place and scaled back in others without a change of what the graph computes.

As in data-free quantisation (Nagel et al., 2019, cross-layer equalisation): dividing channel c of an activation by s_c
divides the rows of the weights and biases that make it and multiplies the columns of the weights that read it. Here for
any wiring: additions tie the factors of their inputs together, concatenations and slices carry them along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit.calibrate.adjustments import ChannelFactors
from edgekit.calibrate.attribution.channel_rules import RULES, Refused, Visit
from edgekit.calibrate.attribution.channel_unions import FIXED, ChannelUnions, Unknowns
from edgekit.calibrate.attribution.map_reads import tensors_read_for_their_size
from edgekit.calibrate.graph import IMAGE, ExplainedGraph
from edgekit.calibrate.placement import WEIGHTED_OPS, Placement, WeightUse, find_weight

__all__ = ["GroupMember", "ScaleGroup", "WeightLink", "factors_of", "find_groups"]

_NONE = -1


@dataclass(frozen=True)
class GroupMember:
    """A rounded activation whose channels are scaled.

    Attributes:
        tensor: Its name.
        shape: Its shape without the batch, 1 along axes whose positions share a factor.
        variables: Which of the group's factors each of its channels is divided by, in C order over `shape`; -1 where
            it is not scaled.
    """

    tensor: str
    shape: tuple[int, ...]
    variables: tuple[int, ...]


@dataclass(frozen=True)
class WeightLink:
    """A stored weight or bias that is scaled along with a group.

    Attributes:
        constant: Its name.
        axis: Axis of its slices.
        variables: Which factor each slice follows; -1 where it follows none.
        power: 1 where slices are multiplied (they read the group), -1 where they are divided (they make it).
        reads: The activation that the weight is multiplied with, where it is rounded, with one step over several of the
            group's channels; None where scaling costs the weight nothing.
        result: The tensor that this makes, or None likewise.
    """

    constant: str
    axis: int
    variables: tuple[int, ...]
    power: int
    reads: str | None = None
    result: str | None = None

    @property
    def costs(self) -> bool:
        """Scaling changes by how much rounding moves the weight."""
        return self.reads is not None


@dataclass(frozen=True)
class ScaleGroup:
    """One set of factors.

    Attributes:
        size: Number of factors.
        members: Rounded activations, in graph order. Those that take their range from another are not listed.
        links: What changes.
    """

    size: int
    members: tuple[GroupMember, ...]
    links: tuple[WeightLink, ...]


def find_groups(graph: ExplainedGraph, placement: Placement) -> tuple[ScaleGroup, ...]:
    """All sets of channels that may be scaled, in graph order.

    Args:
        graph: The FP32 graph.
        placement: What is rounded in it. Groups without a rounded activation are left out.

    Returns:
        Groups that share no factor: each may be scaled by itself.
    """
    tracking = _Tracking(graph)
    return tracking.groups(placement)


def factors_of(group: ScaleGroup, scales: npt.NDArray[np.float64]) -> tuple[ChannelFactors, ...]:
    """The changes of stored tensors that divide the group's channels by `scales`, positive [size]."""
    padded = np.append(scales, 1.0)
    changes = []
    for link in group.links:
        factors = padded[list(link.variables)] ** link.power
        if (factors != 1).any():
            changes.append(ChannelFactors(link.constant, link.axis, tuple(float(item) for item in factors)))
    return tuple(changes)


@dataclass(frozen=True)
class _Link:
    """As `WeightLink`, with unknowns."""

    unknowns: npt.NDArray[np.int64]
    reads: str | None
    result: str | None


class _Tracking:
    """Unknowns of every tensor of one graph."""

    def __init__(self, graph: ExplainedGraph) -> None:
        self.graph = graph
        self.unions = ChannelUnions()
        self.unknowns: dict[str, Unknowns] = {}
        self.links: dict[tuple[str, int, int], _Link] = {}
        self.forward = frozenset(graph.forward)
        self._fix_new(IMAGE)
        for index in graph.forward:
            self._visit(index)
        for name in (*graph.outputs, *tensors_read_for_their_size(graph)):
            if name in self.unknowns:
                self.unions.fix(self.unknowns[name])

    def _visit(self, index: int) -> None:
        node = self.graph.nodes[index]
        inputs = tuple(self.unknowns.get(name) for name in node.input)
        visit = Visit(self.graph, index, inputs, self.unions)
        try:
            if node.op_type in WEIGHTED_OPS:
                found: Unknowns | tuple[Unknowns, ...] = self._weighted(visit)
            elif node.op_type in RULES:
                found = RULES[node.op_type](visit)
            else:
                raise Refused
        except Refused:
            for unknowns in inputs:
                if unknowns is not None:
                    self.unions.fix(unknowns)
            for name in node.output:
                self._fix_new(name)
            return
        self.unknowns.update(zip(node.output, found if isinstance(found, tuple) else (found,), strict=False))

    def _fix_new(self, name: str) -> None:
        shape = self.graph.shapes.get(name)
        if shape is not None:
            self.unknowns[name] = np.full([1] * (len(shape) - 1), FIXED, dtype=np.int64)

    def _weighted(self, visit: Visit) -> Unknowns:
        use = find_weight(self.graph, visit.index)
        if isinstance(use, str) or not self._is_used_alike(use):
            raise Refused
        unknowns = visit.data()
        sizes = visit.sizes(use.data)
        outputs = self.graph.constant_shape(use.weight)[use.axis]
        channel = 0 if visit.node.op_type == "Conv" else len(sizes) - 1
        others = tuple(axis for axis in range(len(sizes)) if axis != channel)
        flat = np.broadcast_to(self.unions.merged(unknowns, others).ravel(), sizes[channel])
        result = str(visit.node.output[0])
        if visit.node.op_type == "Conv":
            self._read_by_convolution(use, flat, result)
        else:
            self._link((use.weight, 1 - use.axis, 1), flat, use.data, result)
        made = self.unions.fresh(outputs, 1)
        self._link((use.weight, use.axis, -1), made)
        if use.bias is not None:
            self._link((use.bias, 0, -1), made)
        return made.reshape([-1 if axis == channel else 1 for axis in range(len(sizes))])

    def _read_by_convolution(self, use: WeightUse, channels: npt.NDArray[np.int64], result: str) -> None:
        outputs, per_group, *_ = self.graph.constant_shape(use.weight)
        groups = len(channels) // per_group
        if per_group == 1:
            # A row for each channel, with a step of its own.
            self._link((use.weight, 0, 1), np.repeat(channels, outputs // groups))
            return
        # One column of the stored weight reads a channel of every group.
        first = self.unions.merged(channels.reshape(groups, per_group), (0,))
        self._link((use.weight, 1, 1), first.ravel(), use.data, result)

    def _link(
        self,
        key: tuple[str, int, int],
        unknowns: npt.NDArray[np.int64],
        reads: str | None = None,
        result: str | None = None,
    ) -> None:
        if key in self.links:
            self.unions.unite(self.links[key].unknowns, unknowns)
        else:
            self.links[key] = _Link(unknowns, reads, result)

    def _is_used_alike(self, use: WeightUse) -> bool:
        """True where every operation on the way to the logits that reads the weight or bias does so in the same way."""
        groups = self.graph.attribute(use.node, "group", 1)
        for name, slot in ((use.weight, 1), (use.bias, 2)):
            for edge in self.graph.readers[name] if name else ():
                if edge.node not in self.forward:
                    continue
                node = self.graph.nodes[edge.node]
                other = find_weight(self.graph, edge.node) if node.op_type in WEIGHTED_OPS else ""
                if edge.slot != slot or isinstance(other, str):
                    return False
                if slot == 1 and (other.axis != use.axis or self.graph.attribute(edge.node, "group", 1) != groups):
                    return False
        return True

    def groups(self, placement: Placement) -> tuple[ScaleGroup, ...]:
        roots = {name: self.unions.roots(unknowns) for name, unknowns in self.unknowns.items()}
        together = ChannelUnions()
        together.fresh(1 + max((int(item.max(initial=0)) for item in roots.values()), default=0), 1)
        for unknowns in roots.values():
            free = unknowns[unknowns != FIXED]
            if free.size:
                # Range and step of a tensor depend on all its channels.
                together.unite(free, free[:1])
        rounded = [name for name in placement.observed if name in roots and roots[name].any()]
        parts: dict[int, list[str]] = {}
        for name in rounded:
            free = roots[name][roots[name] != FIXED]
            parts.setdefault(int(together.roots(free[:1])[0]), []).append(name)
        weights = {use.weight for use in placement.weights}
        return tuple(self._group(part, names, weights, roots, together) for part, names in parts.items())

    def _group(
        self, part: int, names: list[str], weights: set[str], roots: dict[str, Unknowns], together: ChannelUnions
    ) -> ScaleGroup:
        links = {key: self.unions.roots(link.unknowns) for key, link in self.links.items()}
        belongs = {key: together.roots(unknowns) == part for key, unknowns in links.items()}
        inside = [roots[name].ravel() for name in names]
        inside += [links[key][belongs[key]] for key in links]
        variables = {int(root): number for number, root in enumerate(sorted(set(np.concatenate(inside)) - {FIXED}))}

        def numbered(unknowns: npt.NDArray[np.int64]) -> tuple[int, ...]:
            return tuple(variables.get(int(item), _NONE) for item in unknowns.ravel())

        members = tuple(GroupMember(name, roots[name].shape, numbered(roots[name])) for name in names)
        found = []
        for (name, axis, power), link in self.links.items():
            if belongs[name, axis, power].any():
                ends = (link.reads, link.result) if name in weights else (None, None)
                found.append(WeightLink(name, axis, numbered(links[name, axis, power]), power, *ends))
        return ScaleGroup(len(variables), members, tuple(found))
