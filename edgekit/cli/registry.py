"""The known commands, in the order in which `edgekit --help` lists them.

The help lines stand here and not only in the commands, because reading them from the commands would import all of
them: `edgekit --help` has to answer at once, and on a device that lacks half of the packages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["COMMANDS", "CommandEntry"]


@dataclass(frozen=True)
class CommandEntry:
    """Where a command lives and what it says of itself.

    Attributes:
        target: "package.module:object" of a `click.Command`, imported when the command is called.
        help: The first sentence of the command's help; a test compares the two.
    """

    target: str
    help: str


COMMANDS: Mapping[str, CommandEntry] = MappingProxyType(
    {
        "doctor": CommandEntry(
            "edgekit.cli.doctor:command", "Say what is installed here, what is missing, and the command that adds it."
        ),
        "targets": CommandEntry("edgekit.cli.targets:command", "List the devices edgekit can build for."),
    }
)
