"""What was measured of power and memory: stored, read back, told, and held against budgets."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ci_bundles import ci_bundle
from power_sensors import write_rapl

from edgekit.bench import memory
from edgekit.bench.options import LatencyOptions
from edgekit.bench.power.record import EnginePower, PowerNotMeasured, PowerRound
from edgekit.bench.power.registry import find_power_sources
from edgekit.bench.result import LatencyReport, LatencyResult
from edgekit.bundle.layout import LATENCY
from edgekit.bundle.open import open_bundle
from edgekit.cli import bench as bench_command
from edgekit.cli.main import run
from edgekit.core.canonical import dump_canonical
from edgekit.errors import BadInputError, IntegrityError
from edgekit.policy.clauses import BudgetClause
from edgekit.policy.document import load_preset
from edgekit.verify.beside import bundle_context, latency_costs, power_round_s

GRAPH = Path(__file__).resolve().parents[1] / "assets" / "tiny_explained.onnx"
STORED = Path(__file__).resolve().parents[1] / "golden" / "bundle-1.tar"
WATTS = 7.5
POWER = EnginePower(
    "stub", "a sensor", "", 0.05, 3.0, None, (PowerRound(1.0, 100, 19, 6.0), PowerRound(2.0, 300, 39, 9.0))
)
ABSENT = PowerNotMeasured("no sensor here")
BUDGETS = ("power-w", "energy-mj", "peak-memory-bytes")


def result(power: EnginePower | PowerNotMeasured | None = POWER, engine: str = "reference") -> LatencyResult:
    return LatencyResult({"engine": engine}, 1, ((1.0, 2.0), (2.0, 2.0)), True, 50_000_000, power)


def report(**results: LatencyResult) -> LatencyReport:
    machine = {"machine": "x", "processor": "One", "logical_cpus": 2, "system": "Linux"}
    return LatencyReport(results, LatencyOptions(rounds=2, iterations=2, power=True), machine)


def test_latencies_stored_before_read_as_they_were() -> None:
    with open_bundle(STORED) as opened:
        raw = opened.read_json(LATENCY)
    assert LatencyReport.from_dict(raw, where="stored").to_dict() == raw
    old = {
        "batch": 1,
        "engine": {"engine": "ort-cpu"},
        "quiet": True,
        "rounds_ms": [[2.0]],
        **dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "mean_ms", "min_ms", "max_ms"), 2.0),
        "throughput": 500.0,
    }
    found = LatencyResult.from_dict(old, where="old")
    assert (found.peak_memory_bytes, found.power, found.further_costs()) == (None, None, {})
    assert found.to_dict() == old
    options = {"batch": 1, "warmup": 20, "rounds": 10, "iterations": 20, "lead_in": 3, "threads": 0, "timeout_s": 300.0}
    assert LatencyOptions().to_dict() == options


def test_the_two_numbers_worked_out_by_hand() -> None:
    # 6 J and 18 J in three seconds, over 400 images.
    assert POWER.power_w == pytest.approx(8.0)
    assert POWER.energy_mj == pytest.approx(60.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(power_w=8.1),
        lambda raw: raw.update(energy_mj=0.0),
        lambda raw: raw.pop("energy_mj"),
        lambda raw: raw.pop("scope"),
        lambda raw: raw.update(scope=1),
        lambda raw: raw.update(more=1),
        lambda raw: raw.update(idle_before_w=-1.0),
        lambda raw: raw.update(idle_before_w="3"),
        lambda raw: raw.update(period_s=0),
        lambda raw: raw.update(rounds=[]),
        lambda raw: raw["rounds"].pop(),
        lambda raw: raw["rounds"][0].update(watts=-6.0),
        lambda raw: raw["rounds"][0].update(watts=True),
        lambda raw: raw["rounds"][0].update(images=0),
        lambda raw: raw["rounds"][0].update(images=1.5),
        lambda raw: raw["rounds"][0].update(samples=0),
        lambda raw: raw["rounds"][0].pop("seconds"),
        lambda raw: raw.update(not_measured="and yet it is"),
        lambda raw: (raw.clear(), raw.update(not_measured="")),
        lambda raw: (raw.clear(), raw.update(not_measured=0)),
        lambda raw: raw.clear(),
    ],
)
def test_a_power_that_was_edited_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    raw = copy.deepcopy(result().to_dict())
    change(raw["power"])
    with pytest.raises(IntegrityError):
        LatencyResult.from_dict(raw, where="test")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None])
def test_a_peak_of_memory_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(IntegrityError):
        LatencyResult.from_dict({**result().to_dict(), "peak_memory_bytes": value}, where="test")


@pytest.mark.parametrize("wrong", [{"round_s": -1.0}, {"round_s": float("nan")}, {"round_s": 300.0}, {"power": 1}])
def test_an_option_of_power_out_of_range_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match=next(iter(wrong))):
        LatencyOptions(**wrong)


def test_the_peak_of_memory_is_the_kernels_own_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmPeak:\t 900 kB\nVmHWM:\t 123 kB\nVmRSS:\t 100 kB\n")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert memory.peak_memory_bytes(status) == 123 * 1024
    status.write_text("Name:\tx\n")
    assert memory.peak_memory_bytes(status) is None
    assert memory.peak_memory_bytes(tmp_path / "absent") is None
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert memory.peak_memory_bytes() is None


def test_costs_are_the_measured_ones_and_nothing_else() -> None:
    costs = latency_costs(report(fp32=result()), "fp32", None)
    assert {name: costs[name] for name in BUDGETS} == {
        "power-w": pytest.approx(8.0),
        "energy-mj": pytest.approx(60.0),
        "peak-memory-bytes": 50e6,
    }
    assert not {"power-w", "energy-mj"} & set(latency_costs(report(fp32=result(ABSENT)), "fp32", None))
    # Of a GPU's engine the process's memory is a part.
    on_gpu = latency_costs(report(fp32=result(engine="tensorrt")), "fp32", None)
    assert "peak-memory-bytes" not in on_gpu
    assert on_gpu["power-w"] == pytest.approx(8.0)


def test_engines_run_longer_where_power_is_demanded() -> None:
    policy = load_preset("default")
    assert power_round_s(policy) == 0.0
    for cost, long in (("power-w", True), ("energy-mj", True), ("peak-memory-bytes", False)):
        demanding = replace(policy, clauses=(*policy.clauses, BudgetClause(cost, 5)))
        assert (power_round_s(demanding) > 0) is long


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("budgets")
    stored = {
        "measured": report(fp32=result()),
        "absent": report(fp32=replace(result(ABSENT), peak_memory_bytes=None)),
    }
    return {name: ci_bundle(work / name, latency=item.to_dict()) for name, item in stored.items()}


@pytest.mark.parametrize(
    ("bundle", "cost", "at_most", "exit_code"),
    [
        ("measured", "power-w", 8.5, 0),
        ("measured", "power-w", 7.5, 1),
        ("measured", "energy-mj", 61, 0),
        ("measured", "energy-mj", 59, 1),
        ("measured", "peak-memory-bytes", 50e6, 0),
        ("measured", "peak-memory-bytes", 49e6, 1),
        *(("absent", cost, 1e9, 6) for cost in BUDGETS),
    ],
)
def test_the_gate_holds_what_was_measured_against_the_budget(
    bundle: str, cost: str, at_most: float, exit_code: int, bundles: dict[str, Path], tmp_path: Path
) -> None:
    policy = load_preset("default")
    (tmp_path / "policy.json").write_bytes(
        dump_canonical(replace(policy, name="mine", clauses=(*policy.clauses, BudgetClause(cost, at_most))).to_dict())
    )
    assert run(["gate", str(bundles[bundle]), "--policy", str(tmp_path / "policy.json")]) == exit_code


def test_a_budget_of_what_was_not_measured_is_left_out_where_it_is_not_required(bundles: dict[str, Path]) -> None:
    policy = load_preset("default")
    demanding = replace(policy, clauses=(*policy.clauses, BudgetClause("power-w", 1, required=False)))
    with open_bundle(bundles["absent"]) as opened:
        assert not set(BUDGETS) & set(bundle_context(opened, demanding).costs)


def test_compare_tells_what_either_bundle_measured(
    bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", str(bundles["measured"]), str(bundles["absent"])]) == 0
    text = capsys.readouterr().out
    assert all(heading in text for heading in ("mJ/image", "peak MB"))
    assert run(["compare", str(bundles["absent"]), str(bundles["absent"])]) == 0
    assert "mJ/image" not in capsys.readouterr().out
    assert run(["compare", str(bundles["measured"]), str(bundles["absent"]), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["before"]["latency"]["further"]["energy_mj"] == pytest.approx(60.0)
    assert document["after"]["latency"]["further"] == {}


def test_bench_prints_what_was_measured_and_once_why_the_rest_was_not() -> None:
    text = bench_command._render(report(int8=result(), fp32=result()))
    assert all(part in text for part in ("W", "8", "mJ/image", "60", "peak MB", "50", "at rest before and after: 3 W"))
    text = bench_command._render(report(int8=result(ABSENT), fp32=result(ABSENT)))
    assert text.count("power and energy are not measured: no sensor here") == 1
    assert "mJ/image" not in text
    text = bench_command._render(report(int8=result(engine="tensorrt")))
    assert "its process alone would be a part" in text
    assert "peak MB" not in text
    remarked = bench_command._render(report(int8=result(replace(POWER, remark="never run on a Jetson"))))
    assert "never run on a Jetson" in remarked
    quiet = bench_command._render(report(int8=replace(result(None), power=None)))
    assert "power" not in quiet


def test_doctor_says_which_sensors_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    monkeypatch.setattr("edgekit.bench.power.registry.find_power_sources", lambda: find_power_sources(tmp_path))
    run(["doctor", "--json"])
    found = {item["name"]: item for item in json.loads(capsys.readouterr().out)["power"]}
    assert found["rapl"]["available"] is True
    assert found["jetson-rails"] == {
        "name": "jetson-rails",
        "available": False,
        "told": "no INA3221 power monitor in /sys/class/hwmon",
    }
    run(["doctor"])
    text = capsys.readouterr().out
    assert "power sensor" in text
    assert "no NVIDIA driver" in text
