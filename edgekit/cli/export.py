"""`edgekit export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.model_options import model_options
from edgekit.cli.options import (
    calib_option,
    data_option,
    json_option,
    model_argument,
    output_option,
    quiet_option,
    recipe_option,
    seed_option,
    target_option,
)
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.teacher.load_options import LoadOptions

__all__ = ["command"]


@click.command("export")
@model_argument
@data_option
@calib_option
@target_option
@recipe_option
@output_option("export", "Folder for the explained graph.")
@seed_option
@model_options
@quiet_option
@json_option
def command(
    model: Path,
    data: Path,
    calib: Path | None,
    target: str,
    recipe: str,
    output: Path,
    seed: int,
    load: LoadOptions,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Write logits and map of a classifier as one ONNX graph, checked against torch on real images."""
    from edgekit.api import export
    from edgekit.cli.progress import make_observer
    from edgekit.cli.results import print_record
    from edgekit.config.recipe import read_recipe

    with make_observer(quiet) as observer:
        record = export(
            model,
            data,
            output,
            calib=calib,
            target=target,
            recipe=read_recipe(recipe),
            load=load,
            seed=seed,
            observer=observer,
        )
    print_record(record, output, as_json=as_json)
    return ExitCode.OK
