"""The control "random-weights": what the teacher's own architecture says when its weights are random.

The recipe is one for every kind of teacher: the values of each parameter tensor are put into a random order. What is
left is the architecture and the size of its weights, and nothing of what was learnt (the parameter randomisation of
Adebayo et al. 2018, "Sanity Checks for Saliency Maps"). A fresh initialisation would need code that a mere graph does
not carry, follow torch's version, and let activations vanish behind batch norms whose statistics are the teacher's;
such a network answers nothing at all and is too easily told apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgekit.bundle.golden import GoldenSet, RandomAnswers
from edgekit.core.progress import NULL_OBSERVER, Observer, track
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.explain import Explainer

__all__ = ["RANDOM_RECIPE", "random_answers", "shuffled_weights"]

RANDOM_RECIPE = (
    "the values of every parameter tensor of the teacher in a random order: numpy's PCG64 with the seed, tensor by "
    "tensor in the order of the network's parameters; buffers, such as the statistics of batch norms, as they are"
)
_SEED = 0
_BATCH = 32

_Floats = npt.NDArray[np.float32]


@contextmanager
def shuffled_weights(model: nn.Module, seed: int) -> Iterator[int]:
    """Put the values of each of a network's parameters into a random order, and back at the end.

    Yields:
        How many parameters have other values for it.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    parameters = list(model.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    changed = 0
    try:
        with torch.no_grad():
            for parameter, before in zip(parameters, kept, strict=True):
                order = torch.from_numpy(generator.permutation(before.numel()))
                parameter.copy_(before.reshape(-1)[order].reshape(before.shape))
                changed += int(not torch.equal(parameter, before))
        yield changed
    finally:
        with torch.no_grad():
            for parameter, before in zip(parameters, kept, strict=True):
                parameter.copy_(before)


def random_answers(
    loaded: LoadedModel, explainer: Explainer, golden: GoldenSet, observer: Observer = NULL_OBSERVER
) -> tuple[RandomAnswers | None, str]:
    """The answers of the teacher's architecture with random weights to a golden set.

    The network is left as it was.

    Args:
        loaded: The teacher.
        explainer: As it explained the golden set.
        golden: Inputs and the teacher's classes.
        observer: Told of the progress.

    Returns:
        The answers and "", or None and why there are none.
    """
    with shuffled_weights(loaded.model, _SEED) as changed:
        if not changed:
            return None, f"a teacher of the kind {loaded.format!r} holds no parameters that could be made random"
        classes, views = _answers(loaded, explainer, golden, observer)
    if classes is None:
        return None, "with random weights the teacher's architecture answers with values that are not finite"
    return RandomAnswers(RANDOM_RECIPE, _SEED, classes, tuple(np.stack(pair) for pair in views)), ""


def _answers(
    loaded: LoadedModel, explainer: Explainer, golden: GoldenSet, observer: Observer
) -> tuple[npt.NDArray[np.int64] | None, list[tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]]]:
    """Own top-1, and of every view the maps of the teacher's class and of the own; None where one is not finite."""
    wanted, classes = torch.from_numpy(golden.explained_classes), []
    asked: list[list[npt.NDArray[np.float16]]] = []
    free: list[list[npt.NDArray[np.float16]]] = []
    for start in track(range(0, len(golden), _BATCH), "maps of random weights", observer):
        images = torch.from_numpy(preprocess(golden.pixels[start : start + _BATCH], loaded.card.input))
        part = wanted[start : start + _BATCH]
        for index, maps in ((part, asked), (torch.full_like(part, -1), free)):
            explained = explainer(loaded.model, images, index)
            found = [tap[:, column].numpy() for tap in explained.maps for column in range(part.shape[1])]
            if not all(np.isfinite(values).all() for values in (explained.logits.numpy(), *found)):
                return None, []
            maps.append([_compact(one) for one in found])
        classes.append(explained.logits.numpy().argmax(axis=1).astype(np.int64))
    joined = [[np.concatenate(view) for view in zip(*maps, strict=True)] for maps in (asked, free)]
    return np.concatenate(classes), list(zip(*joined, strict=True))


def _compact(maps: _Floats) -> npt.NDArray[np.float16]:
    """Maps with a largest magnitude of 1, so that half the bytes hold them; a zero map stays zero."""
    magnitude = np.abs(maps).max(axis=(1, 2), keepdims=True)
    small: npt.NDArray[np.float16] = (maps / np.where(magnitude > 0, magnitude, 1)).astype(np.float16)
    return small
