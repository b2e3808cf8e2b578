"""Models given by name, "timm:NAME" or "torchvision:NAME": the library's pretrained weights, stored as a file.

Every stage names its inputs by the digest of a file. So the weights are fetched once and written as an edgekit
checkpoint, and all further work reads that file, as if the user had saved it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import BadInputError
from edgekit.teacher.architectures.libraries import LIBRARIES, split_library_name
from edgekit.teacher.card_entries import complete_card, merged_entries
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.logits import named_outputs

__all__ = ["model_file", "temporary_model_file"]


def model_file(model: Path, load: LoadOptions, folder: Path) -> Path:
    """The file to load: `model` itself, or the checkpoint in `folder` of a library's pretrained model.

    A checkpoint that is there already is used again, so the library is asked once.

    Raises:
        BadInputError: The library has no such model, or the model is given an architecture besides.
        UnavailableError: The library is not installed, or its weights cannot be had.
    """
    # A path like "timm:resnet18" that exists is somebody's file.
    named = None if model.exists() else split_library_name(str(model))
    if named is None:
        return model
    library, name = named
    if load.arch not in (None, str(model)) or load.arguments:
        raise BadInputError(
            "A pretrained model has its own architecture.",
            where=str(model),
            found="--arch or --arch-args",
            hint="leave them out, or pass a file of weights",
        )
    path = folder / f"{library}-{name}.pt"
    if not path.is_file():
        known = LIBRARIES.load(library)
        network = known.pretrained(name).eval().requires_grad_(False).float()
        entries = merged_entries(known.card(network, name), load.card, model)
        if "classes" not in entries and entries["input"]:
            entries = {**entries, "classes": _numbered(network, entries["input"], model)}
        card = complete_card(entries, None, model)
        save_checkpoint(path, LoadedModel(network, card, str(model), {}, None, ""))
    return path


@contextmanager
def temporary_model_file(model: Path, load: LoadOptions) -> Iterator[Path]:
    """`model_file` in a folder that is there while the block runs; equal weights give equal files."""
    with tempfile.TemporaryDirectory(prefix="edgekit-model-") as folder:
        yield model_file(model, load, Path(folder))


def _numbered(network: nn.Module, size: Mapping[str, Any], model: Path) -> list[str]:
    """Names for classes that the library does not name: "class 0" and so on, as many as there are logits."""
    with torch.no_grad():
        answer = network(torch.zeros(1, 3, size["height"], size["width"]))
    widths = {value.shape[1] for value in named_outputs(answer).values() if value.dim() == 2}
    if len(widths) != 1:
        raise BadInputError("The library's model is no classifier.", where=str(model))
    return [f"class {index}" for index in range(widths.pop())]
