"""What is asked of a device: files and commands, behind an interface, so that answers of other devices can be given."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["Probe", "RecordedProbe", "SystemProbe"]

_LARGEST = 64 * 1024
_PATIENCE_S = 5.0


class Probe(Protocol):
    """Answers about the machine, None for whatever it does not have."""

    def file(self, path: str) -> str | None:
        """Text of a file; None where it cannot be read."""

    def output(self, *command: str) -> str | None:
        """What a command prints; None where it is not installed, fails or takes too long."""


@dataclass(frozen=True)
class RecordedProbe:
    """Answers that were written down; with none it is a machine that has nothing.

    Attributes:
        files: Path to text.
        outputs: Command's name to what it prints.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def file(self, path: str) -> str | None:
        """The text that stands for a path."""
        return self.files.get(path)

    def output(self, *command: str) -> str | None:
        """The text that stands for a command's name, whatever its arguments."""
        return self.outputs.get(command[0])


class SystemProbe:
    """This machine's answers. Reads, and changes nothing; commands run without a shell."""

    def file(self, path: str) -> str | None:
        """The first 64 KiB of a file, bytes that are no UTF-8 replaced."""
        try:
            with Path(path).open("rb") as stream:
                return stream.read(_LARGEST).decode("utf-8", errors="replace")
        except (OSError, ValueError):
            return None

    def output(self, *command: str) -> str | None:
        """Standard output of a command that ends well within five seconds."""
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        return done.stdout[:_LARGEST].decode("utf-8", errors="replace") if done.returncode == 0 else None
