"""Classifiers of torchvision, constructed by their names in its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekit.errors import BadInputError, UnavailableError
from edgekit.teacher.architectures.libraries import check_library_arguments, imported_library
from edgekit.teacher.card_entries import different_names

__all__ = ["LIBRARY", "Torchvision"]

_LOADING = ("weights", "pretrained", "progress")


class Torchvision:
    """The library torchvision."""

    classes_argument = "num_classes"

    def construct(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        """The network `name` with random weights; `arguments` as `torchvision.models.get_model` takes them."""
        check_library_arguments(f"torchvision:{name}", arguments, _LOADING)
        models = _models(name)
        # Inception and GoogLeNet would otherwise warn, and take half a minute for weights that are replaced anyway.
        quick = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model: nn.Module = models.get_model(name, weights=None, **{**quick, **arguments})
        return model

    def pretrained(self, name: str) -> nn.Module:
        """The network `name` with its default weights, downloaded unless they are there already."""
        models = _models(name)
        try:
            model: nn.Module = models.get_model(name, weights="DEFAULT")
        except Exception as cause:  # downloading fails in the ways of several libraries
            raise UnavailableError(
                f"The pretrained weights of torchvision:{name} cannot be downloaded.",
                found=(str(cause).strip() or type(cause).__name__).splitlines()[0],
                hint=f"where they can be, save the model's state_dict() and pass that file with "
                f"--arch torchvision:{name}",
            ) from cause
        return model

    def card(self, model: nn.Module, name: str) -> dict[str, Any]:
        """Input as the default weights were trained with; their class names where their number is the model's."""
        weights = _models(name).get_model_weights(name).DEFAULT
        preset = weights.transforms()
        side = preset.crop_size[0]
        entries: dict[str, Any] = {
            "input": {"height": side, "width": side, "mean": list(preset.mean), "std": list(preset.std)}
        }
        categories = list(weights.meta.get("categories") or ())
        linear = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        last = linear[-1] if linear else None
        width = getattr(last, "out_features", getattr(last, "out_channels", None))
        if categories and width == len(categories):
            entries["classes"] = different_names(categories)
        return entries


def _models(name: str) -> Any:
    (models,) = imported_library("torchvision", "torchvision.models")
    # The table also has networks for detection, segmentation and video, which are no classifiers of images.
    if name not in models.list_models(module=models):
        raise BadInputError(
            f"torchvision has no classifier {name!r}.", hint="torchvision.models.list_models() lists them"
        )
    return models


LIBRARY = Torchvision()
