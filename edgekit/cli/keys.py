"""`edgekit keys`: the pair of keys that releases are signed and checked with."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgekit.cli.options import FILE, json_option
from edgekit.errors import ExitCode

__all__ = ["PASSPHRASE_VARIABLE", "command", "new", "passphrase_of", "show"]

PASSPHRASE_VARIABLE = "EDGEKIT_KEY_PASSPHRASE"


@click.group("keys")
def command() -> None:
    """Make the keys that releases are signed and checked with, and show which is which."""


@command.command("new")
@click.option(
    "-o", "--output", type=FILE, help="Folder for both files. [default: edgekit/keys in the user's settings folder]"
)
@click.option("--name", default="release", show_default=True, help="Of the files: NAME.key and NAME.pub.")
@click.option(
    "--passphrase",
    "encrypted",
    is_flag=True,
    help=f"Encrypt the private key; asks for a passphrase, or takes it from {PASSPHRASE_VARIABLE}.",
)
@json_option
def new(output: Path | None, name: str, encrypted: bool, as_json: bool) -> ExitCode:
    """Make a pair of Ed25519 keys: a private one that signs, and a public one for whoever checks.

    The private key is readable for you alone, is never overwritten, and never goes inside or beside a bundle. Keep it
    on the host that releases, or in your CI system's store of secrets; only the public key goes to devices.
    """
    from edgekit.cli.tables import print_json, render_facts
    from edgekit.signing.private import new_private_key, write_key_pair

    passphrase = passphrase_of("Passphrase for the new key", confirm=True) if encrypted else None
    key = new_private_key()
    private, public = write_key_pair(key, output or _default_folder(), name, passphrase)
    if as_json:
        print_json({"key": key.public.key_id, "private": str(private), "public": str(public)})
    else:
        click.echo(render_facts({"key": key.public.key_id, "private": private, "public": public}))
    return ExitCode.OK


@command.command("show")
@click.argument("public", type=FILE)
@json_option
def show(public: Path, as_json: bool) -> ExitCode:
    """Say which key a public key's file holds: the identifier that envelopes and messages name."""
    from edgekit.cli.tables import print_json, render_facts
    from edgekit.signing.keys import read_public_key

    key = read_public_key(public)
    if as_json:
        print_json({"key": key.key_id, "algorithm": "Ed25519", "public": key.raw.hex()})
    else:
        click.echo(render_facts({"key": key.key_id, "algorithm": "Ed25519", "public": key.raw.hex()}))
    return ExitCode.OK


def passphrase_of(prompt: str, *, confirm: bool = False) -> str:
    """A passphrase from the environment, or typed without being shown.

    Raises:
        BadInputError: It is empty, or there is neither the variable nor a terminal.
    """
    from edgekit.errors import BadInputError

    said = os.environ.get(PASSPHRASE_VARIABLE)
    if said is None:
        try:
            said = str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True, default=""))
        except click.Abort as cause:
            raise BadInputError(
                "A passphrase is needed, and nobody is there to type it.", hint=f"set {PASSPHRASE_VARIABLE}"
            ) from cause
    if not said:
        raise BadInputError("A passphrase is empty.", hint="leave out --passphrase for a key without one")
    return said


def _default_folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base else Path.home() / ".config") / "edgekit" / "keys"
