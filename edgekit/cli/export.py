"""`edgekit export`."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.options import target_option
from edgekit.cli.stage_options import stage_command

__all__ = ["command"]


@click.command("export")
@target_option
@stage_command("export", "Folder for the explained graph.")
def command(target: str) -> Any:
    """Write logits and map of a classifier as one ONNX graph, checked against torch on real images."""
    from functools import partial

    from edgekit.api import export

    return partial(export, target=target)
