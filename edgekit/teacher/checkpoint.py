"""The edgekit checkpoint: plain tensors, numbers and text in a `torch.save` file, never code.

A checkpoint names its architecture; it does not carry it. Names from the built-in table are constructed as they
stand. A "package.module:factory" is code of somebody's, and a file must not decide which code runs: it is only
followed when the user named the very same factory.
"""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.core.digests import digest_file
from edgekit.core.files import read_bytes, write_bytes
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.teacher.capabilities import AS_NETWORK, Capabilities
from edgekit.teacher.surgery import Surgery

__all__ = [
    "FORMAT",
    "LoadedModel",
    "NeedsCodeError",
    "looks_like_safetensors",
    "parse_tensor_file",
    "read_tensor_file",
    "save_checkpoint",
]

FORMAT = "edgekit.checkpoint/1"
# What torch's restricted unpickler says about a class or function that it was told to refuse.
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")
# Since protocol 2 a pickle opens with this byte, which no text does.
_PICKLE_START = b"\x80"


@dataclass(frozen=True)
class LoadedModel:
    """A classifier ready to be asked.

    Attributes:
        model: In evaluation mode, on the CPU, no parameter requiring gradients.
        card: Its card; `tap` may still be None.
        arch: Name of the architecture.
        arguments: What the architecture's factory was called with.
        surgery: Recorded pruning already applied to `model`, or None.
        digest: SHA-256 of the file or folder it came from.
        format: What kind of file it came from, as `edgekit.teacher.formats` calls it.
        capabilities: What can be done with it.
        notes: What was decided in loading it that its user should know: a precision that was raised, one of several
            outputs that was taken, code that was run.
    """

    model: nn.Module
    card: ModelCard
    arch: str
    arguments: Mapping[str, Any]
    surgery: Surgery | None
    digest: str
    format: str = "edgekit checkpoint"
    capabilities: Capabilities = field(default=AS_NETWORK)
    notes: tuple[str, ...] = ()

    @property
    def storable(self) -> bool:
        """Whether a checkpoint can say what the network is: it has an architecture, and is no mere graph."""
        return self.capabilities.finetune


class NeedsCodeError(BadInputError):
    """A pickle that only loads if code that it names is run."""


def save_checkpoint(path: Path, loaded: LoadedModel) -> str:
    """Write a checkpoint atomically and return its SHA-256. `loaded.digest` is not stored."""
    content = {
        "format": FORMAT,
        "arch": loaded.arch,
        "arguments": dict(loaded.arguments),
        "card": loaded.card.to_dict(),
        "surgery": None if loaded.surgery is None else loaded.surgery.to_dict(),
        # Copies: a tensor that looks into a larger or shared storage would bring all of that storage with it, and
        # two equal models would not give equal files.
        "state_dict": {
            name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in loaded.model.state_dict().items()
        },
    }
    buffer = io.BytesIO()
    torch.save(_with_one_text_each(content), buffer)
    write_bytes(path, buffer.getvalue())
    return digest_file(path)


def _with_one_text_each(value: Any) -> Any:
    """The same content in which equal texts are one object.

    A pickle writes an object once and refers back to it afterwards. Without this, bytes would depend on which equal
    texts happened to be one object, which differs between a model that was just made and one that was loaded.
    """
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, Mapping):
        return {_with_one_text_each(key): _with_one_text_each(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_with_one_text_each(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def read_tensor_file(path: Path) -> dict[str, Any]:
    """Read a checkpoint, state dict or safetensors file without running any code from it.

    Returns:
        The top-level mapping of the file: a checkpoint's sections, or tensor names and tensors.

    Raises:
        BadInputError: Missing, not such a file, or a pickle that wants to run code.
    """
    return parse_tensor_file(read_bytes(path), path)


def looks_like_safetensors(opening: bytes) -> bool:
    """Whether these first bytes (nine or more) are those of a safetensors file: a length and a JSON object."""
    return len(opening) > 8 and opening[8:9] == b"{" and int.from_bytes(opening[:8], "little") < 1 << 32


def parse_tensor_file(data: bytes, path: Path) -> dict[str, Any]:
    """`read_tensor_file` on bytes that were read already; `path` is for messages."""
    is_torch = data.startswith((b"PK", _PICKLE_START))
    if looks_like_safetensors(data[:9]) or (path.suffix == ".safetensors" and not is_torch):
        return _read_safetensors(data, path)
    try:
        with warnings.catch_warnings():
            # Advice to people who write pickles; whoever reads one is told by the error.
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as cause:  # torch's reader raises nearly anything on bytes that are not what it expects
        raise _not_a_checkpoint(data, path, cause) from cause
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise BadInputError(
            "The model file holds something other than a checkpoint or state dict.",
            where=str(path),
            expected="a dictionary of names",
            found=type(content).__name__,
        )
    return content


def _not_a_checkpoint(data: bytes, path: Path, cause: Exception) -> BadInputError:
    refused = _REFUSED_GLOBAL.search(str(cause))
    if refused or (data.startswith(_PICKLE_START) and "Unsupported operand" in str(cause)):
        return NeedsCodeError(
            "The model file is a pickle that needs code to be run, which edgekit does not do.",
            where=str(path),
            expected="a state dict or an edgekit checkpoint",
            found=f"it asks for {refused[1]}" if refused else "instructions that plain tensors do not need",
            hint="save model.state_dict() instead of the model and pass --arch package.module:factory",
        )
    is_pointer = data.startswith(b"version https://git-lfs")
    return BadInputError(
        "The model file cannot be read.",
        where=str(path),
        expected="a checkpoint, state dict, safetensors file, torch.export program or TorchScript file",
        found=_described(data),
        hint="it is a Git LFS pointer: run 'git lfs pull' to fetch the file itself" if is_pointer else None,
    )


def _described(data: bytes) -> str:
    if not data:
        return "an empty file"
    if data.startswith(b"PK"):
        return f"a zip archive of {len(data)} bytes that is damaged, cut off or something else"
    opening = data[:64].decode("ascii", errors="replace")
    if all(character.isprintable() or character.isspace() for character in opening) and "\ufffd" not in opening:
        return f"a text file that begins with {opening.splitlines()[0][:40]!r}"
    return f"{len(data)} bytes that are none of these"


def _read_safetensors(data: bytes, path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError) as cause:
        raise BadInputError(
            "The safetensors file cannot be read.", where=str(path), found=str(cause).splitlines()[0]
        ) from cause
