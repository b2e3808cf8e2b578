"""How long work tells whoever watches: the library speaks to an observer, only the command line prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

__all__ = ["NULL_OBSERVER", "NullObserver", "Observer", "track"]

T = TypeVar("T")


class Observer(Protocol):
    """Receives events of long work. Implementations must not raise and must return quickly."""

    def stage_started(self, stage: str) -> None:
        """A stage begins."""

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        """A stage ended well; `skipped` says that its inputs were unchanged and nothing was done again."""

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        """`done` of `total` units of `task` are finished; `total` is None when it is not known."""

    def noted(self, message: str) -> None:
        """Something the user should read, such as skipped images or a candidate that is not shipped."""


class NullObserver:
    """Ignores every event."""

    def stage_started(self, stage: str) -> None:
        """Ignore the event."""

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        """Ignore the event."""

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        """Ignore the event."""

    def noted(self, message: str) -> None:
        """Ignore the event."""


NULL_OBSERVER: Observer = NullObserver()


def track(items: Iterable[T], task: str, observer: Observer, total: int | None = None) -> Iterator[T]:
    """Yield `items` and tell `observer` after each one is dealt with."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    observer.advanced(task, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        observer.advanced(task, done, total)
