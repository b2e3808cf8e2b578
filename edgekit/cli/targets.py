"""`edgekit targets`."""

from __future__ import annotations

from typing import Any

import click

from edgekit.cli.options import json_option
from edgekit.cli.tables import print_json, render_table, style_outcome
from edgekit.errors import ExitCode, UnavailableError

__all__ = ["command"]


@click.command("targets")
@json_option
def command(as_json: bool) -> ExitCode:
    """List the devices edgekit can build for.

    "builds here" says whether this machine can build for the device and verify the result.
    """
    from edgekit.targets.loader import target_aliases, target_names

    rows = [_row(name) for name in (*target_aliases(), *target_names())]
    if as_json:
        print_json({"targets": rows})
        return ExitCode.OK
    header = ("target", "device", "engines", "numbers", "builds here", "status")
    click.echo(
        render_table(
            header,
            [
                (
                    row["name"],
                    row["title"],
                    ", ".join(row["engines"]),
                    row["number_format"],
                    style_outcome("no" if row["reason"] else "yes"),
                    row["status"],
                )
                for row in rows
            ],
        )
    )
    return ExitCode.OK


def _row(name: str) -> dict[str, Any]:
    """A target as JSON shows it; `reason` is empty where this machine can build for it."""
    from edgekit.targets.loader import check_target_runs_here, resolve_target

    try:
        target = resolve_target(name)
    except UnavailableError as error:
        # The name stands for this machine's family, and there is none.
        return {"name": name, "title": "", "engines": [], "number_format": "", "status": "", "reason": error.message}
    row = {**target.to_dict(), "name": name, "stands_for": target.name, "reason": ""}
    try:
        check_target_runs_here(target)
    except UnavailableError as error:
        row["reason"] = error.message
    return row
