"""`edgekit inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.model_options import model_options
from edgekit.cli.options import FILE, json_option
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.teacher.load_options import LoadOptions

__all__ = ["command"]


@click.command("inspect")
@click.argument("path", type=FILE)
@model_options
@json_option
def command(path: Path, load: LoadOptions, as_json: bool) -> ExitCode:
    """Say what a file or folder is: a model, an ONNX graph, a bundle, a golden set or a stage.

    For a model: architecture, parameters, multiply-accumulates, input, classes, and the modules whose output a map
    could live on, with their sizes. For a Q/DQ graph: its steps between float and integers, and what TensorRT's rules
    find in it.
    """
    from edgekit.api import inspect
    from edgekit.cli.tables import print_json, render_facts, render_table

    found = inspect(path, load=load)
    if as_json:
        print_json(found.to_dict())
        return ExitCode.OK
    click.echo(render_facts({"kind": found.kind, **found.facts}))
    for table in found.tables:
        click.echo("\n" + render_table(table.header, table.rows))
    return ExitCode.OK
