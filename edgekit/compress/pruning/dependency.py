"""Which channels of which layers can only be removed together: Torch-Pruning's dependency graph in our own types.

Only the graph is used, never Torch-Pruning's pruners: it is asked on the whole network what the removal of some
channels entails, and nothing is cut meanwhile, so every index it names refers to the network as it was. (Its pruners
besides keep mutable default arguments, which leak the groups of one network into the next.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekit.errors import BadInputError, UnavailableError
from edgekit.teacher.surgery import channel_counts

__all__ = ["AxisLink", "ChannelGroup", "find_groups"]

# An element-wise product scales channels, as in squeeze-and-excitation; every other joint of two branches couples
# them the way an addition does.
_PRODUCTS = ("MulBackward", "DivBackward")


@dataclass(frozen=True)
class AxisLink:
    """Channels of one side of one layer that belong to a group.

    Attributes:
        layer: Module name.
        side: "out", "in", or "both" for a depthwise convolution, whose inputs are its outputs. "out" for batch
            normalisation.
        indices: Channels of the layer.
        roots: For each of them, the channel of the group's root it goes with.
        produces: True where the layer makes these channels from all of its inputs: its filters can be ranked.
        splits: How many equal parts the axis falls into that must stay equal: the groups of a grouped convolution.
    """

    layer: str
    side: str
    indices: tuple[int, ...]
    roots: tuple[int, ...]
    produces: bool
    splits: int


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live and die together.

    Attributes:
        root: Name of the layer whose output channels number the group.
        size: Output channels of the root.
        links: Every layer concerned.
        coupled: True where branches that several layers made are joined by an addition or the like.
        obstacle: Why these channels cannot be removed, None where they can.
        misfit: True where the graph names channels that a layer does not have: it has misunderstood the network.
    """

    root: str
    size: int
    links: tuple[AxisLink, ...]
    coupled: bool
    obstacle: str | None
    misfit: bool
    _graph: _Graph

    def removal(self, gone: Iterable[int]) -> Mapping[tuple[str, str], set[int]]:
        """What the removal of the root's channels `gone` takes away: (layer, "out" or "in") to channel indices."""
        removed: dict[tuple[str, str], set[int]] = {}
        for link in self._graph.links(self.root, sorted(gone)):
            for side in ("out", "in") if link.side == "both" else (link.side,):
                removed.setdefault((link.layer, side), set()).update(link.indices)
        return removed

    @property
    def splits(self) -> int:
        """Into how many equal parts the group's channels fall; equal positions of all parts must go together."""
        return math.lcm(1, *(link.splits for link in self.links))


def find_groups(model: nn.Module, shape: tuple[int, int, int]) -> tuple[ChannelGroup, ...]:
    """The channel groups of `model`, in the order of its graph.

    Args:
        model: Any classifier; it is not changed.
        shape: Channels, height and width of its input.

    Raises:
        BadInputError: The graph cannot be traced.
        UnavailableError: Torch-Pruning is not installed.
    """
    try:
        import torch_pruning
    except ModuleNotFoundError as cause:
        raise UnavailableError(
            "Pruning needs the package 'torch-pruning', which is not installed.", hint="pip install 'edgekit[host]'"
        ) from cause
    # Tracing follows gradients, switches modes and numbers the channels it sees: none of that on the caller's model.
    traced = copy.deepcopy(model).requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    reference = next(traced.parameters())
    image = torch.rand(2, *shape, generator=generator).to(reference)
    try:
        with torch.enable_grad():
            # A tuple, because a bare tensor is first unpacked into one argument per image.
            graph = torch_pruning.DependencyGraph().build_dependency(traced, (image,), verbose=False)
            groups = list(graph.get_all_groups())
    except Exception as cause:  # the tracer raises whatever the network's own operations make it stumble over
        raise BadInputError(
            "The network's channel dependencies cannot be traced.",
            found=f"{type(cause).__name__}: {cause}",
            hint="set compress.prune.rate to 0 for this network",
        ) from cause
    view = _Graph(traced, graph)
    return tuple(view.group(raw) for raw in groups)


class _Graph:
    """Torch-Pruning's graph of one network, asked by layer name."""

    def __init__(self, model: nn.Module, graph: Any) -> None:
        self._graph = graph
        self._modules = dict(model.named_modules())
        self._names = {module: name for name, module in self._modules.items()}
        users: dict[nn.Parameter, list[str]] = {}
        for name, module in self._modules.items():
            for parameter in module.parameters(recurse=False):
                users.setdefault(parameter, []).append(name)
        self._tied = {name: names for names in users.values() if len(names) > 1 for name in names}

    def group(self, raw: Any) -> ChannelGroup:
        size = len(raw[0].idxs)
        links = tuple(self._links_of(raw))
        producers = {link.layer for link in links if link.produces}
        return ChannelGroup(
            root=self._names[raw[0].dep.target.module],
            size=size,
            links=links,
            coupled=len(producers) > 1 and _joins(raw),
            obstacle=self._obstacle(raw, links, size),
            misfit=any(self._misfits(link) for link in links),
            _graph=self,
        )

    def links(self, root: str, indices: list[int]) -> Iterator[AxisLink]:
        module = self._modules[root]
        pruner = self._graph.get_pruner_of_module(module)
        yield from self._links_of(self._graph.get_pruning_group(module, pruner.prune_out_channels, indices))

    def _links_of(self, raw: Any) -> Iterator[AxisLink]:
        for item in raw:
            module = item.dep.target.module
            counts = channel_counts(module) if module in self._names else None
            if counts is None:
                continue
            groups = module.groups if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) else 1
            depthwise = groups > 1 and groups == counts[0]
            normalises = isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))
            out = normalises or self._graph.is_out_channel_pruning_fn(item.dep.handler)
            side = "both" if depthwise else "out" if out else "in"
            yield AxisLink(
                layer=self._names[module],
                side=side,
                indices=tuple(item.idxs),
                roots=tuple(item.root_idxs),
                produces=side == "out" and not normalises,
                splits=1 if depthwise else groups,
            )

    def _obstacle(self, raw: Any, links: tuple[AxisLink, ...], size: int) -> str | None:
        for item in raw:
            kind, module = item.dep.target.type, item.dep.target.module
            # What nothing consumes is what the network answers.
            if not item.dep.target.outputs and self._graph.is_out_channel_pruning_fn(item.dep.handler):
                return "its channels are the network's answer"
            if kind == self._graph.ops.OPTYPE.PARAMETER:
                return "a parameter outside a layer goes with its channels"
            if module in self._names and channel_counts(module) is None:
                return f"{type(module).__name__} {self._names[module]!r} goes with its channels"
        for link in links:
            module = self._modules[link.layer]
            if link.layer in self._tied:
                # Cut one after the other they would part, and be trained apart.
                return " and ".join(map(repr, self._tied[link.layer])) + " share a weight"
            if link.side == "both" and module.in_channels != module.out_channels:
                return f"{link.layer!r} makes several channels from each of its own"
            if link.splits > 1 and not (link.indices == link.roots == tuple(range(size))):
                return f"{link.layer!r} is a grouped convolution that sees a part of its channels"
        return None

    def _misfits(self, link: AxisLink) -> bool:
        counts = channel_counts(self._modules[link.layer])
        assert counts is not None  # _links_of lets nothing else through
        return max(link.indices) >= (counts[1] if link.side == "in" else counts[0])


def _joins(raw: Any) -> bool:
    """Whether two branches of the group meet in anything but a product."""
    nodes = {item.dep.target for item in raw}
    operations = [node for node in nodes if type(node.module).__name__ == "_ElementWiseOp"]
    return any(len(node.inputs) > 1 and not node.grad_fn.name().startswith(_PRODUCTS) for node in operations)
