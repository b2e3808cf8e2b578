"""What the commands of the stages that read a model and images share: their options, and how they run."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from edgekit.cli.model_options import model_options
from edgekit.cli.options import (
    calib_option,
    calib_root_option,
    data_option,
    json_option,
    model_argument,
    output_option,
    quiet_option,
    recipe_option,
    seed_option,
)
from edgekit.errors import ExitCode

__all__ = ["stage_command"]


def stage_command(output: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., ExitCode]]:  # noqa: A002
    """Make a click callback of a function that returns the stage's function of `edgekit.api`.

    Args:
        output: Default of --output.
        help: What --output is for.

    Returns:
        A decorator. The function it decorates gets the options that are its command's own, by keyword, and returns a
        function that is called with model, data, output and the common options.
    """

    def decorate(chosen: Callable[..., Any]) -> Callable[..., ExitCode]:
        @wraps(chosen)
        def command(
            model: Path, data: Path, output: Path, recipe: str, quiet: bool, as_json: bool, **given: Any
        ) -> ExitCode:
            from edgekit.cli.progress import make_observer
            from edgekit.cli.results import print_record
            from edgekit.config.recipe import read_recipe

            common = {name: given.pop(name) for name in ("calib", "calib_root", "load", "seed")}
            with make_observer(quiet) as observer:
                run = chosen(**given)
                record = run(model, data, output, recipe=read_recipe(recipe), observer=observer, **common)
            print_record(record, output, as_json=as_json)
            return ExitCode.OK

        decorated: Callable[..., Any] = command
        for option in (
            json_option,
            quiet_option,
            model_options,
            seed_option,
            output_option(output, help),
            recipe_option,
            calib_root_option("the folder of --data"),
            calib_option,
            data_option,
            model_argument,
        ):
            decorated = option(decorated)
        return decorated

    return decorate
