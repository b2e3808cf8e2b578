"""Which channels of a group matter least: one score a channel, by one of several measures.

A measure scores the channels of a layer; where several layers make or scale the channels of a group, the measures of
weights divide each layer's scores by their mean, so that no layer decides because its weights are larger. What a
measure cannot see it does not replace by something else: it answers None, and the pruning names the layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import nn

from edgekit.compress.pruning.dependency import AxisLink, ChannelGroup
from edgekit.compress.pruning.evidence import PruneEvidence
from edgekit.core.registry import Registry
from edgekit.errors import BadInputError

__all__ = [
    "IMPORTANCE_SCORES",
    "Importance",
    "bn_scale_importance",
    "filter_norms",
    "l1_importance",
    "l2_importance",
    "random_importance",
    "taylor_importance",
]


class Importance(Protocol):
    """A measure of channels."""

    def __call__(self, model: nn.Module, group: ChannelGroup, evidence: PruneEvidence | None, /) -> torch.Tensor | None:
        """Importance of every channel of the group's root, float64 [size] on the CPU, never negative.

        None where the group has nothing that the measure is about.

        Raises:
            BadInputError: The measure needs evidence that was not given, or that is about another network.
        """


IMPORTANCE_SCORES: Registry[Importance] = Registry(
    "measure of importance",
    {
        "l1": "edgekit.compress.pruning.importance:l1_importance",
        "l2": "edgekit.compress.pruning.importance:l2_importance",
        "bn-scale": "edgekit.compress.pruning.importance:bn_scale_importance",
        "taylor": "edgekit.compress.pruning.importance:taylor_importance",
        "random": "edgekit.compress.pruning.importance:random_importance",
    },
)


def l1_importance(model: nn.Module, group: ChannelGroup, _evidence: PruneEvidence | None = None) -> torch.Tensor | None:
    """The l1 norm of the filter that makes a channel (Li et al., ICLR 2017).

    A fixed weight, such as a shortcut's placement of channels, was never learned and ranks nothing while others do.
    """
    return _norm_importance(model, group, 1)


def l2_importance(model: nn.Module, group: ChannelGroup, _evidence: PruneEvidence | None = None) -> torch.Tensor | None:
    """The l2 norm of the filter that makes a channel, otherwise as `l1_importance`."""
    return _norm_importance(model, group, 2)


def bn_scale_importance(
    model: nn.Module, group: ChannelGroup, _evidence: PruneEvidence | None = None
) -> torch.Tensor | None:
    """The magnitude of a channel's weight in the batch normalisation behind it (Liu et al., ICCV 2017).

    A channel that several batch normalisations see, as in dense networks, has the mean of all of them, each divided
    by its mean. None for a group without one that has weights, as where they were folded into the convolutions.
    """
    scored = []
    for link in group.links:
        module = model.get_submodule(link.layer)
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
            scored.append((link, _relative(module.weight.detach().abs())))
    return _mean_by_root(group, scored)


def taylor_importance(model: nn.Module, group: ChannelGroup, evidence: PruneEvidence | None) -> torch.Tensor | None:
    """First-order change of the loss without a filter's weights (Molchanov et al., CVPR 2019).

    Of their two ways to take a filter's weights w together, the sum of single contributions: the mean over images of
    sum (g w)^2, with g the gradient of an image's own loss. It cannot cancel between the weights of a filter, as the
    square of the sum does in front of a batch normalisation. Contributions are all in units of the loss, so those of
    several layers that make a channel are added as they are.
    """
    if evidence is None or not evidence.squared_gradients:
        raise BadInputError(
            "The importance 'taylor' needs gradients.",
            expected="evidence that gather_evidence made of this network and labelled images",
            found="none",
            hint="give training images, or set compress.prune.importance to l1",
        )
    scored = []
    for link in _makers(model, group):
        module = model.get_submodule(link.layer)
        weight = _weight(module)
        if not isinstance(weight, nn.Parameter):
            return None
        squared = evidence.squared_gradients.get(f"{link.layer}.weight")
        if squared is None or squared.shape != weight.shape:
            raise BadInputError(
                "The gradients given are those of another network.",
                where=f"{link.layer}.weight",
                expected=str(list(weight.shape)),
                found="none" if squared is None else str(list(squared.shape)),
                hint="gather them anew after every cut",
            )
        contributions = weight.detach().cpu().double().square() * squared.cpu().double()
        scored.append((link, _summed_by_filter(module, contributions)))
    totals = _totals_by_root(group, scored)
    return totals[0] if totals[1].all() else None


def random_importance(_model: nn.Module, group: ChannelGroup, evidence: PruneEvidence | None) -> torch.Tensor | None:
    """A uniform draw a channel, which follows from the seed and the name of the group's root alone."""
    if evidence is None:
        raise BadInputError(
            "The importance 'random' needs a seed.", expected="evidence with a seed: PruneEvidence(seed=0)"
        )
    digest = hashlib.sha256(f"{evidence.seed}:{group.root}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(group.size, generator=generator, dtype=torch.float64)


def filter_norms(module: nn.Module, order: int = 1) -> torch.Tensor:
    """The l1 or l2 norm of the filter behind every output channel of a convolution or linear layer, float [out]."""
    weight = _weight(module).detach()
    if order == 1:
        return _summed_by_filter(module, weight.abs())
    return _summed_by_filter(module, weight.square()).sqrt()


def _summed_by_filter(module: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """The sum over each output channel's filter of values that are shaped as the layer's weight, [out]."""
    if isinstance(module, nn.ConvTranspose2d):
        # Stored as [in, out / groups, ...]: the filter of an output channel is a column of its group.
        grouped = values.reshape(module.groups, module.in_channels // module.groups, values.shape[1], -1)
        return grouped.sum(dim=(1, 3)).flatten()
    return values.flatten(1).sum(dim=1)


def _norm_importance(model: nn.Module, group: ChannelGroup, order: int) -> torch.Tensor | None:
    """The mean over the layers that make the channels of their filters' norms, each divided by the layer's mean."""
    makers = _makers(model, group)
    return _mean_by_root(
        group, ((link, _relative(filter_norms(model.get_submodule(link.layer), order))) for link in makers)
    )


def _makers(model: nn.Module, group: ChannelGroup) -> list[AxisLink]:
    """Links of the layers that make the group's channels: those that learned, where there are any."""
    makers = [link for link in group.links if link.produces]
    learned = [link for link in makers if isinstance(_weight(model.get_submodule(link.layer)), nn.Parameter)]
    return learned or makers


def _relative(scores: torch.Tensor) -> torch.Tensor:
    scores = scores.double().cpu()
    return scores / scores.mean().clamp_min(torch.finfo(torch.float64).tiny)


def _mean_by_root(group: ChannelGroup, scored: Iterable[tuple[AxisLink, torch.Tensor]]) -> torch.Tensor | None:
    total, count = _totals_by_root(group, scored)
    return total / count if count.all() else None


def _totals_by_root(
    group: ChannelGroup, scored: Iterable[tuple[AxisLink, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """For every channel of the root, the sum of its scores and how many there were."""
    total = torch.zeros(group.size, dtype=torch.float64)
    count = torch.zeros(group.size, dtype=torch.float64)
    for link, scores in scored:
        roots = torch.tensor(link.roots)
        total.index_add_(0, roots, scores[list(link.indices)])
        count.index_add_(0, roots, torch.ones(len(roots), dtype=torch.float64))
    return total, count


def _weight(module: nn.Module) -> torch.Tensor:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight
