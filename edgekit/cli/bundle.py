"""`edgekit bundle`."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit.cli.options import (
    FILE,
    engine_option,
    json_option,
    policy_option,
    quiet_option,
    recipe_option,
    target_option,
)
from edgekit.errors import ExitCode

__all__ = ["command"]


@click.command("bundle")
@click.argument("build_dir", type=FILE)
@target_option
@engine_option
@recipe_option
@policy_option
@quiet_option
@json_option
def command(
    build_dir: Path,
    target: str,
    engine: str | None,
    recipe: str,
    policy: str | None,
    quiet: bool,
    as_json: bool,
) -> ExitCode:
    """Choose among the verified engines of a build, write the report and pack the bundle.

    BUILD_DIR is the output folder of 'edgekit build', or one whose stages/ were made by the commands of the single
    stages. Nothing is run again; give another --policy to judge the same scores by it.
    """
    from dataclasses import replace

    from edgekit.api import bundle
    from edgekit.cli.progress import make_observer
    from edgekit.cli.results import exit_code_of, print_result
    from edgekit.config.recipe import read_recipe

    chosen = read_recipe(recipe)
    if policy is not None:
        chosen = replace(chosen, policy=policy)
    with make_observer(quiet) as observer:
        result = bundle(build_dir, target=target, recipe=chosen, engine=engine, observer=observer)
    print_result(result, as_json=as_json)
    return exit_code_of(result)
