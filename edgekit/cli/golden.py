"""`edgekit golden`."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.stage_options import stage_command

__all__ = ["command"]


@click.command("golden")
@stage_command("golden", "Folder for the golden set.")
def command() -> Any:
    """Let the teacher answer and explain the held-out images that everything is compared on."""
    from edgekit.api import golden

    return golden
