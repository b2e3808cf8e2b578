"""`edgekit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import FILE, json_option, policy_option
from edgekit.cli.output_files import discard_stale, policy_file, refuse_inputs, write_text
from edgekit.errors import ExitCode

if TYPE_CHECKING:
    from edgekit.ci.comparison import Comparison

__all__ = ["FORMATS", "command"]

# Spelt out, since `--help` loads no registry; a test compares the two.
FORMATS = ("table", "json", "markdown", "html")


@click.command("compare")
@click.argument("older", type=FILE, metavar="OLDER")
@click.argument("newer", type=FILE, metavar="NEWER")
@policy_option
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="What to print.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write it to this file, and print the table.")
@click.option("--fail-if-worse", is_flag=True, help="Exit code 1 where something is shown to have got worse.")
@json_option
def command(
    older: Path,
    newer: Path,
    policy: str | None,
    form: str,
    output: Path | None,
    fail_if_worse: bool,
    as_json: bool,
) -> ExitCode:
    """Show two bundles side by side: what they are, what their scores say, and how they were made.

    Scores are paired by the images' digests; of another teacher or another kind of map they are not paired, and with
    --fail-if-worse that is bad input (exit code 3). "Worse" is an outcome that fell, or a metric whose mean fell and
    that fell on more samples than it rose on, by a sign test at 95 %; a policy is the place for tolerances.
    """
    from edgekit.bundle.open import open_bundle
    from edgekit.ci.comparison import compare_bundles
    from edgekit.config.documents import read_policy
    from edgekit.errors import BadInputError

    form = "json" if as_json else form
    files = [] if output is None else [output]
    refuse_inputs(files, [older, newer, *policy_file(policy)])
    discard_stale(files)
    demanded = None if policy is None else read_policy(policy)
    with open_bundle(older) as before, open_bundle(newer) as after:
        comparison = compare_bundles((older, before), (newer, after), demanded)
    if output is not None:
        write_text(output, _rendered(comparison, form))
    printed = form if output is None else "table"
    click.echo(_rendered(comparison, printed), nl=printed == "table")
    if not fail_if_worse:
        return ExitCode.OK
    if comparison.changes is None:
        raise BadInputError(
            "Nothing can be said to have got worse or not: the scores are not paired.",
            expected="two verified bundles of one teacher, with images in common",
            found=comparison.unpaired,
        )
    return ExitCode.GATE_FAILED if comparison.worse else ExitCode.OK


def _rendered(comparison: Comparison, name: str) -> str:
    if name == "table":
        from edgekit.ci.comparison_sections import comparison_document
        from edgekit.cli.sections import render_document

        return render_document(comparison_document(comparison))
    from edgekit.ci.registry import COMPARISON_FORMATS

    return COMPARISON_FORMATS.load(name)(comparison)
