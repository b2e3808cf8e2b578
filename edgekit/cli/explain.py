"""`edgekit explain`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import FILE, bundle_argument, json_option
from edgekit.errors import ExitCode

__all__ = ["command"]


@click.command("explain")
@bundle_argument
@click.argument("image", type=FILE)
@click.option("-o", "--output", type=FILE, default="overlay.png", show_default=True, help="PNG to write.")
@click.option("--class", "class_name", metavar="NAME", help="Class to explain. [default: the engine's own answer]")
@json_option
def command(bundle: Path, image: Path, output: Path, class_name: str | None, as_json: bool) -> ExitCode:
    """Answer one image with a bundle's engine and draw where it looked.

    The teacher's map stands beside the engine's when the bundle's golden set has the very image.
    """
    from edgekit.api import explain
    from edgekit.cli.tables import print_json, render_facts

    told = explain(bundle, image, output, class_name=class_name)
    if as_json:
        print_json(told.to_dict())
    else:
        click.echo(render_facts({**told.to_dict(), "probability": f"{told.probability:.1%}", "written": output}))
    return ExitCode.OK
