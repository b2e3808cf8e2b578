"""`edgekit check`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click

from edgekit.cli.durations import parse_duration
from edgekit.cli.options import FILE, bundle_argument, json_option
from edgekit.errors import ExitCode

__all__ = ["command"]


@click.command("check")
@bundle_argument
@click.option(
    "--key",
    "key_files",
    type=FILE,
    multiple=True,
    required=True,
    metavar="PUBLIC",
    help="A trusted key; may be given several times.",
)
@click.option("--max-age", callback=parse_duration, metavar="90d", help="Refuse what was signed longer ago.")
@click.option("--any-device", is_flag=True, help="Accept what was verified on another kind of device than this.")
@json_option
def command(
    bundle: Path, key_files: tuple[Path, ...], max_age: timedelta | None, any_device: bool, as_json: bool
) -> ExitCode:
    """Check a signed bundle before it is installed: signature, every byte, age, device and verdict.

    Needs numpy and no network. Keys are given with --key and never taken from the bundle. Exit code 0 good, 4 changed,
    unsigned or not signed by one of the keys, 5 verified on another device, 6 expired or too old.
    """
    from edgekit.cli.tables import print_json, render_facts, style_outcome
    from edgekit.release.check import CheckOptions, check
    from edgekit.signing.keys import read_public_key
    from edgekit.signing.statement import time_text

    keys = [read_public_key(path) for path in key_files]
    done = check(bundle, keys, CheckOptions(max_age=max_age, any_device=any_device))
    if as_json:
        print_json(done.to_dict())
        return ExitCode.OK
    claims, expires = done.statement.claims, done.statement.expires
    facts = {
        "check": style_outcome("pass"),
        "bundle": done.digest,
        "signed by": done.key_id,
        "signed at": time_text(done.statement.created),
        "expires": time_text(expires) if expires else "never",
        "engine": f"{claims.precision} on {claims.engine} for {claims.target}",
        "device": ", ".join(done.device) or click.style("not compared (--any-device)", fg="yellow"),
    }
    click.echo(render_facts(facts))
    if done.notice:
        click.echo(f"{click.style('note', fg='yellow')} {done.notice}")
    return ExitCode.OK
