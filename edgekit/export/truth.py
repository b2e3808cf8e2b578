"""What a network says in float64: the truth that graphs are held to, and how firm it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.attribution.spec import OWN_CLASS
from edgekit.export.fake_quantised import frozen_observers
from edgekit.teacher.class_choice import chosen_classes
from edgekit.teacher.explain import Explained, Explainer

__all__ = ["Truth", "truth_of"]

_BATCH = 16
# Rounding in float32 moves activations by about this share on their way through a network.
_ROUNDING = 1e-6
_MOVES = 8


@dataclass(frozen=True)
class Truth:
    """What the network answers in float64.

    Attributes:
        images: float32 [N, 3, H, W].
        logits: float64 [N, answers].
        views: Maps of the network's own answers, float64 [N, h, w] each: tap by tap, and class by class within.
        chosen: The classes that they explain, int32 [N, k].
        margin: Smallest change of a logit that would have them explain other classes, float64 [N].
        ask: The network itself: float64 images and int32 classes [n, k] to what it says.
    """

    images: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float64]
    views: tuple[npt.NDArray[np.float64], ...]
    chosen: npt.NDArray[np.int32]
    margin: npt.NDArray[np.float64]
    ask: Callable[[torch.Tensor, torch.Tensor], Explained]

    def unsteadiness(self, sample: int) -> npt.NDArray[np.float64]:
        """How far a sample's maps move when its pixels move by no more than rounding moves activations.

        The gradient through a ReLU or a maximum jumps where its input is zero or tied. Where a unit sits at such a
        kink, rounding decides on which side, in torch as in any engine, and neither answer is wrong.

        Returns:
            float64 [views]: largest difference of any cell, over moves drawn from a seed.
        """
        image = torch.from_numpy(self.images[sample : sample + 1]).double()
        generator = torch.Generator().manual_seed(sample)
        moves = 2 * torch.rand((_MOVES, *image.shape[1:]), generator=generator, dtype=torch.float64) - 1
        moved = image + _ROUNDING * image.abs().max() * moves
        asked = torch.from_numpy(self.chosen[sample : sample + 1]).expand(_MOVES, -1)
        found = _views(self.ask(moved, asked), self.chosen.shape[1])
        return np.array([np.abs(maps - view[sample]).max() for maps, view in zip(found, self.views, strict=True)])


def truth_of(model: nn.Module, explainer: Explainer, images: npt.NDArray[np.float32], *, classes: int = 1) -> Truth:
    """Ask the network in float64 and evaluation mode.

    Args:
        model: The network that was exported.
        explainer: Its maps by the attribution method's own definition, not a closed form of it.
        images: float32 [N, 3, H, W], real ones.
        classes: Maps an image has at each tap.
    """
    double = copy.deepcopy(model).double().eval()

    def ask(batch: torch.Tensor, asked: torch.Tensor) -> Explained:
        with frozen_observers(double):
            return explainer(double, batch, asked)

    logits, chosen, views = [], [], []
    for start in range(0, len(images), _BATCH):
        batch = torch.from_numpy(images[start : start + _BATCH]).double()
        own = torch.full((len(batch), classes), OWN_CLASS, dtype=torch.int32)
        answer = ask(batch, own)
        logits.append(answer.logits.numpy())
        chosen.append(chosen_classes(answer.logits, own, only_positive=explainer.only_positive).numpy())
        views.append(_views(answer, classes))
    every = np.concatenate(logits)
    return Truth(
        images=images,
        logits=every,
        views=tuple(np.concatenate(view) for view in zip(*views, strict=True)),
        chosen=np.concatenate(chosen),
        margin=_margin(every, classes, explainer.only_positive),
        ask=ask,
    )


def _views(answer: Explained, classes: int) -> list[npt.NDArray[np.float64]]:
    return [maps[:, column].numpy() for maps in answer.maps for column in range(classes)]


def _margin(logits: npt.NDArray[np.float64], classes: int, only_positive: bool) -> npt.NDArray[np.float64]:
    """See `Truth.margin`."""
    ordered = np.sort(logits, axis=1)[:, ::-1]
    gaps = ordered[:, :classes] - ordered[:, 1 : classes + 1] if classes < logits.shape[1] else -np.diff(ordered)
    if only_positive:
        gaps = np.concatenate([gaps, np.abs(ordered[:, :classes])], axis=1)
    smallest: npt.NDArray[np.float64] = gaps.min(axis=1)
    return smallest
