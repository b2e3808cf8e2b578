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
    """Make a smaller classifier with its map held to the teacher's.

    The student is the teacher pruned, made sparse, or both, or another network that learns from it: the recipe says.
    """
    from edgekit.api import compress

    return partial(compress, student_code=student_code)
