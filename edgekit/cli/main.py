"""The frame of the command line: commands loaded one at a time, and the one door through which a process ends.

Nothing is imported here but click and the standard library, so that `edgekit --help` answers at once. A command
returns its `ExitCode`; an error travels up to `run`, and only there becomes a message and a number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn, TextIO

import click

from edgekit import __version__
from edgekit.cli.registry import COMMANDS
from edgekit.errors import ExitCode

__all__ = ["CommandLine", "LazyGroup", "cli", "main", "run"]


@dataclass
class CommandLine:
    """What was said before the command's name, handed to every command as `context.obj`.

    Attributes:
        verbose: Errors are followed by their traceback.
    """

    verbose: bool = False


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module_name, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(import_module(module_name), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command named by `args`; an unknown one is answered with the nearest that exists."""
        name = _kebab_case(args[0])
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            advice = f"Did you mean {near[0]!r}?" if near else "One of: " + ", ".join(COMMANDS) + "."
            ctx.fail(f"There is no command {args[0]!r}. {advice}")
        return super().resolve_command(ctx, args)


def _kebab_case(token: str) -> str:
    return token.replace("_", "-")


@click.group(
    cls=LazyGroup,
    # Whoever knows the Python API types underscores; both spellings name the same option.
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _kebab_case},
    epilog="Exit codes: 0 done or gate passed, 1 gate failed, 2 usage, 3 bad input, 4 integrity, 5 not available here, "
    "6 inconclusive, 70 defect in edgekit.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of every error.")
@click.version_option(__version__, prog_name="edgekit", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, verbose: bool) -> None:
    """Compress image classifiers for edge devices and release them only when their reasons held.

    Start with 'edgekit demo', or with 'edgekit build MODEL --target cpu --data DIR'.
    """
    context.obj.verbose = context.obj.verbose or verbose
    if os.environ.get("NO_COLOR"):
        context.color = False


def run(arguments: Sequence[str]) -> int:
    """Run one command line in this process.

    Args:
        arguments: Everything after the program's name.

    Returns:
        The exit code. Results were written to standard output, progress and errors to standard error.
    """
    state = CommandLine(verbose=os.environ.get("EDGEKIT_TRACEBACK", "") not in ("", "0"))
    try:
        code = _invoke(list(arguments), state)
        # A full disk or a reader that went away often shows only here.
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        from edgekit.cli.failures import report_failure

        return report_failure(error, verbose=state.verbose)
    return code


def _invoke(arguments: list[str], state: CommandLine) -> int:
    # Not click's own `main`: it ends a broken pipe with exit code 1, which here means that the gate failed.
    try:
        with cli.make_context("edgekit", arguments, obj=state) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as request:
        code = request.exit_code
    return int(ExitCode.OK if code is None else code)


def main() -> NoReturn:
    """Entry point of the command `edgekit`."""
    for stream in (sys.stdout, sys.stderr):
        # File names may hold what the terminal's encoding lacks; a report must not die of that.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Read by torch's thread pool when it is loaded. Its threads otherwise spin while they wait, and beside any other
    # program on the same cores fine-tuning a small network was seen to take two to five times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "_EDGEKIT_COMPLETE" in os.environ:
        cli.main(prog_name="edgekit", complete_var="_EDGEKIT_COMPLETE")
    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        _abandon_if_broken(stream)
    sys.exit(code)


def _abandon_if_broken(stream: TextIO) -> None:
    # The interpreter flushes once more while it ends; failing there would replace our exit code by 120.
    try:
        stream.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
