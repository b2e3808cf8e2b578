"""`edgekit calibrate`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import (
    FILE,
    json_option,
    output_option,
    quiet_option,
    recipe_option,
    seed_option,
    target_option,
)
from edgekit.errors import ExitCode

__all__ = ["command"]


@click.command("calibrate")
@click.argument("exported", type=FILE, metavar="EXPORT_DIR")
@click.option(
    "--calib", type=FILE, required=True, metavar="DIR", help="Images that the INT8 ranges are found on; no labels."
)
@target_option
@recipe_option
@output_option("calibrate", "Folder for scale table and Q/DQ graph.")
@seed_option
@quiet_option
@json_option
def command(
    exported: Path, calib: Path, target: str, recipe: str, output: Path, seed: int, quiet: bool, as_json: bool
) -> ExitCode:
    """Find INT8 ranges for an exported graph and write them as a scale table and explicit Q/DQ nodes.

    EXPORT_DIR is the folder that 'edgekit export' wrote. Needs no torch.
    """
    from edgekit.api import calibrate
    from edgekit.cli.progress import make_observer
    from edgekit.cli.results import print_record
    from edgekit.config.recipe import read_recipe

    with make_observer(quiet) as observer:
        record = calibrate(
            exported, calib, output, target=target, recipe=read_recipe(recipe), seed=seed, observer=observer
        )
    print_record(record, output, as_json=as_json)
    return ExitCode.OK
