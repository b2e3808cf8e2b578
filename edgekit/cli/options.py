"""Options that several commands share, so that one name means one thing everywhere.

Paths are handed on unchecked: the library opens them and says what is wrong, with the same words and exit code as
for people who script.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "FILE",
    "Decorator",
    "baseline_option",
    "bundle_argument",
    "calib_option",
    "calib_root_option",
    "controls_option",
    "data_option",
    "dla_option",
    "dry_run_option",
    "engine_option",
    "json_option",
    "model_argument",
    "output_option",
    "policy_option",
    "quiet_option",
    "recipe_option",
    "seed_option",
    "set_option",
    "student_option",
    "target_option",
    "threads_option",
]

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]

FILE = click.Path(path_type=Path)

_LARGEST_SEED = 2**32 - 1


def output_option(default: str | None, help: str) -> Decorator[Any]:  # noqa: A002 - click's own word
    """`--output/-o PATH`; what it names and where it points by default differ from command to command."""
    return click.option(
        "-o",
        "--output",
        type=FILE,
        default=default,
        required=default is None,
        show_default=default is not None,
        help=help,
    )


model_argument: Decorator[Any] = click.argument("model", type=FILE)
bundle_argument: Decorator[Any] = click.argument("bundle", type=FILE)

target_option: Decorator[Any] = click.option(
    "--target", default="cpu", show_default=True, metavar="NAME", help="Device to build for; see 'edgekit targets'."
)
engine_option: Decorator[Any] = click.option(
    "--engine",
    metavar="NAME",
    help="Engine that ships, one of the target's. [default: the fastest of those installed that holds]",
)
data_option: Decorator[Any] = click.option(
    "--data", type=FILE, required=True, metavar="DIR", help="Images: a folder per class, or a folder and labels file."
)
calib_option: Decorator[Any] = click.option(
    "--calib",
    type=FILE,
    metavar="DIR|SET",
    help="Images that the INT8 ranges are found on, or the file of a calibration set. [default: those of --data]",
)


def calib_root_option(default: str) -> Decorator[Any]:
    """`--root DIR`; where a set's images lie unless it is given differs from command to command."""
    return click.option(
        "--root",
        "calib_root",
        type=FILE,
        metavar="DIR",
        help="Where --calib is a calibration set: the folder that its images lie in, moved and renamed or not. "
        f"[default: {default}]",
    )


recipe_option: Decorator[Any] = click.option(
    "--recipe",
    default="default",
    show_default=True,
    metavar="FILE|PRESET",
    help="How to compress, calibrate and select.",
)
set_option: Decorator[Any] = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A value of the recipe said otherwise, as tensorrt.optimisation_level=5; may be given several times.",
)
dla_option: Decorator[Any] = click.option(
    "--dla",
    type=click.IntRange(0),
    metavar="CORE",
    help="Run INT8 and FP16 engines on this DLA core of a Jetson; the same as --set tensorrt.dla_core=CORE.",
)
student_option: Decorator[Any] = click.option(
    "--student-arch",
    "student_code",
    metavar="NAME",
    help="Architecture of the student, named as by --arch: a recipe's package.module:factory has to be named here too.",
)
policy_option: Decorator[Any] = click.option(
    "--policy",
    metavar="FILE|PRESET",
    help="Tolerance the verdict is given under, in place of the bundle's or the recipe's.",
)
baseline_option: Decorator[Any] = click.option(
    "--baseline",
    type=FILE,
    metavar="BUNDLE",
    help="The release before, for policies that ask for a result that is no worse.",
)
seed_option: Decorator[Any] = click.option(
    "--seed",
    type=click.IntRange(0, _LARGEST_SEED),
    default=0,
    show_default=True,
    help="Start of every random choice; the same seed gives the same files on the same machine.",
)
threads_option: Decorator[Any] = click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Threads the engine may use; 0 leaves the choice to the runtime.",
)
controls_option: Decorator[Any] = click.option(
    "--controls/--no-controls",
    default=None,
    help="Score random weights, permuted maps and a centre prior too, none of which may pass the policy. "
    "[default: as the recipe says, and it says so unless told otherwise]",
)
dry_run_option: Decorator[Any] = click.option(
    "--dry-run", is_flag=True, help="Check everything and say what would be done, without doing it."
)
json_option: Decorator[Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on standard output."
)
quiet_option: Decorator[Any] = click.option(
    "-q", "--quiet", is_flag=True, help="No progress on standard error; notes and errors remain."
)
