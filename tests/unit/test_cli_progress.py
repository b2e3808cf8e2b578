"""Observers of the command line: what is said, how often, and that nothing they do can end the work."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from edgekit.cli import progress
from edgekit.cli.progress import PlainObserver, RichObserver, make_observer
from edgekit.core.progress import Observer, track


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def observed(lines: list[str], clock: Clock, **settings: bool) -> PlainObserver:
    return PlainObserver(clock=clock, write=lines.append, **settings)


def ticking(count: int, clock: Clock, seconds: float) -> Iterator[int]:
    for item in range(count):
        clock.now += seconds
        yield item


def test_a_quick_task_gives_its_first_and_its_last_line() -> None:
    lines: list[str] = []
    clock = Clock()
    list(track(ticking(100, clock, 0.01), "images", observed(lines, clock), total=100))
    assert lines == ["  images: 0/100", "  images: 100/100"]


def test_a_long_task_gives_about_a_line_every_five_seconds() -> None:
    lines: list[str] = []
    clock = Clock()
    list(track(ticking(101, clock, 0.5), "images", observed(lines, clock), total=101))
    # 50 seconds of work between the first line and the last.
    assert lines[0] == "  images: 0/101"
    assert lines[-1] == "  images: 101/101"
    assert len(lines) == 2 + 10


def test_a_task_that_begins_again_says_so() -> None:
    lines: list[str] = []
    observer = observed(lines, Clock())
    for _ in range(2):
        for done in (0, 1, 2):
            observer.advanced("epoch", done, 3, "loss 0.1")
    assert lines == ["  epoch: 0/3 loss 0.1"] * 2


def test_a_task_of_unknown_length_counts() -> None:
    lines: list[str] = []
    clock = Clock()
    observer = observed(lines, clock)
    observer.advanced("files", 0, None)
    clock.now = 6.0
    observer.advanced("files", 40, None)
    assert lines == ["  files: 0", "  files: 40"]


def test_stages_say_how_they_ended() -> None:
    lines: list[str] = []
    observer = observed(lines, Clock())
    observer.stage_started("export")
    observer.stage_finished("export", skipped=False, seconds=1.25, summary="12 nodes")
    observer.stage_finished("calibrate", skipped=True, seconds=0.0, summary="")
    assert lines == ["export: started", "export: done in 1.2 s: 12 nodes", "calibrate: unchanged, not done again"]


def test_quiet_keeps_notes_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with make_observer(quiet=True) as observer:
        observer.stage_started("export")
        observer.advanced("images", 1, 1)
        observer.noted("INT8 is slower and does not ship")
        observer.stage_finished("export", skipped=False, seconds=1.0, summary="")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "note: INT8 is slower and does not ship\n"


def test_away_from_a_terminal_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with make_observer(quiet=False) as observer:
        observer.stage_started("verify")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "verify: started\n")


def exercise(observer: Observer) -> None:
    observer.stage_started("verify [1/2]")
    for done in (0, 1, 3):
        observer.advanced("batches", done, 3, "[red]not markup[/red]")
    observer.advanced("open end", 5, None)
    observer.noted("a [bold] note")
    observer.stage_finished("verify [1/2]", skipped=False, seconds=0.5, summary="cosine [0.99]")


def test_on_a_terminal_text_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_is_live_terminal", lambda: True)
    with make_observer(quiet=False) as observer:
        assert isinstance(observer, RichObserver)
        exercise(observer)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "note: a [bold] note" in captured.err
    assert "cosine [0.99]" in captured.err


def test_without_rich_a_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_is_live_terminal", lambda: True)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    with make_observer(quiet=False) as observer:
        assert isinstance(observer, PlainObserver)


@pytest.mark.parametrize("variable", [("CI", "true"), ("TERM", "dumb")])
def test_logs_that_pretend_to_be_terminals_get_plain_lines(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert progress._is_live_terminal()
    monkeypatch.setenv(*variable)
    assert not progress._is_live_terminal()


def test_a_log_that_cannot_be_written_does_not_end_the_work() -> None:
    def full(line: str) -> None:
        raise OSError(28, "No space left on device")

    exercise(PlainObserver(write=full))


def test_the_live_display_survives_its_own_end() -> None:
    observer = RichObserver()
    observer.close()
    exercise(observer)
    observer.close()
