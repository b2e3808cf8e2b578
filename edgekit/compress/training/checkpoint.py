"""One file from which a run that was killed goes on as if it had not been.

The file is a line with a format and a SHA-256, then what torch.save wrote: tensors, numbers and text only. The digest
is checked before torch looks at the bytes, and torch reads them with `weights_only`, so that no code is run. A file
that is damaged, or of another run (other networks, images, plan, torch), is left out of account with a note: a
checkpoint saves time and decides nothing, the run begins anew and ends the same.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgekit.core.digests import digest_bytes
from edgekit.core.files import read_bytes, write_bytes
from edgekit.core.progress import Observer

__all__ = ["CHECKPOINT_NAME", "Checkpoints"]

CHECKPOINT_NAME = "training.ckpt"
_FORMAT = b"edgekit.training/1"


class Checkpoints:
    """The checkpoint of one run in its workplace."""

    def __init__(self, workplace: Path, identity: str) -> None:
        self._path, self._identity = workplace / CHECKPOINT_NAME, identity

    def save(self, content: Mapping[str, Any]) -> None:
        """Replace the checkpoint, atomically."""
        buffer = io.BytesIO()
        torch.save({**content, "identity": self._identity}, buffer)
        data = buffer.getvalue()
        write_bytes(self._path, b"%s %s\n%s" % (_FORMAT, digest_bytes(data).encode(), data))

    def load(self, observer: Observer) -> dict[str, Any] | None:
        """The content that was saved last; None where there is none to go on from, and the observer is told why."""
        if not self._path.exists():
            return None
        content = _checked(read_bytes(self._path))
        if content is None:
            observer.noted(f"{self._path} is damaged; training begins anew")
        elif content.pop("identity", None) != self._identity:
            observer.noted(f"{self._path} is of another training run; this one begins anew")
            content = None
        return content


def _checked(data: bytes) -> dict[str, Any] | None:
    head, _, body = data.partition(b"\n")
    if head != b"%s %s" % (_FORMAT, digest_bytes(body).encode()):
        return None
    try:
        content = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception:  # torch's reader raises nearly anything on bytes that are not what it expects
        return None
    return content if isinstance(content, dict) else None
