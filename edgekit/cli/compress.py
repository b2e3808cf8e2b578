"""`edgekit compress`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from edgekit.cli.options import student_option
from edgekit.cli.stage_options import stage_command

__all__ = ["command"]


@click.command("compress")
@student_option
@stage_command("compress", "Folder for the student and its training history.")
def command(student_code: str | None) -> Any:
    """Make a student: another network or a pruned or sparse one, trained with its map held to the teacher's."""
    from edgekit.api import compress

    return partial(compress, student_code=student_code)
