"""`edgekit policy`: what policies demand, before anything is judged by them."""

from __future__ import annotations

import click

from edgekit.cli.options import json_option
from edgekit.cli.policy_suggest import suggest
from edgekit.errors import ExitCode

__all__ = ["command", "explain", "listed", "schema"]


@click.group("policy")
def command() -> None:
    """Say which policies there are, and in words what one demands and needs."""


command.add_command(suggest)


@command.command("list")
@json_option
def listed(as_json: bool) -> ExitCode:
    """List the policies that come with edgekit."""
    from edgekit.cli.tables import print_json, render_table
    from edgekit.policy.document import load_preset, preset_names
    from edgekit.policy.explain import explain_policy

    explained = {name: explain_policy(load_preset(name)) for name in preset_names()}
    if as_json:
        print_json({"policies": {name: each.to_dict() for name, each in explained.items()}})
        return ExitCode.OK
    rows = [
        (
            name,
            len(each.clauses),
            f"{100 * each.policy.confidence:g} %",
            "-" if each.smallest is None else each.smallest,
            ", ".join(each.needs) or "-",
        )
        for name, each in explained.items()
    ]
    header = ("policy", "demands", "confidence", "samples at least", "needs besides")
    click.echo(render_table(header, rows, right=("demands", "confidence", "samples at least")))
    click.echo("\n'edgekit policy explain NAME' says what one demands.")
    return ExitCode.OK


@command.command("explain")
@click.argument("policy", metavar="FILE|PRESET")
@click.option(
    "--samples",
    type=click.IntRange(1),
    metavar="N",
    help="Say how many of N golden samples may fail, and whether N are enough.",
)
@click.option(
    "--classes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="K",
    help="How many classes are counted where a demand is over classes.",
)
@json_option
def explain(policy: str, samples: int | None, classes: int, as_json: bool) -> ExitCode:
    """Say in words what a policy demands, how many samples that takes, and how sure its verdicts are.

    Nothing is measured: the numbers are of engines that are flawless, or good to a stated degree.
    """
    from edgekit.cli.tables import print_json
    from edgekit.config.documents import read_policy
    from edgekit.policy.explain import explain_policy
    from edgekit.policy.explain_words import explanation_in_words

    explanation = explain_policy(read_policy(policy), samples, classes)
    if as_json:
        print_json(explanation.to_dict())
    else:
        click.echo(explanation_in_words(explanation))
    return ExitCode.OK


@command.command("schema")
def schema() -> ExitCode:
    """Print the JSON schema of policy documents, for editors and checks."""
    from edgekit.cli.tables import print_json
    from edgekit.config.policy_schema import policy_schema

    print_json(policy_schema())
    return ExitCode.OK
