"""What is asked of a device: files and commands, behind an interface, so that answers of other devices can be given."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["Probe", "RecordedProbe", "RememberingProbe", "SystemProbe"]

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


class RememberingProbe:
    """Another probe's answers, each asked for once: commands of a device may take a second.

    Args:
        probe: Whom to ask.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._known: dict[tuple[str, ...], str | None] = {}

    def file(self, path: str) -> str | None:
        """What the probe says of a file."""
        return self._once(("file", path), lambda: self._probe.file(path))

    def output(self, *command: str) -> str | None:
        """What the probe says of a command."""
        return self._once(("output", *command), lambda: self._probe.output(*command))

    def _once(self, key: tuple[str, ...], ask: Callable[[], str | None]) -> str | None:
        if key not in self._known:
            self._known[key] = ask()
        return self._known[key]


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
