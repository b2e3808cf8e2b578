"""A seam's table of implementations: name to "module:object", imported only when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar, cast

from edgekit.errors import BadInputError, UnavailableError

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """The known implementations of one seam.

    Args:
        seam: What is registered, for messages: "calibrator".
        entries: Name to "package.module:object". Naming is all that happens until `load`, so a table may list
            implementations whose libraries are not installed.
    """

    def __init__(self, seam: str, entries: Mapping[str, str]) -> None:
        self.seam = seam
        self._entries = dict(entries)

    def names(self) -> tuple[str, ...]:
        """Registered names, sorted."""
        return tuple(sorted(self._entries))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def load(self, name: str) -> T:
        """The implementation called `name`.

        Raises:
            BadInputError: The name is unknown; the message lists those that are known.
            UnavailableError: The implementation needs a package that is not installed.
        """
        if name not in self._entries:
            raise BadInputError(
                f"There is no {self.seam} called {name!r}.", expected="one of " + ", ".join(self.names())
            )
        module_name, _, attribute = self._entries[name].partition(":")
        try:
            return cast(T, getattr(import_module(module_name), attribute))
        except ModuleNotFoundError as cause:
            if (cause.name or "").partition(".")[0] == "edgekit":
                raise
            raise UnavailableError(
                f"The {self.seam} {name!r} needs the package {cause.name!r}, which is not installed.",
                hint="run 'edgekit doctor' to see the command that installs it",
            ) from cause
