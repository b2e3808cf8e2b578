"""`edgekit export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.options import FILE, target_option
from edgekit.cli.stage_options import stage_command

__all__ = ["command"]


@click.command("export")
@click.option(
    "--teacher",
    type=FILE,
    metavar="FILE",
    help="The student's teacher, for the graph to name: a diagnosis then knows a stale engine for sure.",
)
@target_option
@stage_command("export", "Folder for the explained graph.")
def command(target: str, teacher: Path | None) -> Any:
    """Write logits and map of a classifier as one ONNX graph, checked against torch on real images."""
    from functools import partial

    from edgekit.api import export

    return partial(export, target=target, teacher=teacher)
