"""The edgekit checkpoint as a model format; `edgekit.teacher.checkpoint` writes and reads its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import BadInputError
from edgekit.teacher.architectures.construct import construct
from edgekit.teacher.architectures.libraries import split_library_name
from edgekit.teacher.capabilities import AS_NETWORK
from edgekit.teacher.checkpoint import FORMAT as VERSION
from edgekit.teacher.formats.model_path import ModelPath
from edgekit.teacher.formats.protocol import Content
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.surgery import Surgery, apply_surgery
from edgekit.teacher.weights import load_weights, state_dict_of

__all__ = ["FORMAT", "EdgekitCheckpoint"]

_SECTIONS = {"format", "arch", "arguments", "card", "surgery", "state_dict"}


class EdgekitCheckpoint:
    """A checkpoint that carries architecture and card."""

    name = "edgekit checkpoint"
    capabilities = AS_NETWORK

    def recognises(self, found: ModelPath) -> bool:
        """A file of tensors with an entry "format"."""
        return found.holds_tensors and isinstance(found.tensors, Mapping) and "format" in found.tensors

    def load(self, found: ModelPath, options: LoadOptions) -> Content:
        """Construct the architecture, replay recorded pruning, put the weights in."""
        content: Any = found.tensors
        path = found.path
        _check_form(content, path)
        arch, arguments = content["arch"], content["arguments"]
        _check_trusted(arch, options, path)
        if options.arguments is not None:
            arguments = options.arguments
        model = construct(arch, arguments)
        surgery = None if content["surgery"] is None else Surgery.from_dict(content["surgery"], where=str(path))
        if surgery is not None:
            apply_surgery(model, surgery)
        notes = load_weights(model, state_dict_of(content["state_dict"], path), path)
        return Content(model, content["card"], arch, dict(arguments), surgery, notes=notes)


def _check_form(content: Mapping[str, Any], path: Path) -> None:
    if content["format"] != VERSION or set(content) != _SECTIONS:
        raise BadInputError(
            "The checkpoint has a form this version does not know.",
            where=str(path),
            expected=f"format {VERSION} with " + ", ".join(sorted(_SECTIONS)),
            found=f"format {content['format']!r} with " + ", ".join(sorted(content)),
        )
    if not isinstance(content["arch"], str) or not isinstance(content["arguments"], Mapping):
        raise BadInputError("The checkpoint's architecture entry is malformed.", where=str(path))


def _check_trusted(arch: str, options: LoadOptions, path: Path) -> None:
    if options.arch is not None and options.arch != arch:
        raise BadInputError("--arch differs from the checkpoint's own.", expected=arch, found=options.arch)
    if ":" in arch and options.arch is None and split_library_name(arch) is None:
        raise BadInputError(
            "The checkpoint asks for code outside edgekit to be run.",
            where=str(path),
            found=arch,
            hint=f"if you trust that code, say so with --arch {arch}",
        )


FORMAT = EdgekitCheckpoint()
