"""`edgekit compress`."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.stage_options import stage_command

__all__ = ["command"]


@click.command("compress")
@stage_command("compress", "Folder for the student and its training history.")
def command() -> Any:
    """Prune a classifier and fine-tune it with its map held to the teacher's."""
    from edgekit.api import compress

    return compress
