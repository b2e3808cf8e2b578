"""Weights alone, in a file of `torch.save` or safetensors; the user says which network they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import BadInputError
from edgekit.teacher.architectures.construct import construct, known_card
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.capabilities import AS_NETWORK
from edgekit.teacher.formats.model_path import ModelPath
from edgekit.teacher.formats.protocol import Content
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.weights import load_weights, state_dict_of

__all__ = ["SAFETENSORS", "STATE_DICT", "Safetensors", "StateDict"]


class StateDict:
    """What `torch.save(model.state_dict(), path)` writes."""

    name = "state dict"
    capabilities = AS_NETWORK

    def recognises(self, found: ModelPath) -> bool:
        """A file of tensors without an entry "format"."""
        return found.holds_tensors and isinstance(found.tensors, Mapping) and "format" not in found.tensors

    def load(self, found: ModelPath, options: LoadOptions) -> Content:
        """Construct the architecture that the user named and put the weights in."""
        return _with_architecture(found.tensors, found.path, options)


class Safetensors:
    """A .safetensors file."""

    name = "safetensors"
    capabilities = AS_NETWORK

    def recognises(self, found: ModelPath) -> bool:
        """A length and a JSON object at the beginning."""
        return found.is_safetensors

    def load(self, found: ModelPath, options: LoadOptions) -> Content:
        """Construct the architecture that the user named and put the weights in."""
        if isinstance(found.tensors, BadInputError):
            raise found.tensors
        return _with_architecture(found.tensors, found.path, options)


def _with_architecture(content: Any, path: Path, options: LoadOptions) -> Content:
    if options.arch is None:
        raise BadInputError(
            "A bare state dict does not say which network it belongs to.",
            where=str(path),
            expected="--arch with a built-in name, timm:NAME, torchvision:NAME or package.module:factory",
            hint="built-in: " + ", ".join(ARCHITECTURES.names()),
        )
    arguments = dict(options.arguments or {})
    model = construct(options.arch, arguments)
    notes = load_weights(model, state_dict_of(content, path), path)
    return Content(model, known_card(options.arch, model), options.arch, arguments, notes=notes)


STATE_DICT = StateDict()
SAFETENSORS = Safetensors()
