"""Files that a command writes reports to, and what must never be overwritten by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from edgekit.errors import BadInputError, UsageError

__all__ = ["discard_stale", "policy_file", "refuse_inputs", "write_text"]


def refuse_inputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Raise `UsageError` where an output is an input, lies inside one (a bundle's folder), or is named twice."""
    resolved = [path.resolve() for path in outputs]
    for path in inputs:
        place = path.resolve()
        for name, output in zip(outputs, resolved, strict=True):
            if output == place or place in output.parents:
                raise UsageError(
                    "A report would overwrite, or lie inside, what it is about.",
                    where=str(name),
                    expected=f"a file outside {path}",
                    hint="a bundle with a file more is a damaged bundle: choose another place",
                )
    if len(set(resolved)) != len(resolved):
        raise UsageError("Two reports would be written to one file.", found=", ".join(map(str, outputs)))


def policy_file(policy: str | None) -> tuple[Path, ...]:
    """The file that `--policy` names; nothing where it names a preset."""
    from edgekit.config.names import is_file_name

    return (Path(policy),) if policy is not None and is_file_name(policy) else ()


def discard_stale(outputs: Sequence[Path]) -> None:
    """Remove reports of an earlier run.

    A run that ends in an error writes no report, and a CI system that collects files must not find yesterday's.

    Raises:
        BadInputError: Something else than a plain file has the name of a report: replacing a device such as
            /dev/stdout would break more than a report.
    """
    from edgekit.core.files import foreign_os_errors

    for path in outputs:
        with foreign_os_errors(path, "replace a report"):
            there = path.is_symlink() or path.exists()
            if there and (path.is_symlink() or not path.is_file()):
                raise BadInputError(
                    "A report can only be written to a plain file.",
                    where=str(path),
                    expected="a file, or a name that is free",
                    found="a link" if path.is_symlink() else "a folder or a device",
                    hint="without -o the report goes to standard output",
                )
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a report as UTF-8, atomically and without colours. Raises `BadInputError` where it cannot be written."""
    from edgekit.core.files import write_bytes

    write_bytes(path, (click.unstyle(text).rstrip("\n") + "\n").encode("utf-8"))
