"""Targets: data that must be right, and refusals that come before any work."""

from __future__ import annotations

import json
import platform
from dataclasses import replace

import pytest

from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.cli.main import run
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, DefectError, UnavailableError
from edgekit.targets.loader import (
    check_target_runs_here,
    resolve_target,
    target_aliases,
    target_names,
)

MACHINES = [
    ("x86_64", "cpu-x86", "x86-u8s8"),
    ("AMD64", "cpu-x86", "x86-u8s8"),
    ("aarch64", "cpu-arm", "arm-s8s8"),
    ("arm64", "cpu-arm", "arm-s8s8"),
]


@pytest.mark.parametrize("name", target_names())
def test_every_target_is_whole(name: str) -> None:
    target = resolve_target(name)
    assert target.name == name
    assert target.number_format in NUMBER_FORMATS
    assert all(engine in ENGINES for engine in target.engines)
    assert json.loads(json.dumps(target.to_dict())) == target.to_dict()


@pytest.mark.parametrize("name", target_aliases())
@pytest.mark.parametrize(("machine", "family", "number_format"), MACHINES)
def test_cpu_means_the_processor_of_the_machine(name: str, machine: str, family: str, number_format: str) -> None:
    target = resolve_target(name, machine=machine)
    assert (target.name, target.number_format) == (family, number_format)
    check_target_runs_here(target, machine=machine)


def test_no_machine_belongs_to_two_families() -> None:
    machines = [machine for name in target_names() for machine in resolve_target(name).machines]
    assert len(machines) == len(set(machines))


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(BadInputError) as raised:
        resolve_target("cpu-vax")
    assert all(name in str(raised.value) for name in (*target_names(), *target_aliases()))


def test_cpu_on_a_machine_that_nobody_described_is_refused() -> None:
    with pytest.raises(UnavailableError, match="riscv64"):
        resolve_target("cpu", machine="riscv64")


@pytest.mark.parametrize(("name", "machine"), [("cpu-arm", "x86_64"), ("cpu-x86", "aarch64")])
def test_a_target_that_cannot_be_verified_here_is_refused_with_a_remedy(name: str, machine: str) -> None:
    with pytest.raises(UnavailableError) as raised:
        check_target_runs_here(resolve_target(name), machine=machine)
    assert "--target cpu" in str(raised.value.hint)
    assert "on the device" in str(raised.value.hint)


@pytest.mark.parametrize(
    "change",
    [
        {"engines": ()},
        {"engines": ("no-such-engine",)},
        {"number_format": "fp4"},
        {"opset": 12},
        {"channel_multiple": 0},
        {"machines": ()},
        {"machines": ("X86_64",)},
    ],
)
def test_a_target_described_wrongly_is_a_defect(change: dict[str, object]) -> None:
    with pytest.raises(DefectError):
        replace(resolve_target("cpu-x86"), **change)  # type: ignore[arg-type]


def test_the_command_shows_every_target_and_which_builds_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert run(["targets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["targets"]}
    assert set(rows) == {*target_names(), *target_aliases()}
    assert rows["cpu"]["stands_for"] == "cpu-arm"
    assert [name for name, row in rows.items() if not row["reason"]] == ["cpu", "cpu-arm"]
    assert run(["targets"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in rows)


def test_the_command_works_on_a_machine_without_a_target(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert run(["targets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["targets"]
    assert all(row["reason"] for row in rows)
    assert run(["targets"]) == 0
