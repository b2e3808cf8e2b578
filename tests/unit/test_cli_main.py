"""The frame of the command line: every way to end has its own exit code and a message without a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest

from edgekit import __version__, errors
from edgekit.cli import main as frame
from edgekit.cli.failures import BROKEN_PIPE, INTERRUPTED
from edgekit.cli.main import run
from edgekit.cli.registry import COMMANDS, CommandEntry
from edgekit.errors import ExitCode

EDGEKIT = [sys.executable, "-m", "edgekit"]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run `edgekit stand-in` with a body of the test's choice."""
    monkeypatch.delenv("EDGEKIT_TRACEBACK", raising=False)

    def run_body(body: Callable[[], Any], *before: str) -> int:
        @click.command("stand-in")
        @click.option("--max-images", type=int, default=0)
        def command(max_images: int) -> Any:
            return body()

        monkeypatch.setattr(frame, "COMMANDS", {**COMMANDS, "stand-in": CommandEntry(f"{__name__}:none", "Stand in.")})
        monkeypatch.setattr(frame.LazyGroup, "get_command", lambda *_: command)
        return run([*before, "stand-in"])

    return run_body


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize("name", COMMANDS)
def test_every_entry_names_a_command_whose_help_begins_with_the_line_in_the_table(name: str) -> None:
    module_name, _, attribute = COMMANDS[name].target.partition(":")
    command = getattr(import_module(module_name), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help is not None
    first_sentence = " ".join(command.help.partition("\n\n")[0].split())
    assert first_sentence == COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_kebab_case_and_explained(name: str) -> None:
    module_name, _, attribute = COMMANDS[name].target.partition(":")
    for parameter in getattr(import_module(module_name), attribute).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            assert not any("_" in spelling for spelling in parameter.opts)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"edgekit {name}" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in COMMANDS)


def test_help_names_every_frozen_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    stated = " ".join(capsys.readouterr().out.partition("Exit codes:")[2].split())
    for code in ExitCode:
        assert f"{int(code)} " in stated


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"edgekit {__version__}\n"


@pytest.mark.parametrize("code", list(ExitCode))
def test_a_command_ends_the_process_with_the_code_it_returns(code: ExitCode, call: Callable[..., int]) -> None:
    assert call(lambda: code) == int(code)


def test_a_command_that_returns_nothing_is_done(call: Callable[..., int]) -> None:
    assert call(lambda: None) == 0


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (errors.UsageError("two of these"), 2, "two of these"),
        (errors.BadInputError("bad", where="here", expected="this", found="that", hint="do"), 3, "expected: this"),
        (errors.IntegrityError("changed"), 4, "changed"),
        (errors.UnavailableError("not here"), 5, "not here"),
        (errors.DefectError("our promise"), 70, "report"),
        (click.UsageError("odd"), 2, "odd"),
        (click.FileError("a.txt", hint="gone"), 3, "gone"),
        (OSError(errno.ENOSPC, "No space left on device", "out.bin"), 5, "disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "out.bin"), 3, "permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file", "in.bin"), 3, "in.bin"),
        (MemoryError(), 5, "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 5, "memory"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 5, "edgekit doctor"),
        (ModuleNotFoundError("No module named 'edgekit.lost'", name="edgekit.lost"), 70, "report"),
        (ZeroDivisionError("division by zero"), 70, "ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), INTERRUPTED, "Interrupted"),
        (click.Abort(), INTERRUPTED, "Interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_becomes_a_message_and_its_exit_code(
    error: BaseException, code: int, text: str, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(raising(error)) == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_torch_says_out_of_memory_in_the_words_that_are_translated(call: Callable[..., int]) -> None:
    torch = pytest.importorskip("torch")
    assert call(lambda: torch.empty(2**55, dtype=torch.float64)) == ExitCode.UNAVAILABLE


def test_verbose_adds_the_traceback(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(raising(ZeroDivisionError("x")), "--verbose") == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_the_environment_can_ask_for_tracebacks(
    value: str,
    shown: bool,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGEKIT_TRACEBACK", value)
    assert call(raising(errors.BadInputError("x"))) == 3
    assert ("Traceback" in capsys.readouterr().err) is shown


def test_a_reader_that_went_away_is_no_news(call: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))) == BROKEN_PIPE
    assert capsys.readouterr().err == ""


def test_underscores_are_accepted_in_options_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command("stand-in")
    @click.option("--max-images", type=int)
    def command(max_images: int) -> None:
        click.echo(max_images)

    with frame.cli.make_context("edgekit", ["targets"], obj=frame.CommandLine()) as parent:
        for spelling in ("--max-images", "--max_images"):
            with command.make_context("stand-in", [spelling, "7"], parent=parent) as context:
                command.invoke(context)
    assert capsys.readouterr().out == "7\n7\n"


@pytest.mark.parametrize(("typed", "advice"), [("doctr", "Did you mean 'doctor'?"), ("zzz", "targets")])
def test_an_unknown_command_is_answered_with_what_exists(
    typed: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([typed]) == 2
    assert advice in capsys.readouterr().err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) in (0, 2)  # click before 8.2 ended with 0
    captured = capsys.readouterr()
    assert "Commands:" in captured.out + captured.err


def test_as_a_module_and_as_a_process_the_code_is_the_same() -> None:
    done = subprocess.run([*EDGEKIT, "no-such"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no-such" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_behind_standard_output_is_noticed() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*EDGEKIT, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == ExitCode.UNAVAILABLE
    assert "disk is full" in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_closed_pipe_ends_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([*EDGEKIT, "--help"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")


def test_shells_can_complete_commands() -> None:
    environment = {
        **os.environ,
        "_EDGEKIT_COMPLETE": "bash_complete",
        "COMP_WORDS": "edgekit doc",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(EDGEKIT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,doctor\n"
