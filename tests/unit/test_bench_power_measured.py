"""Power and memory of real engines in real processes, by a sensor of the test: what is known to be taken is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from power_sensors import constant_source
from tiny_golden import tiny_golden

from edgekit.bench import latency as bench_latency
from edgekit.bench.latency import LatencySubject, measure_latency
from edgekit.bench.options import LatencyOptions
from edgekit.bench.power.monitor import PowerMonitor
from edgekit.bench.power.record import EnginePower, PowerNotMeasured
from edgekit.bench.power.registry import NoPowerSource, PowerSource
from edgekit.bench.result import LatencyReport, LatencyResult
from edgekit.bundle.golden import write_golden
from edgekit.cli.main import run
from edgekit.core.canonical import dump_canonical, parse_strict, read_json
from edgekit.core.progress import NullObserver
from edgekit.engines.protocol import EngineOptions
from edgekit.pipeline import latency as stage
from edgekit.pipeline.candidates import CandidateId
from edgekit.pipeline.latency import LATENCY_NAME, LatencyRequest
from edgekit.policy.clauses import BudgetClause
from edgekit.policy.document import load_preset
from edgekit.verify import beside

GRAPH = Path(__file__).resolve().parents[1] / "assets" / "tiny_explained.onnx"
STORED = Path(__file__).resolve().parents[1] / "golden" / "bundle-1.tar"
WATTS = 7.5


@pytest.fixture
def sensors(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a measurement find these sources, and rest for a moment only."""

    def put(*found: PowerSource | NoPowerSource) -> None:
        monitor = partial(PowerMonitor, find=lambda: found, sleep=lambda seconds: None)
        monkeypatch.setattr(bench_latency, "PowerMonitor", monitor)

    return put


def measured(power: bool = True, round_s: float = 0.4) -> LatencyReport:
    options = LatencyOptions(warmup=1, rounds=2, iterations=2, lead_in=0, timeout_s=60, power=power, round_s=round_s)
    subjects = {name: LatencySubject("reference", GRAPH) for name in ("int8", "fp32")}
    return measure_latency(subjects, np.zeros((2, 3, 4, 4), dtype=np.float32), options)


def test_what_a_constant_sensor_says_is_what_the_engines_take(sensors: Callable[..., None]) -> None:
    sensors(constant_source(WATTS))
    found = measured()
    for one in found.results.values():
        assert isinstance(one.power, EnginePower)
        assert one.power.power_w == pytest.approx(WATTS)
        images = sum(item.images for item in one.power.rounds)
        seconds = sum(item.seconds for item in one.power.rounds)
        assert all(item.seconds >= 0.4 for item in one.power.rounds)
        # The block went on past its timed runs, and the images of those count too.
        assert images > 4
        assert one.power.energy_mj == pytest.approx(1e3 * WATTS * seconds / images)
        assert [len(block) for block in one.rounds] == [2, 2]
        # numpy alone takes more than 10 MB, and the tiny graph nothing that counts.
        assert one.peak_memory_bytes is not None
        assert 10e6 < one.peak_memory_bytes < 2e9
    assert LatencyReport.from_dict(parse_strict(dump_canonical(found.to_dict()), where="x"), where="x") == found


def test_without_a_sensor_the_reason_is_in_the_record(sensors: Callable[..., None]) -> None:
    sensors(NoPowerSource("rapl", "no package domain"))
    found = measured(round_s=0.0)
    for one in found.results.values():
        assert isinstance(one.power, PowerNotMeasured)
        assert "no package domain" in one.power.reason
        assert set(one.further_costs()) == {"peak_memory_bytes"}
    assert LatencyReport.from_dict(found.to_dict(), where="x") == found


def test_rounds_too_short_for_the_sensor_are_not_measured(sensors: Callable[..., None]) -> None:
    sensors(constant_source(WATTS, period_s=30.0))
    found = measured(round_s=0.0).results["int8"].power
    assert isinstance(found, PowerNotMeasured)
    assert "rounds have to be longer" in found.reason


def test_who_does_not_ask_for_power_gets_the_record_of_before(sensors: Callable[..., None]) -> None:
    sensors(constant_source(WATTS))
    raw = measured(power=False, round_s=0.0).to_dict()
    assert not {"power", "round_s"} & set(raw["options"])
    assert all("power" not in item for item in raw["engines"].values())


@pytest.mark.parametrize("options", [["--no-power"], ["--round-seconds", "0.4"]])
def test_the_command_measures_power_unless_it_is_told_not_to(
    options: Sequence[str], sensors: Callable[..., None], tmp_path: Path
) -> None:
    sensors(constant_source(WATTS))
    output = tmp_path / "times.json"
    arguments = ["bench", str(STORED), "--rounds", "1", "--iterations", "2", "-o", str(output), "--quiet"]
    assert run([*arguments, *options]) == 0
    found = LatencyReport.from_dict(read_json(output), where="test").results
    for one in found.values():
        if "--no-power" in options:
            assert one.power is None
        else:
            assert one.further_costs()["power_w"] == pytest.approx(WATTS)


class Listener(NullObserver):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)


def test_a_build_that_must_not_take_more_measures_or_says_why_not(
    sensors: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = load_preset("default")
    demanding = replace(policy, clauses=(*policy.clauses, BudgetClause("power-w", 10)))
    monkeypatch.setattr(beside, "_SENSOR_ROUND_S", 0.4)
    write_golden(tiny_golden(8), tmp_path / "golden")
    candidate = CandidateId("fp32", "reference", "fp32")

    def timed(*found: PowerSource | NoPowerSource) -> tuple[LatencyResult, Listener, Any]:
        sensors(*found)
        monkeypatch.setattr(stage, "find_power_sources", lambda: found)
        listener = Listener()
        request = LatencyRequest(
            (candidate,), {"fp32": GRAPH}, tmp_path / "golden", EngineOptions(threads=1), 2, demanding
        )
        record = stage.latency(request, tmp_path / "latency", listener)
        stored = LatencyReport.from_dict(read_json(tmp_path / "latency" / LATENCY_NAME), where="test")
        return stored.results["fp32"], listener, record

    result, listener, record = timed(NoPowerSource("rapl", "root alone may read it"))
    assert isinstance(result.power, PowerNotMeasured)
    assert any("root alone may read it" in note for note in listener.notes)
    assert "power_w" not in record.facts["further"]["fp32"]
    # A sensor that can be read now is a reason to measure again.
    result, listener, record = timed(constant_source(WATTS))
    assert isinstance(result.power, EnginePower)
    assert all(item.seconds >= 0.4 for item in result.power.rounds)
    assert record.facts["further"]["fp32"]["power_w"] == pytest.approx(WATTS)
    assert listener.notes == []
