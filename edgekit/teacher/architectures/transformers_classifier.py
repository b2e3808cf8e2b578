"""Image classifiers of Hugging Face transformers, from their configuration alone; never code from a repository."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.architectures.libraries import imported_library

__all__ = ["checked_config", "transformers_classifier"]

# Where these stand in a configuration, constructing the model loads or runs something that is not in transformers.
_FOREIGN = ("auto_map", "custom_pipelines", "quantization_config")
# How it is computed is ours to say: kernels from a hub are code too, and half precision is not compressed.
_DROPPED = (
    "_attn_implementation",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_name_or_path",
    "attn_implementation",
    "dtype",
    "experts_implementation",
    "torch_dtype",
    "use_kernels",
)


def transformers_classifier(config: Mapping[str, Any]) -> nn.Module:
    """The classifier that `config` (the content of a config.json) describes, with random weights.

    Its forward takes pixel values [N, 3, H, W] and returns transformers' own output object, of which `load_model`
    takes the logits.

    Raises:
        BadInputError: No configuration of an image classifier, or one that asks for code outside transformers.
        UnavailableError: transformers is not installed.
    """
    clean = checked_config(config, "config")
    (transformers,) = imported_library("transformers", "transformers")
    kind = clean.pop("model_type")
    try:
        described = transformers.AutoConfig.for_model(kind, **clean)
        model: nn.Module = transformers.AutoModelForImageClassification.from_config(
            described, attn_implementation="eager", trust_remote_code=False
        )
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise BadInputError(
            f"transformers cannot make an image classifier of a {kind!r}.", found=str(cause).strip().splitlines()[0]
        ) from cause
    return model


def checked_config(config: Any, where: str) -> dict[str, Any]:
    """A configuration without what would load or run anything.

    Raises:
        BadInputError: It is none, or asks for code that is not part of transformers.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("model_type"), str):
        raise BadInputError("The configuration names no model type.", where=where, expected="a config.json")
    _check_nested(config, where)
    return {key: value for key, value in config.items() if key not in _DROPPED}


def _check_nested(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        found = [key for key in _FOREIGN if value.get(key)]
        found += [key for key in ("use_pretrained_backbone", "trust_remote_code") if value.get(key)]
        if found:
            raise BadInputError(
                "The configuration asks for code or weights that are not in this folder.",
                where=where,
                found=", ".join(found),
                hint="save model.state_dict() and pass --arch package.module:factory of code you trust",
            )
        for item in value.values():
            _check_nested(item, where)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_nested(item, where)
