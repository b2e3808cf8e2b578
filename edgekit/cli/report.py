"""`edgekit report`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import FILE, bundle_argument, json_option, output_option, policy_option, quiet_option
from edgekit.errors import ExitCode

__all__ = ["command"]


@click.command("report")
@bundle_argument
@click.option(
    "--blame", type=FILE, metavar="FILE", help="blame.json of this bundle. [default: the one that lies beside it]"
)
@policy_option
@output_option("edgekit-report", "Folder for report.html and report.json.")
@quiet_option
@json_option
def command(bundle: Path, blame: Path | None, policy: str | None, output: Path, quiet: bool, as_json: bool) -> ExitCode:
    """Tell a bundle's evidence again as one page, with controls and blame where there are any.

    The stored scores are judged, as 'edgekit gate' does. The engine is run on the golden set once more, here, for the
    pictures; where it answers otherwise than its scores say, there is no page. Exit code 0 whatever the verdict.
    """
    from edgekit.cli.progress import make_observer
    from edgekit.cli.tables import print_json, render_facts
    from edgekit.config.documents import read_policy
    from edgekit.pipeline.bundle_report import report_file

    chosen = None if policy is None else read_policy(policy)
    with make_observer(quiet) as observer:
        written = report_file(bundle, output, blame=blame, policy=chosen, observer=observer)
    told = {
        "status": written.status,
        "headline": written.headline,
        "blame": None if written.blame is None else str(written.blame),
        "report": str(written.page),
    }
    if as_json:
        print_json(told)
    else:
        click.echo(render_facts({**told, "blame": told["blame"] or "none about this bundle"}))
    return ExitCode.OK
