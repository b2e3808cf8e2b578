"""From a file and the user's options to a classifier that is known to be complete and finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.core.digests import digest_file
from edgekit.errors import BadInputError, EdgekitError
from edgekit.interface.card import ModelCard
from edgekit.teacher.architectures.registry import ARCHITECTURES
from edgekit.teacher.checkpoint import FORMAT, LoadedModel, read_tensor_file
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.surgery import Surgery, apply_surgery

__all__ = ["LoadOptions", "load_model"]

_SHOWN = 5
_SECTIONS = {"format", "arch", "arguments", "card", "surgery", "state_dict"}


def load_model(path: Path, options: LoadOptions | None = None) -> LoadedModel:
    """Load a classifier from an edgekit checkpoint, a bare state dict or a safetensors file.

    Args:
        path: The model file. Read with `weights_only`, so no code in it is run.
        options: Architecture and card for files that do not carry them; overrides for those that do.

    Returns:
        The model in evaluation mode, with a complete card.

    Raises:
        BadInputError: The file cannot be read, the architecture is unknown or different (the first differences are
            named), the card is incomplete, a weight is not finite, or the model does not answer as a classifier.
    """
    options = options or LoadOptions()
    content = read_tensor_file(path)
    if "format" in content:
        return _from_checkpoint(content, path, options)
    if options.arch is None:
        raise BadInputError(
            "A bare state dict does not say which network it belongs to.",
            where=str(path),
            expected="--arch with a built-in name or package.module:factory",
            hint="built-in: " + ", ".join(ARCHITECTURES.names()),
        )
    model = _construct(options.arch, options.arguments or {})
    _load_weights(model, _state_dict(content, path), path)
    card = _card({}, options, path)
    return _finished(LoadedModel(model, card, options.arch, options.arguments or {}, None, digest_file(path)), path)


def _from_checkpoint(content: Mapping[str, Any], path: Path, options: LoadOptions) -> LoadedModel:
    if content["format"] != FORMAT or set(content) != _SECTIONS:
        raise BadInputError(
            "The checkpoint has a form this version does not know.",
            where=str(path),
            expected=f"format {FORMAT} with " + ", ".join(sorted(_SECTIONS)),
            found=f"format {content['format']!r} with " + ", ".join(sorted(content)),
        )
    arch, arguments = content["arch"], content["arguments"]
    if not isinstance(arch, str) or not isinstance(arguments, Mapping):
        raise BadInputError("The checkpoint's architecture entry is malformed.", where=str(path))
    if options.arch is not None and options.arch != arch:
        raise BadInputError("--arch differs from the checkpoint's own.", expected=arch, found=options.arch)
    if ":" in arch and options.arch is None:
        raise BadInputError(
            "The checkpoint asks for code outside edgekit to be run.",
            where=str(path),
            found=arch,
            hint=f"if you trust that code, say so with --arch {arch}",
        )
    if options.arguments is not None:
        arguments = options.arguments
    model = _construct(arch, arguments)
    surgery = None if content["surgery"] is None else Surgery.from_dict(content["surgery"], where=str(path))
    if surgery is not None:
        apply_surgery(model, surgery)
    _load_weights(model, _state_dict(content["state_dict"], path), path)
    card = _card(content["card"], options, path)
    return _finished(LoadedModel(model, card, arch, dict(arguments), surgery, digest_file(path)), path)


def _construct(arch: str, arguments: Mapping[str, Any]) -> nn.Module:
    factory: Any
    if ":" in arch:
        module_name, _, attribute = arch.partition(":")
        try:
            factory = getattr(import_module(module_name), attribute)
        except Exception as cause:  # importing runs the user's own code, which may raise anything
            raise BadInputError(
                "The architecture cannot be imported.",
                where=arch,
                found=f"{type(cause).__name__}: {cause}",
                hint="run from the folder that holds the module, or install its package",
            ) from cause
    else:
        factory = ARCHITECTURES.load(arch)
    try:
        model = factory(**arguments)
    except EdgekitError:
        raise
    except Exception as cause:  # a factory is anybody's code, and its arguments come from a file
        raise BadInputError(
            "The architecture does not accept its arguments.",
            where=arch,
            found=f"{dict(arguments)}: {type(cause).__name__}: {cause}",
        ) from cause
    if not isinstance(model, nn.Module):
        raise BadInputError(
            "The architecture's factory did not return a network.",
            where=arch,
            expected="a torch.nn.Module",
            found=type(model).__name__,
        )
    return model


def _state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    tensors = isinstance(content, Mapping) and all(isinstance(value, torch.Tensor) for value in content.values())
    if not tensors or not content:
        wrapped = [key for key in ("state_dict", "model", "net") if isinstance(content, Mapping) and key in content]
        raise BadInputError(
            "The model file is not a state dict.",
            where=str(path),
            expected="a mapping of parameter names to tensors",
            found=f"a mapping that holds {', '.join(wrapped)}" if wrapped else "entries that are not tensors",
            hint=f"save its entry {wrapped[0]!r} on its own" if wrapped else None,
        )
    return dict(content)


def _load_weights(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    wanted = model.state_dict()
    differences = [f"missing {name}" for name in wanted if name not in state and not name.endswith("_tracked")]
    differences += [f"unexpected {name}" for name in state if name not in wanted]
    differences += [
        f"{name}: {list(state[name].shape)} in the file, {list(wanted[name].shape)} in the network"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    differences += [
        f"{name}: {_kind(state[name])} in the file, {_kind(wanted[name])} in the network"
        for name in wanted
        if name in state and _kind(state[name]) != _kind(wanted[name])
    ]
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        prefixed = all(name.startswith("module.") for name in state)
        raise BadInputError(
            "The weights do not belong to the architecture.",
            where=str(path),
            found="; ".join(differences[:_SHOWN]) + more,
            hint="remove the prefix 'module.' that DataParallel left" if prefixed else "check --arch and its arguments",
        )
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BadInputError(
            "The weights hold values that are not finite.",
            where=str(path),
            found=f"{len(broken)} tensors, such as " + ", ".join(broken[:_SHOWN]),
            hint="the training that made this file diverged, or the file is damaged",
        )
    # BatchNorm's step counter may be absent; with a fixed momentum nothing reads it.
    model.load_state_dict(state, strict=False)


def _kind(tensor: torch.Tensor) -> str:
    # Precisions of one kind convert into each other; integers read as weights are somebody's quantised network.
    if tensor.is_complex():
        return "complex numbers"
    return "floating-point numbers" if tensor.is_floating_point() else "whole numbers"


def _card(stored: Any, options: LoadOptions, path: Path) -> ModelCard:
    if not isinstance(stored, Mapping):
        raise BadInputError("The checkpoint's card is malformed.", where=str(path))
    merged = {**stored, **{key: value for key, value in options.card.items() if key != "input"}}
    own_input = stored.get("input") or {}
    if not isinstance(own_input, Mapping):
        raise BadInputError("The checkpoint's card is malformed.", where=str(path), found="an input that is no mapping")
    merged["input"] = {**own_input, **dict(options.card.get("input", {}))}
    if not merged["input"] or "classes" not in merged:
        raise BadInputError(
            "The model file has no card, so its input and classes are unknown.",
            where=str(path),
            hint="give --card FILE, or --input-size, --mean, --std and --classes",
        )
    return ModelCard.from_dict(merged, where=f"card of {path.name}")


def _finished(loaded: LoadedModel, path: Path) -> LoadedModel:
    model = loaded.model.eval().requires_grad_(False)
    size = math.prod(loaded.card.input.shape)
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(2 * size, generator=generator).reshape(2, *loaded.card.input.shape)
    try:
        with torch.no_grad():
            answer = model(probe)
    except Exception as cause:  # a forward pass is anybody's code
        raise BadInputError(
            "The network does not accept the card's input.",
            where=str(path),
            expected=f"to run on float32 {[2, *loaded.card.input.shape]}",
            found=(str(cause).strip() or type(cause).__name__).splitlines()[0],
        ) from cause
    wanted = (2, len(loaded.card.classes))
    if not isinstance(answer, torch.Tensor) or tuple(answer.shape) != wanted:
        found = list(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise BadInputError(
            "The network does not answer as a classifier with the card's classes.",
            where=str(path),
            expected=f"logits {list(wanted)} for {len(loaded.card.classes)} classes",
            found=str(found),
        )
    if not answer.isfinite().all():
        raise BadInputError("The network's answers are not finite.", where=str(path), found="NaN or infinite logits")
    return loaded
