"""Progress reaches the observer in order, and the items reach the caller unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edgekit.core.progress import NULL_OBSERVER, NullObserver, track


class Seen(NullObserver):
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        self.events.append((task, done, total))


def test_each_item_is_told_after_it_was_dealt_with() -> None:
    seen = Seen()
    dealt = []
    for item in track(["a", "b"], "letters", seen):
        assert seen.events[-1] == ("letters", len(dealt), 2)
        dealt.append(item)
    assert dealt == ["a", "b"]
    assert seen.events == [("letters", 0, 2), ("letters", 1, 2), ("letters", 2, 2)]


def test_a_total_that_is_not_known_stays_unknown_unless_told() -> None:
    def numbers() -> Iterator[int]:
        yield from (1, 2)

    for total in (None, 7):
        seen = Seen()
        assert list(track(numbers(), "n", seen, total)) == [1, 2]
        assert [event[2] for event in seen.events] == [total] * 3


def test_an_item_that_fails_was_not_dealt_with() -> None:
    seen = Seen()
    items = track(["a", "b"], "letters", seen)
    next(items)
    next(items)
    with pytest.raises(ValueError, match="b"):
        items.throw(ValueError("b"))  # type: ignore[attr-defined]
    assert seen.events[-1] == ("letters", 1, 2)


def test_nobody_has_to_listen() -> None:
    NULL_OBSERVER.stage_started("s")
    NULL_OBSERVER.stage_finished("s", skipped=True, seconds=0.0, summary="")
    NULL_OBSERVER.noted("n")
    assert list(track([], "none", NULL_OBSERVER)) == []
