"""Samples of a known energy on a clock of the test: what is told is that energy, or that too little was seen."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bench.power.monitor import LEAST_SAMPLES_A_ROUND, PowerMonitor, Turn
from edgekit.bench.power.record import EnginePower, PowerNotMeasured
from edgekit.bench.power.registry import NoPowerSource, PowerReadError, PowerSource
from edgekit.bench.power.sampler import PowerSampler, mean_power, stretches


class World:
    """A clock, and a machine whose power is a function of it; the integral is exact in steps of a millisecond."""

    def __init__(self, power: Callable[[float], float]) -> None:
        self.now, self.joules, self.power = 0.0, 100.0, power

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 1000)):
            self.joules += self.power(self.now) / 1000
            self.now = round(self.now + 0.001, 3)

    def source(self, unit: str = "watts", renewed_s: float = 0.0) -> PowerSource:
        """The sensor: a power, or a counter that is renewed as seldom as is said."""
        shown = [self.joules, self.now]

        def read() -> float:
            if unit == "watts":
                return self.power(self.now)
            if self.now - shown[1] >= renewed_s:
                shown[:] = [self.joules, self.now]
            return shown[0]

        return PowerSource("world", "the world", "", frozenset({"processor"}), unit, 0.01, read)  # type: ignore[arg-type]


def watched(world: World, source: PowerSource, seconds: float, period: float = 0.01) -> PowerSampler:
    sampler = PowerSampler(source, clock=lambda: world.now)
    for _ in range(round(seconds / period)):
        assert sampler.sample()
        world.pass_time(period)
    assert sampler.sample()
    return sampler


@pytest.mark.parametrize(("unit", "renewed"), [("watts", 0.0), ("joules", 0.0), ("joules", 0.07)])
def test_each_turn_gets_the_power_of_its_own_time(unit: str, renewed: float) -> None:
    # Two engines in turns of a second: one takes 4 W, the other 10 W.
    world = World(lambda now: 4.0 if int(now) % 2 == 0 else 10.0)
    found = watched(world, world.source(unit, renewed), 4.0).found()
    for second, watts in enumerate((4.0, 10.0, 4.0, 10.0)):
        mean, samples = mean_power(found, second + 0.011, second + 1.0 - 0.011)
        assert samples >= LEAST_SAMPLES_A_ROUND
        assert mean == pytest.approx(watts, rel=0.01 if renewed == 0 else 0.15)


def test_a_counter_that_is_renewed_seldom_takes_no_zeros_and_no_doubles() -> None:
    world = World(lambda now: 6.0)
    found = watched(world, world.source("joules", 0.1), 2.0).found()
    assert len(found) == pytest.approx(19, abs=2)
    assert all(item.watts == pytest.approx(6.0, rel=0.01) for item in found)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(1e-3, 0.5), st.floats(0.1, 500)), min_size=3, max_size=40),
    unit=st.sampled_from(["watts", "joules"]),
)
def test_the_energy_of_all_pieces_is_that_which_was_put_in(steps: list[tuple[float, float]], unit: str) -> None:
    readings, now, joules = [(0.0, steps[0][1] if unit == "watts" else 0.0)], 0.0, 0.0
    for seconds, watts in steps:
        now, joules = now + seconds, joules + seconds * watts
        readings.append((now, watts if unit == "watts" else joules))
    found = stretches(readings, unit)
    counted = steps if unit == "watts" else steps[1:]
    assert len(found) == len(counted)
    mean, samples = mean_power(found, -1.0, now + 1)
    whole = math.fsum(seconds for seconds, _ in counted)
    assert samples == len(counted)
    assert mean * whole == pytest.approx(math.fsum(seconds * watts for seconds, watts in counted), rel=1e-6)


@pytest.mark.parametrize(
    ("readings", "unit"),
    [
        ([(0.0, 5.0), (1.0, -5.0)], "watts"),
        ([(0.0, 5.0), (1.0, 0.0)], "watts"),
        ([(0.0, 5.0), (1.0, 1e6)], "watts"),
        ([(0.0, 5.0), (1.0, 4.0)], "joules"),
        ([(0.0, 5.0), (1e-3, 500.0)], "joules"),
    ],
)
def test_a_power_that_cannot_be_is_refused(readings: list[tuple[float, float]], unit: str) -> None:
    with pytest.raises(PowerReadError, match="cannot be"):
        stretches(readings, unit)


def test_pieces_that_reach_out_of_a_turn_do_not_count() -> None:
    found = stretches([(float(second), 1.0 + second) for second in range(6)], "watts")
    assert mean_power(found, 1.0, 3.0) == (pytest.approx(3.5), 2)
    assert mean_power(found, 1.5, 2.9)[1] == 0
    assert math.isnan(mean_power(found, 1.5, 2.9)[0])


@pytest.mark.parametrize("value", [math.nan, math.inf, PowerReadError("the bus is gone")])
def test_a_sensor_that_fails_on_the_way_ends_the_measurement_with_its_reason(value: float | Exception) -> None:
    given_out = iter([5.0, 5.0, value, 5.0])

    def read() -> float:
        found = next(given_out)
        if isinstance(found, Exception):
            raise found
        return float(found)

    source = PowerSource("broken", "x", "", frozenset({"processor"}), "watts", 0.001, read)
    sampler = PowerSampler(source)
    assert [sampler.sample() for _ in range(3)] == [True, True, False]
    with pytest.raises(PowerReadError):
        sampler.found()


def lived(power: Callable[[float], float], seconds: float) -> PowerMonitor:
    world = World(power)
    source = world.source()
    monitor = PowerMonitor(["reference", "tensorrt"], lambda: [source])
    monitor._samplers[source.name] = watched(world, source, seconds)
    return monitor


def test_energy_for_an_image_is_that_of_all_rounds_over_all_images() -> None:
    monitor = lived(lambda now: 2.0 if now <= 1.0 else 8.0, 3.0)
    monitor._idle = [(0.0, 1.0), (2.99, 3.0)]
    found = monitor.result("reference", [Turn(1.05, 1.55, 10), Turn(2.0, 2.9, 30)])
    assert isinstance(found, EnginePower)
    assert found.power_w == pytest.approx(8.0)
    assert found.energy_mj == pytest.approx(8.0 * 1.4 / 40 * 1e3)
    assert found.idle_before_w == pytest.approx(2.0)
    assert found.idle_after_w is None, "one reading says nothing"
    assert [item.images for item in found.rounds] == [10, 30]


def test_rounds_of_other_lengths_count_for_as_long_as_they_lasted() -> None:
    monitor = lived(lambda now: 2.0 if now <= 1.0 else 8.0, 3.0)
    found = monitor.result("reference", [Turn(0.0, 1.0, 1), Turn(1.02, 1.27, 1)])
    assert isinstance(found, EnginePower)
    assert found.power_w == pytest.approx((2.0 * 1.0 + 8.0 * 0.25) / 1.25)


def test_a_round_shorter_than_the_sensors_time_says_nothing() -> None:
    monitor = lived(lambda now: 5.0, 1.0)
    found = monitor.result("reference", [Turn(0.0, 0.9, 5), Turn(0.9, 0.93, 5)])
    assert isinstance(found, PowerNotMeasured)
    assert "a round of 0.03 s" in found.reason
    assert "rounds have to be longer" in found.reason


def test_an_engine_that_no_sensor_sees_is_not_measured_by_another() -> None:
    found = lived(lambda now: 5.0, 1.0).result("tensorrt", [Turn(0.0, 0.9, 5)])
    assert isinstance(found, PowerNotMeasured)
    assert "world: sees only the world" in found.reason


def test_without_a_source_nothing_is_waited_for() -> None:
    def never(seconds: float) -> None:
        raise AssertionError(seconds)

    reason = NoPowerSource("rapl", "no package domain")
    with PowerMonitor(["reference"], lambda: [reason], never) as monitor:
        monitor.rest()
    found = monitor.result("reference", [Turn(0.0, 1.0, 1)])
    assert isinstance(found, PowerNotMeasured)
    assert "rapl: no package domain" in found.reason
    assert found.to_dict() == {"not_measured": found.reason}
