"""The edgekit checkpoint: plain tensors, numbers and text in a `torch.save` file, never code.

A checkpoint names its architecture; it does not carry it. Names from the built-in table are constructed as they
stand. A "package.module:factory" is code of somebody's, and a file must not decide which code runs: it is only
followed when the user named the very same factory.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.core.digests import digest_file
from edgekit.core.files import read_bytes, write_bytes
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.teacher.surgery import Surgery

__all__ = ["FORMAT", "LoadedModel", "read_tensor_file", "save_checkpoint"]

FORMAT = "edgekit.checkpoint/1"
# Zip entries carry the archive's base name; a fixed one keeps equal checkpoints equal byte for byte.
_ARCHIVE_NAME = "checkpoint"


@dataclass(frozen=True)
class LoadedModel:
    """A classifier ready to be asked.

    Attributes:
        model: In evaluation mode, on the CPU, no parameter requiring gradients.
        card: Its card; `tap` may still be None.
        arch: Name of the architecture.
        arguments: What the architecture's factory was called with.
        surgery: Recorded pruning already applied to `model`, or None.
        digest: SHA-256 of the file it came from.
    """

    model: nn.Module
    card: ModelCard
    arch: str
    arguments: Mapping[str, Any]
    surgery: Surgery | None
    digest: str


def save_checkpoint(path: Path, loaded: LoadedModel) -> str:
    """Write a checkpoint atomically and return its SHA-256. `loaded.digest` is not stored."""
    content = {
        "format": FORMAT,
        "arch": loaded.arch,
        "arguments": dict(loaded.arguments),
        "card": loaded.card.to_dict(),
        "surgery": None if loaded.surgery is None else loaded.surgery.to_dict(),
        "state_dict": {name: tensor.detach().contiguous() for name, tensor in loaded.model.state_dict().items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())
    return digest_file(path)


def read_tensor_file(path: Path) -> dict[str, Any]:
    """Read a checkpoint, state dict or safetensors file without running any code from it.

    Returns:
        The top-level mapping of the file: a checkpoint's sections, or tensor names and tensors.

    Raises:
        BadInputError: Missing, not such a file, or a pickle that wants to run code.
    """
    data = read_bytes(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(data, path)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as cause:
        raise _not_a_checkpoint(path, cause) from cause
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadInputError(
            "The model file holds something other than a checkpoint or state dict.",
            where=str(path),
            expected="a dictionary of names",
            found=type(content).__name__,
        )
    return content


def _not_a_checkpoint(path: Path, cause: Exception) -> BadInputError:
    reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    if isinstance(cause, pickle.UnpicklingError) and "Unsupported" in str(cause):
        return BadInputError(
            "The model file is a pickle that needs code to be run, which edgekit does not do.",
            where=str(path),
            expected="a state dict or an edgekit checkpoint",
            found=reason,
            hint="save model.state_dict() instead of the model and pass --arch package.module:factory",
        )
    return BadInputError(
        "The model file cannot be read.",
        where=str(path),
        expected="an edgekit checkpoint, a state dict saved with torch.save, or a .safetensors file",
        found=reason,
    )


def _read_safetensors(data: bytes, path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError) as cause:
        raise BadInputError(
            "The safetensors file cannot be read.", where=str(path), found=str(cause).splitlines()[0]
        ) from cause
