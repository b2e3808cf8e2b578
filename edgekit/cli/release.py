"""`edgekit release`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.durations import parse_duration
from edgekit.cli.keys import passphrase_of
from edgekit.cli.options import FILE, bundle_argument, json_option
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.release.sign import Release

__all__ = ["command"]


@click.command("release")
@bundle_argument
@click.option("--key", "key_file", type=FILE, required=True, metavar="KEY", help="Private key; see 'edgekit keys new'.")
@click.option(
    "--expires",
    callback=parse_duration,
    metavar="180d",
    help="How long the release is good for. [default: for ever]",
)
@click.option(
    "--model-signing",
    "model_key",
    type=FILE,
    metavar="KEY",
    help="Also write BUNDLE.sig in the form of OpenSSF's model-signing, with this key on P-256, P-384 or P-521.",
)
@json_option
def command(bundle: Path, key_file: Path, expires: timedelta | None, model_key: Path | None, as_json: bool) -> ExitCode:
    """Sign a bundle that passes its gate, and refuse any other; the exit code is the verdict.

    Signed is an in-toto statement over engine, graph, scale table, golden set, policy and manifest, in a DSSE envelope
    inside the bundle. Folder and tar file of one bundle are both signed. Exit code 0 signed, 1 the gate fails, 4
    damaged, 6 inconclusive, unverified, or controls off or passed.
    """
    from edgekit.release.sign import release
    from edgekit.signing.private import read_private_key

    key = read_private_key(key_file, lambda: passphrase_of(f"Passphrase of {key_file.name}"))
    signer = None
    if model_key is not None:
        from edgekit.release.model_signing import ModelSigner

        signer = ModelSigner(model_key, lambda: passphrase_of(f"Passphrase of {model_key.name}"))
    done = release(bundle, key, lifetime=expires)
    beside = [] if signer is None else [signer.sign(place) for place in done.signed]
    _print(done, beside, as_json=as_json)
    return done.exit_code


def _print(done: Release, beside: list[Path], *, as_json: bool) -> None:
    from edgekit.cli.tables import print_json, render_facts, style_outcome
    from edgekit.cli.verdicts import render_verdict
    from edgekit.signing.statement import time_text

    statement = done.statement
    if as_json:
        print_json(
            {
                "signed": statement is not None,
                "refusal": done.refusal,
                "bundle": done.digest,
                "gate": done.gate.to_dict(),
                "key": done.envelope.key_id if done.envelope else None,
                "created": time_text(statement.created) if statement else None,
                "expires": time_text(statement.expires) if statement and statement.expires else None,
                "files": [str(path) for path in done.signed],
                "model_signatures": [str(path) for path in beside],
            }
        )
        return
    click.echo(render_verdict(done.gate.verdict))
    if statement is None or done.envelope is None:
        click.echo(f"{style_outcome('fail').replace('fail', 'not signed')}: {done.refusal}")
        return
    facts = {
        "signed": ", ".join(str(path) for path in done.signed),
        "key": done.envelope.key_id,
        "created": time_text(statement.created),
        "expires": time_text(statement.expires) if statement.expires else "never",
        "controls": statement.controls,
        **({"model-signing": ", ".join(map(str, beside))} if beside else {}),
        "on the device": f"edgekit check {done.signed[-1].name} --key PUBLIC",
    }
    click.echo(render_facts(facts))
