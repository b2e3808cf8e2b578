"""What a path shows of itself before anything of it is loaded: bytes, or the members of a zip."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from edgekit.core.files import read_bytes
from edgekit.errors import BadInputError
from edgekit.teacher.checkpoint import looks_like_safetensors, parse_tensor_file

__all__ = ["CARD_NAME", "ModelPath", "rebuilt_archive"]

# The extra file of a torch.export program or TorchScript file that carries its card.
CARD_NAME = "edgekit.card.json"
# Torch stores members as they are. An archive that grows this much when it is read is not one of torch's.
_LARGEST_GROWTH = 20
_SMALL = 64 * 1024 * 1024


class ModelPath:
    """A model file or folder, read once and looked at by every format.

    Args:
        path: An existing file or folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.is_dir()

    @cached_property
    def data(self) -> bytes:
        """The bytes of the file. Raises `BadInputError` where it cannot be read."""
        return read_bytes(self.path)

    @cached_property
    def is_safetensors(self) -> bool:
        """Whether the file begins as a safetensors file does."""
        return not self.is_folder and looks_like_safetensors(self.data[:9])

    @cached_property
    def members(self) -> frozenset[str]:
        """Names of a zip's members without the folder that torch puts them all in; empty for everything else."""
        if self.is_folder or not self.data.startswith(b"PK"):
            return frozenset()
        try:
            with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
                return frozenset(_without_root(name) for name in archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return frozenset()

    @property
    def is_exported_program(self) -> bool:
        """Whether the members are those of a torch.export program."""
        return bool({"archive_format", "serialized_exported_program.json"} & self.members)

    @property
    def is_torchscript(self) -> bool:
        """Whether the members are those of a TorchScript file."""
        code = any(name.startswith("code/") for name in self.members)
        return not self.is_exported_program and code and "constants.pkl" in self.members

    @property
    def holds_tensors(self) -> bool:
        """Whether the file is left to torch's restricted reader: it is none of the other formats."""
        return not (self.is_folder or self.is_safetensors or self.is_exported_program or self.is_torchscript)

    @cached_property
    def tensors(self) -> Mapping[str, Any] | BadInputError:
        """What the restricted reader found in the file, or why it refused. Runs no code of the file."""
        try:
            return parse_tensor_file(self.data, self.path)
        except BadInputError as refusal:
            return refusal

    def archive(self) -> dict[str, bytes]:
        """The members of a zip under the names that `members` has.

        Raises:
            BadInputError: The zip is damaged, names a member twice, is packed in an unusual way, or is far larger than
                its file.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
                entries = archive.infolist()
                size = sum(entry.file_size for entry in entries)
                names = [_without_root(entry.filename) for entry in entries]
                kinds = {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
                if kinds or size > max(_SMALL, _LARGEST_GROWTH * len(self.data)) or len(set(names)) != len(names):
                    raise BadInputError("The archive was not written by torch.", where=str(self.path))
                return {name: archive.read(entry) for name, entry in zip(names, entries, strict=True)}
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError) as cause:
            raise self.damaged(cause) from cause

    def damaged(self, cause: Exception) -> BadInputError:
        """The error for a file that is of a format and cannot be read as such."""
        said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        return BadInputError("The model file is damaged or cut off.", where=str(self.path), found=said[:300])


def rebuilt_archive(members: Mapping[str, bytes]) -> io.BytesIO:
    """A zip of exactly these members, for torch to read.

    Torch has a zip reader of its own. What was checked is written anew, so that both readers see the same.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)
    buffer.seek(0)
    return buffer


def _without_root(name: str) -> str:
    return name.partition("/")[2] or name
