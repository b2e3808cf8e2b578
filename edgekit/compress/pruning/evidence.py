"""What a ranking of channels needs beyond the weights: gradients of the loss, and a seed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from edgekit.compress.training.batches import TrainingImages, training_indices
from edgekit.compress.training.steps import supervised_loss
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.interface.preprocess import preprocess

__all__ = ["PruneEvidence", "gather_evidence", "labelled_batches"]

_BATCH = 32


@dataclass(frozen=True)
class PruneEvidence:
    """Evidence about one network, as it is before it is cut.

    Attributes:
        seed: For "random".
        squared_gradients: For "taylor": parameter name to the mean over images of the squared gradient of an image's
            own loss, float64, shaped as the parameter. A mean of gradients would not do: of a trained network it is
            close to zero whatever the parameter is worth.
        images: How many images the mean is over.
    """

    seed: int = 0
    squared_gradients: Mapping[str, torch.Tensor] = field(default_factory=dict)
    images: int = 0


def gather_evidence(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], task: str, *, seed: int = 0
) -> PruneEvidence:
    """Differentiate the supervised loss of every image on its own, in evaluation mode.

    Each image is a backward pass, so that the numbers do not depend on how images are batched.

    Args:
        model: Any classifier; a copy of it is worked on, so neither weights, gradients, statistics nor modes change.
        batches: Prepared images [N, 3, H, W] and their labels, as `supervised_loss` takes them.
        task: "softmax" or "multi-label", as in the card.
        seed: Put into the evidence.

    Raises:
        BadInputError: There is no image, or a gradient is not finite.
    """
    worked_on = copy.deepcopy(model).eval().requires_grad_(True)
    parameters = dict(worked_on.named_parameters())
    device = next(iter(parameters.values())).device
    sums = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in parameters.items()}
    images = 0
    for x, labels in batches:
        for position in range(len(x)):
            one = slice(position, position + 1)
            with torch.enable_grad():
                loss = supervised_loss(worked_on(x[one].to(device)), labels[one].to(device), task)
                gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total.add_(gradient.double().square())
            images += 1
    if images == 0:
        raise BadInputError(
            "No image is there from which to estimate the importance of channels.",
            expected="at least one labelled image",
            found="none",
            hint="give training images, or set compress.prune.importance to l1",
        )
    broken = [name for name, total in sums.items() if not torch.isfinite(total).all()]
    if broken:
        raise BadInputError(
            "The importance of channels cannot be estimated: gradients of the loss are not finite.",
            where=", ".join(broken[:5]),
            hint="check the network's weights and the card's input, or set compress.prune.importance to l1",
        )
    return PruneEvidence(seed, {name: (total / images).cpu() for name, total in sums.items()}, images)


def labelled_batches(
    images: TrainingImages, card: ModelCard, limit: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """At most `limit` training images, class-balanced and drawn by `seed`, prepared as the network takes them.

    Yields:
        Images float32 [N, 3, H, W] and labels int64 [N] (or [N, K] where the images have several).

    Raises:
        BadInputError: As `training_indices` does.
    """
    pixels, labels = images.pixels, images.labels
    chosen = training_indices(labels, card.classes, limit, torch.Generator().manual_seed(seed))
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        yield torch.from_numpy(preprocess(pixels[part], card.input)), torch.from_numpy(labels[part])
