"""Classifiers of timm, constructed by their names in its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekit.errors import BadInputError, UnavailableError
from edgekit.teacher.architectures.libraries import check_library_arguments, imported_library
from edgekit.teacher.card_entries import different_names

__all__ = ["LIBRARY", "Timm"]

_LOADING = ("pretrained", "checkpoint", "cache_dir", "features_only")


class Timm:
    """The library timm."""

    classes_argument = "num_classes"

    def construct(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        """The network `name` with random weights; `arguments` as `timm.create_model` takes them."""
        check_library_arguments(f"timm:{name}", arguments, _LOADING)
        (timm,) = imported_library("timm", "timm")
        _check_known(timm, name)
        model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
        return model

    def pretrained(self, name: str) -> nn.Module:
        """The network `name` with the weights that timm names for it, downloaded unless they are there already."""
        (timm,) = imported_library("timm", "timm")
        _check_known(timm, name)
        config = timm.get_pretrained_cfg(name)
        if config is None or not config.has_weights:
            raise UnavailableError(
                f"timm has no pretrained weights for {name}.",
                hint=f"save a trained state dict and pass --arch timm:{name}",
            )
        try:
            model: nn.Module = timm.create_model(name, pretrained=True)
        except Exception as cause:  # downloading fails in the ways of several libraries
            raise _no_weights(name, cause) from cause
        return model

    def card(self, model: nn.Module, name: str) -> dict[str, Any]:  # noqa: ARG002 - the model knows its own
        """Input from the model's `pretrained_cfg`; ImageNet-1k class names where it has a thousand classes."""
        config = getattr(model, "pretrained_cfg", None) or {}
        entries: dict[str, Any] = {}
        if {"input_size", "mean", "std"} <= set(config):
            _, height, width = config["input_size"]
            mean, std = list(config["mean"]), list(config["std"])
            entries["input"] = {"height": height, "width": width, "mean": mean, "std": std}
        if getattr(model, "num_classes", None) == config.get("num_classes") == 1000:
            (data,) = imported_library("timm", "timm.data")
            subset = data.infer_imagenet_subset(model)
            if subset is not None:
                entries["classes"] = different_names(data.ImageNetInfo(subset).label_descriptions())
        return entries


def _check_known(timm: Any, name: str) -> None:
    if not timm.is_model(name.partition(".")[0]):
        raise BadInputError(f"timm has no model {name!r}.", hint="timm.list_models() lists them")


def _no_weights(name: str, cause: Exception) -> UnavailableError:
    return UnavailableError(
        f"The pretrained weights of timm:{name} cannot be downloaded.",
        found=(str(cause).strip() or type(cause).__name__).splitlines()[0],
        hint=f"where they can be, save the model's state_dict(), and pass that file with --arch timm:{name}",
    )


LIBRARY = Timm()
