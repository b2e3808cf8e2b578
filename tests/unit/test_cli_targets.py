"""`edgekit targets`: every target in a line, one in full, the same as JSON, and the README's table."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from jetson_devices import probe_of

from edgekit.cli.main import run
from edgekit.errors import ExitCode
from edgekit.jetson import detect, probe
from edgekit.jetson.probe import RecordedProbe
from edgekit.targets.loader import resolve_target, target_aliases, target_names
from edgekit.targets.overview import readme_table, version_range
from edgekit.targets.support import limits_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = (*target_aliases(), *target_names())


@pytest.fixture
def no_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (detect, probe):
        monkeypatch.setattr(module, "SystemProbe", RecordedProbe)


pytestmark = pytest.mark.usefixtures("no_jetson")


def test_the_command_shows_every_target_and_which_builds_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert run(["targets", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in answer["targets"]}
    assert set(rows) == set(NAMES)
    assert answer["device"] is None
    assert rows["cpu"]["stands_for"] == "cpu-arm"
    assert rows["jetson"]["stands_for"] == ""
    here = {name for name, row in rows.items() if not row["reason"]}
    assert here >= {"cpu", "cpu-arm"}
    assert not here & {"cpu-x86", "cuda", "jetson", "jetson-orin-nano", "jetson-xavier-nx"}
    assert run(["targets"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert set(lines) == set(NAMES)
    assert "never run" in lines["jetson-orin-nano"]
    assert "6.0 to 7.2 " in lines["jetson-orin-nx-16gb"]
    assert "none" in lines["jetson-xavier-nx"]


def test_the_command_works_on_a_machine_without_a_target(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert run(["targets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["targets"]
    assert all(row["reason"] for row in rows)
    assert run(["targets"]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_target_in_full_says_what_cannot_work(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(["targets", name]) == 0
    text = capsys.readouterr().out
    assert run(["targets", name, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["target"]
    assert row["name"] == name
    assert row["python"] == "3.10"
    if name == "jetson":
        assert "jetson-thor-t4000" in text
        assert row["candidates"]
        return
    limits = limits_of(resolve_target(name))
    assert [limit["rule"] for limit in row["limits"]] == [limit.problem.rule for limit in limits]
    assert all(f"- {limit.problem.what}" in text and limit.problem.remedy in text for limit in limits)
    assert all(limit.problem.source in text for limit in limits)
    assert row["status"] in text
    for module in resolve_target(name).modules:
        facts = module.jetson
        assert facts is not None
        assert module.title in text
        assert facts.compute_capability in text
        assert all(peak.basis in text and f"{peak.bandwidth:.1f}" in text for peak in facts.peaks)
        assert all(release.jetpack in text for release in facts.releases)
        assert all(note in text for note in facts.unconfirmed)
        assert "never measured" in text
    if row["jetson"] is not None:
        assert row["jetson"]["peaks"][0]["ridge"] > 0
        assert row["jetson"]["releases"][0]["source"]


def test_an_unknown_name_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["targets", "jetson-nano"]) == ExitCode.BAD_INPUT
    assert "jetson-orin-nano" in capsys.readouterr().err


def test_on_a_jetson_the_device_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Counted(RecordedProbe):
        def output(self, *command: str) -> str | None:
            asked.append(command[0])
            return probe_of("orin-nano-super").output(*command)

    files = probe_of("orin-nano-super").files
    monkeypatch.setattr(probe, "SystemProbe", lambda: Counted(files))
    assert run(["targets", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["device"]["module"] == "jetson-orin-nano-super"
    rows = {row["name"]: row for row in answer["targets"]}
    assert asked == ["nvpmodel"], "commands are slow there: each is asked once"
    assert rows["jetson"]["stands_for"] == rows["jetson-orin-nano"]["stands_for"] == "jetson-orin-nano-super"
    assert run(["targets"]) == 0
    text = capsys.readouterr().out
    assert "36.4.3" in text
    assert "MAXN_SUPER" in text.partition("This device")[2]


@pytest.mark.parametrize("name", ["jetson-agx-xavier", "jetson-xavier-nx", "jetson"])
def test_a_build_is_refused_before_its_files_are_looked_at(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    arguments = ["build", str(tmp_path / "none.pt"), "--target", name, "--data", str(tmp_path / "none")]
    assert run([*arguments, "--output", str(tmp_path / "out")]) == ExitCode.UNAVAILABLE
    said = capsys.readouterr().err
    assert name in said
    assert "hint" in said
    assert not (tmp_path / "out").exists()


def test_a_build_for_a_jetson_is_prepared_on_another_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["build", str(tmp_path / "none.pt"), "--target", "jetson-orin-nano", "--data", str(tmp_path / "none")]
    # The target is let through: what is missing is the model, and the list says who has the last word.
    assert run(["targets", "jetson-orin-nano"]) == 0
    assert "edgekit device build" in capsys.readouterr().out
    assert run([*arguments, "--output", str(tmp_path / "out")]) == ExitCode.BAD_INPUT
    assert "none.pt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("versions", "shown"),
    [
        ([], "none"),
        (["6.2"], "6.2"),
        (["10.3.0", "8.6.2", "10.3.0"], "8.6.2 to 10.3.0"),
        (["10.13", "10.7.0"], "10.7.0 to 10.13"),
    ],
)
def test_versions_are_ordered_as_numbers(versions: list[str], shown: str) -> None:
    assert version_range(versions) == shown


def test_the_readme_holds_the_table_of_today() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_table() in readme, "write what edgekit.targets.overview.readme_table() gives into README.md"
