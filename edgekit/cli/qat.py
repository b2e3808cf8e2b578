"""`edgekit qat`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.options import FILE, target_option
from edgekit.cli.stage_options import stage_command

__all__ = ["command"]


@click.command("qat")
@click.option("--student", type=FILE, required=True, metavar="DIR", help="Folder that 'edgekit compress' wrote.")
@click.option(
    "--exported", type=FILE, required=True, metavar="DIR", help="Folder that 'edgekit export' wrote of the student."
)
@click.option(
    "--calibrated", type=FILE, required=True, metavar="DIR", help="Folder that 'edgekit calibrate' wrote of the graph."
)
@target_option
@stage_command("qat", "Folder for the student, its graph, its scale table and its Q/DQ graph.")
def command(student: Path, exported: Path, calibrated: Path, target: str) -> Any:
    """Train a calibrated student with the rounding of its INT8 engine in place, its scales too.

    MODEL is the teacher. The recipe says how long (qat.epochs), and with which loss (compress.matching and
    compress.distil).
    """
    from functools import partial

    from edgekit.api import qat

    return partial(qat, student=student, exported=exported, calibrated=calibrated, target=target)
