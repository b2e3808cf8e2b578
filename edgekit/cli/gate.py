"""`edgekit gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.options import bundle_argument, json_option, policy_option
from edgekit.errors import ExitCode

__all__ = ["command"]


@click.command("gate")
@bundle_argument
@policy_option
@json_option
def command(bundle: Path, policy: str | None, as_json: bool) -> ExitCode:
    """Check a bundle's integrity and judge its stored scores; the exit code is the verdict.

    Nothing is run: every byte is checked against the manifest, and the verdict is computed anew from the per-sample
    scores under the bundle's policy, or under --policy. Exit code 0 pass, 1 fail, 4 damaged, 6 inconclusive. 'edgekit
    verify' runs the engine again.
    """
    from edgekit.bundle.open import open_bundle
    from edgekit.cli.tables import print_json
    from edgekit.cli.verdicts import render_controls, render_verdict
    from edgekit.config.documents import read_policy
    from edgekit.verify.gate import bundle_notice, gate

    demanded = None if policy is None else read_policy(policy)
    with open_bundle(bundle) as opened:
        result, notice = gate(opened, demanded), bundle_notice(opened)
        if as_json:
            document: dict[str, Any] = {
                "bundle": opened.manifest.digest,
                "status": opened.manifest.status,
                **result.to_dict(),
            }
            print_json(document | ({"notice": notice} if notice else {}))
        else:
            click.echo(render_verdict(result.verdict))
            click.echo(render_controls(result))
            if notice:
                click.echo(f"{click.style('note', fg='yellow')} {notice}")
    return result.exit_code
