"""What ends a command line that could not finish: every exception becomes a message and an exit code here.

Foreign errors are translated in this one place. Whatever is not recognised is a defect of edgekit and says so; it is
never dressed up as the user's mistake.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress
from pathlib import Path

import click

from edgekit.core.files import foreign_os_errors
from edgekit.errors import DefectError, EdgekitError, ExitCode, UnavailableError

__all__ = ["BROKEN_PIPE", "INTERRUPTED", "report_failure", "translate"]

# What shells report of a process ended by SIGINT and SIGPIPE: 128 plus the signal's number.
INTERRUPTED = 130
BROKEN_PIPE = 141

_OUT_OF_MEMORY = "smaller batches or fewer images in the recipe need less; so does closing other programs"


def report_failure(error: BaseException, *, verbose: bool) -> int:
    """Tell the user on standard error what ended the command.

    Args:
        error: What was raised.
        verbose: Add the traceback.

    Returns:
        The exit code of the process.
    """
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    # A closed standard error must not turn a failure into another one.
    with suppress(OSError):
        if verbose:
            traceback.print_exception(error, file=sys.stderr)
        return _say(error)
    return translate(error).exit_code if isinstance(error, Exception) else INTERRUPTED


def _say(error: BaseException) -> int:
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        click.echo("\nInterrupted. What was finished is kept: the same command goes on from there.", err=True)
        return INTERRUPTED
    if isinstance(error, click.UsageError):
        error.show()
        return ExitCode.USAGE
    if isinstance(error, click.ClickException):
        # click ends these with 1, which here means that the gate failed.
        error.show()
        return ExitCode.BAD_INPUT
    translated = translate(error)
    click.echo(f"{click.style('error', fg='red', bold=True)}: {translated.diagnostics()}", err=True)
    if translated.exit_code == ExitCode.DEFECT:
        click.echo(
            "This is a defect in edgekit, not a mistake of yours. Please report it with the output of\n"
            "'edgekit doctor' and of the same command run as 'edgekit --verbose ...'.",
            err=True,
        )
    return int(translated.exit_code)


def translate(error: BaseException) -> EdgekitError:
    """The edgekit error that says what `error` means to a user; a `DefectError` where it means nothing to them."""
    if isinstance(error, EdgekitError):
        return error
    if isinstance(error, OSError):
        return _translate_os_error(error)
    # torch reports exhausted memory as a RuntimeError of its allocator.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)):
        return UnavailableError("There is not enough memory for this.", hint=_OUT_OF_MEMORY)
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package and package != "edgekit" and package not in sys.stdlib_module_names:
            return UnavailableError(
                f"This needs the package {package!r}, which is not installed.",
                hint="run 'edgekit doctor' to see the command that installs it",
            )
    return DefectError(f"Something happened that edgekit did not foresee: {type(error).__name__}: {error}")


def _translate_os_error(error: OSError) -> EdgekitError:
    try:
        with foreign_os_errors(Path(), "read or write"):
            raise error
    except EdgekitError as explained:
        if error.filename is None:
            explained.where = None
        return explained
