"""`edgekit gate`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import FILE, bundle_argument, policy_option
from edgekit.cli.output_files import discard_stale, policy_file, refuse_inputs, write_text
from edgekit.errors import EdgekitError, ExitCode

if TYPE_CHECKING:
    from edgekit.ci.subject import GateReport

__all__ = ["FORMATS", "command"]

# Spelt out, since `--help` loads no registry; a test compares the two.
FORMATS = ("table", "json", "junit", "sarif", "markdown", "html")


@click.command("gate")
@bundle_argument
@policy_option
@click.option("--baseline", type=FILE, metavar="OLD", help="Older release: also say what got worse since, and where.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="What to print.")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write it to this file, and print the table.")
@click.option(
    "--write",
    type=(click.Choice(FORMATS[1:]), FILE),
    multiple=True,
    metavar="FORMAT FILE",
    help="Write this format to this file as well; may be given several times.",
)
@click.option("--no-github", is_flag=True, help="No annotations and no step summary, though this is a GitHub Action.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(
    bundle: Path,
    policy: str | None,
    baseline: Path | None,
    form: str,
    output: Path | None,
    write: tuple[tuple[str, Path], ...],
    no_github: bool,
    as_json: bool,
) -> ExitCode:
    """Check a bundle's integrity and judge its stored scores; the exit code is the verdict.

    Nothing is run: every byte is checked against the manifest, and the verdict is computed anew from the per-sample
    scores under the bundle's policy, or under --policy. Exit code 0 pass, 1 fail, 4 damaged, 6 inconclusive. 'edgekit
    verify' runs the engine again.

    In a GitHub Action the clauses that do not hold become annotations, and the report joins the step's summary.
    """
    from edgekit.ci.github import on_github

    form = "json" if as_json else form
    files = [*write, *([(form, output)] if output is not None else [])]
    given = [bundle, *([baseline] if baseline else []), *policy_file(policy)]
    refuse_inputs([path for _, path in files], given)
    discard_stale([path for _, path in files])
    github = on_github(os.environ) and not no_github
    try:
        report = _judge(bundle, policy, baseline)
    except EdgekitError as error:
        if github:
            _annotate_error(error)
        raise
    for name, path in files:
        write_text(path, _rendered(report, name))
    printed = form if output is None else "table"
    click.echo(_rendered(report, printed), nl=printed == "table")
    if github:
        # A document on standard output stays one; the runner reads both streams.
        _tell_github(report, err=printed != "table")
    return report.result.exit_code


def _judge(bundle: Path, policy: str | None, baseline: Path | None) -> GateReport:
    from edgekit.bundle.open import open_bundle
    from edgekit.ci.subject import gate_report
    from edgekit.config.documents import read_policy

    demanded = None if policy is None else read_policy(policy)
    with ExitStack() as stack:
        opened = stack.enter_context(open_bundle(bundle))
        older = None if baseline is None else stack.enter_context(open_bundle(baseline))
        return gate_report(opened, bundle, demanded, older)


def _rendered(report: GateReport, name: str) -> str:
    if name == "table":
        from edgekit.cli.gate_table import render_gate

        return render_gate(report)
    from edgekit.ci.registry import GATE_FORMATS

    return GATE_FORMATS.load(name)(report)


def _annotate_error(error: EdgekitError) -> None:
    from edgekit.ci.github import annotate

    click.echo(annotate("error", "edgekit gate", error.diagnostics()), err=True)


def _tell_github(report: GateReport, *, err: bool) -> None:
    from edgekit.ci.github import append_summary, gate_annotations, summary_path
    from edgekit.ci.markdown import gate_markdown

    for line in gate_annotations(report):
        click.echo(line, err=err)
    path = summary_path(os.environ)
    if path is not None:
        append_summary(path, gate_markdown(report))
