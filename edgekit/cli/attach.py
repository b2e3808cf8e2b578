"""`edgekit attach`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import FILE, bundle_argument, json_option, quiet_option
from edgekit.errors import ExitCode

__all__ = ["command"]


@click.command("attach")
@bundle_argument
@click.argument("evidence", type=FILE)
@click.option("-o", "--output", type=FILE, help="Folder for the release. [default: the one that BUNDLE lies in]")
@quiet_option
@json_option
def command(bundle: Path, evidence: Path, output: Path | None, quiet: bool, as_json: bool) -> ExitCode:
    """Check what a device wrote of a candidate, and complete its release; the exit code is the verdict.

    BUNDLE is the candidate that the device was given, EVIDENCE the folder that 'edgekit device build' filled there.
    Nothing is run: the choice among the engines is made here by the recipe's rules, and the bundle goes to
    OUTPUT/release or OUTPUT/candidate. Exit code 0 pass, 1 fail, 4 damaged or edited, 6 inconclusive.
    """
    from edgekit.cli.progress import make_observer
    from edgekit.cli.results import exit_code_of, print_result
    from edgekit.pipeline.attach import AttachRequest, attach

    with make_observer(quiet) as observer:
        result = attach(AttachRequest(bundle, evidence, output), observer)
    print_result(result, as_json=as_json)
    return exit_code_of(result)
