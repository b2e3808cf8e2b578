"""`edgekit demo`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import json_option, output_option, quiet_option, target_option
from edgekit.errors import ExitCode

__all__ = ["command"]


@click.command("demo")
@target_option
@output_option("edgekit-demo", "Folder for images, stages and bundles.")
@quiet_option
@json_option
def command(target: str, output: Path, quiet: bool, as_json: bool) -> ExitCode:
    """Run the main job on the embedded classifier: one build whose maps hold, and one whose maps do not.

    Exit code 0 when the first was released and the second was not, as they should be.
    """
    from edgekit.cli.progress import make_observer
    from edgekit.cli.results import print_result, result_to_dict
    from edgekit.cli.tables import print_json
    from edgekit.demo.run import run_demo

    with make_observer(quiet) as observer:
        result = run_demo(output, target, observer)
    as_told = result.matched.manifest.status == "released" and result.unmatched.manifest.status != "released"
    if as_json:
        print_json({"matched": result_to_dict(result.matched), "unmatched": result_to_dict(result.unmatched)})
    else:
        for title, part in (
            ("Pruned and fine-tuned with the map held to the teacher's (SWA)", result.matched),
            ("Pruned and fine-tuned for the label alone", result.unmatched),
        ):
            click.echo("\n" + click.style(title, bold=True) + "\n" + "=" * len(title))
            print_result(part, as_json=False)
    if not as_told:
        click.echo("The demo did not end as it should: one release and one build that is not.", err=True)
    return ExitCode.OK if as_told else ExitCode.GATE_FAILED
