"""From a loaded network and a recipe's wishes to the function that explains it."""

from __future__ import annotations

import torch

from edgekit.errors import BadInputError
from edgekit.teacher.checkpoint import LoadedModel
from edgekit.teacher.discovery import resolve_taps
from edgekit.teacher.explain import Explainer
from edgekit.teacher.methods.registry import METHODS
from edgekit.teacher.options import MapOptions

__all__ = ["explainer_for"]


def explainer_for(loaded: LoadedModel, options: MapOptions, images: torch.Tensor) -> Explainer:
    """The explainer of a network's maps, with its taps found and checked.

    Args:
        loaded: The network.
        options: Which maps an image gets.
        images: Example, float [N, 3, H, W], N at least 2.

    Raises:
        BadInputError: No usable tap; more maps than classes; positive classes of a network that is not multi-label.
    """
    classes = len(loaded.card.classes)
    if options.classes > classes:
        raise BadInputError(
            "An image cannot have maps of more classes than there are.",
            where="export.classes",
            expected=f"at most {classes}",
            found=str(options.classes),
        )
    if options.class_choice == "positive" and loaded.card.task != "multi-label":
        raise BadInputError(
            "Only a multi-label network has positive classes.",
            where="export.class_choice",
            expected="task multi-label in the model card",
            found=f"task {loaded.card.task}",
            hint="say class_choice: top, or correct the card",
        )
    method = METHODS.load(options.method)
    taps = resolve_taps(loaded.model, loaded.card, images) if method.domain == "tap" else ()
    return Explainer(method, taps, only_positive=options.class_choice == "positive")
