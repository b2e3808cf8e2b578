"""The one error family of edgekit and its frozen exit codes.

Quality is data, integrity is an exception: a map that moved is a verdict that is written down and never raised;
these errors are for input that cannot be used, bytes that are not what they claim, and runtimes that are not here.
Every message says what was expected, what was found, where, and what to do about it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

__all__ = [
    "BadInputError",
    "DefectError",
    "EdgekitError",
    "EvidenceNeededError",
    "ExitCode",
    "IntegrityError",
    "UnavailableError",
    "UsageError",
]


class ExitCode(IntEnum):
    """Process exit codes. Frozen: scripts and CI systems of users depend on them."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    BAD_INPUT = 3
    INTEGRITY = 4
    UNAVAILABLE = 5
    INCONCLUSIVE = 6
    DEFECT = 70


class EdgekitError(Exception):
    """Base of every error edgekit raises on purpose.

    Args:
        message: One sentence that says what went wrong.
        expected: What would have been accepted.
        found: What was there instead.
        where: File, key or layer concerned.
        hint: The next thing to do, ideally a command.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.DEFECT

    def __init__(
        self,
        message: str,
        *,
        expected: str | None = None,
        found: str | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.found = found
        self.where = where
        self.hint = hint

    def diagnostics(self) -> str:
        """The error for a person: the message, then one indented line for each known detail."""
        details = (
            ("where", self.where),
            ("expected", self.expected),
            ("found", self.found),
            ("hint", self.hint),
        )
        return "\n".join([self.message, *(f"  {name + ':':<9} {text}" for name, text in details if text)])

    def __str__(self) -> str:
        return self.diagnostics()


class UsageError(EdgekitError):
    """The command line or the call itself makes no sense, whatever the input files hold."""

    exit_code = ExitCode.USAGE


class BadInputError(EdgekitError):
    """A file, folder or value of the user's cannot be used, or a precondition does not hold."""

    exit_code = ExitCode.BAD_INPUT


class IntegrityError(EdgekitError):
    """Bytes are not what a manifest or record says they are."""

    exit_code = ExitCode.INTEGRITY


class UnavailableError(EdgekitError):
    """A runtime, device or optional package that the request needs is not here."""

    exit_code = ExitCode.UNAVAILABLE


class EvidenceNeededError(EdgekitError):
    """What is asked for would have to be shown on a device first: it is neither good nor bad yet."""

    exit_code = ExitCode.INCONCLUSIVE


class DefectError(EdgekitError):
    """A promise that edgekit makes to itself was broken: a bug to report, never the user's fault."""

    exit_code = ExitCode.DEFECT
