"""Power sources over trees of files that the test writes: what is read is what the files say, or the reason why not."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from power_sensors import AGX_ORIN, AGX_XAVIER, ORIN_NANO, XAVIER_NX, Chip, constant_source, write_hwmon, write_rapl

from edgekit.bench.power import jetson, nvidia, rapl
from edgekit.bench.power.registry import (
    POWER_SOURCES,
    NoPowerSource,
    PowerReadError,
    PowerSource,
    find_power_sources,
    source_for,
    why_no_source,
)
from edgekit.engines.registry import ENGINES, GPU_ENGINES


def there(found: PowerSource | NoPowerSource) -> PowerSource:
    assert isinstance(found, PowerSource), found
    return found


def absent(found: PowerSource | NoPowerSource) -> str:
    assert isinstance(found, NoPowerSource), found
    return found.reason


@pytest.mark.parametrize("name", POWER_SOURCES.names())
def test_a_machine_without_sensors_says_so_for_every_source(name: str, tmp_path: Path) -> None:
    found = POWER_SOURCES.load(name)(tmp_path)
    assert absent(found).startswith("no ")
    assert found.name == name


@pytest.mark.parametrize(
    ("chips", "watts", "named"),
    [
        (ORIN_NANO, 5.08, ["VDD_IN"]),
        (XAVIER_NX, 3.9872, ["VDD_IN"]),
        (AGX_ORIN, 4.0 + 2.0 + 4.5 + 0.4, ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]),
        (AGX_XAVIER, 1.9 + 0.95 + 1.9 + 0.38 + 2.5, ["GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"]),
    ],
    ids=["orin-nano", "xavier-nx", "agx-orin", "agx-xavier"],
)
def test_the_rails_that_are_a_modules_whole_are_summed(
    chips: Sequence[Chip], watts: float, named: list[str], tmp_path: Path
) -> None:
    write_hwmon(tmp_path, chips)
    source = there(jetson.find(tmp_path))
    assert source.read() == pytest.approx(watts)
    assert source.unit == "watts"
    assert all(rail in source.scope for rail in named)
    assert "never run on a Jetson" in source.remark
    assert source.covers == {"processor", "gpu"}


def test_rails_are_read_anew_each_time(tmp_path: Path) -> None:
    (chip,) = write_hwmon(tmp_path, ORIN_NANO)
    source = there(jetson.find(tmp_path))
    (chip / "curr1_input").write_text("2000\n")
    assert source.read() == pytest.approx(10.16)
    (chip / "curr1_input").unlink()
    with pytest.raises(PowerReadError, match="hwmon1/curr1_input cannot be read"):
        source.read()


def test_a_sensor_that_averages_for_long_is_read_as_seldom(tmp_path: Path) -> None:
    write_hwmon(tmp_path / "slow", ORIN_NANO, update_interval=400)
    write_hwmon(tmp_path / "quick", ORIN_NANO, update_interval=1)
    assert there(jetson.find(tmp_path / "slow")).period_s == 0.4
    assert there(jetson.find(tmp_path / "quick")).period_s == 0.05


@pytest.mark.parametrize("milliseconds", [-1, 5001, 10**12])
def test_a_sensor_that_nobody_could_wait_for_is_not_used(milliseconds: int, tmp_path: Path) -> None:
    write_hwmon(tmp_path, ORIN_NANO, update_interval=milliseconds)
    assert "one value takes" in absent(jetson.find(tmp_path))


@pytest.mark.parametrize(
    ("chips", "said"),
    [
        (({"VDD_CPU_GPU_CV": (5000, 1), "VDD_SOC": (5000, 1)},), "VDD_CPU_GPU_CV, VDD_SOC"),
        # A part of the AGX Orin's rails is not its whole.
        (AGX_ORIN[:1], "VDD_CPU_CV, VDD_GPU_SOC, VIN_SYS_5V0"),
        (({"RAIL OF A BOARD THAT NOBODY KNOWS": (12000, 100)},), "NOBODY KNOWS"),
        (({"NC": (0, 0)},), "none"),
        ((), "no INA3221"),
    ],
)
def test_rails_that_are_no_known_whole_are_not_summed(chips: Sequence[Chip], said: str, tmp_path: Path) -> None:
    write_hwmon(tmp_path, chips)
    assert said in absent(jetson.find(tmp_path))


def test_two_rails_of_one_name_are_refused(tmp_path: Path) -> None:
    write_hwmon(tmp_path, [*ORIN_NANO, *ORIN_NANO])
    assert "two rails are called 'VDD_IN'" in absent(jetson.find(tmp_path))


def test_a_channel_that_is_switched_off_is_no_rail(tmp_path: Path) -> None:
    (chip,) = write_hwmon(tmp_path, ORIN_NANO)
    (chip / "in1_enable").write_text("0\n")
    assert "VDD_CPU_GPU_CV, VDD_SOC" in absent(jetson.find(tmp_path))


@pytest.mark.parametrize("text", ["", "12.5", "1_000", "many", "\u0663", "\x1b[31m", "--5", "0x10"])
def test_a_file_that_holds_no_whole_number_is_told_with_what_it_holds(text: str, tmp_path: Path) -> None:
    (chip,) = write_hwmon(tmp_path, ORIN_NANO)
    (chip / "in1_input").write_text(text, encoding="utf-8")
    reason = absent(jetson.find(tmp_path))
    assert "hwmon1/in1_input holds" in reason
    assert reason.isprintable()


def test_packages_are_summed_and_domains_inside_them_are_not(tmp_path: Path) -> None:
    domains = {
        "intel-rapl:0": ("package-0", 1_000_000),
        "intel-rapl:0:0": ("core", 77),
        "intel-rapl:1": ("package-1", 5_000_000),
        "intel-rapl:2": ("psys", 88),
        "intel-rapl-mmio:0": ("package-0", 99),
    }
    write_rapl(tmp_path, domains)
    source = there(rapl.find(tmp_path))
    assert source.unit == "joules"
    assert source.covers == {"processor"}
    before = source.read()
    for folder, energy in (("intel-rapl:0", 3_000_000), ("intel-rapl:1", 5_500_000), ("intel-rapl:2", 10**9)):
        (tmp_path / "sys/class/powercap" / folder / "energy_uj").write_text(str(energy))
    assert source.read() - before == pytest.approx(2.5)


def test_a_counter_that_starts_again_goes_on_growing(tmp_path: Path) -> None:
    write_rapl(tmp_path, {"intel-rapl:0": ("package-0", 9_000_000)}, largest=10_000_000)
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    source = there(rapl.find(tmp_path))
    before = source.read()
    counter.write_text("500000\n")
    assert source.read() - before == pytest.approx(1.5)
    counter.write_text("600000\n")
    assert source.read() - before == pytest.approx(1.6)


@pytest.mark.parametrize("found", ["-1", "10000001"])
def test_a_counter_outside_its_own_range_is_no_reading(found: str, tmp_path: Path) -> None:
    write_rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)}, largest=10_000_000)
    source = there(rapl.find(tmp_path))
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text(found)
    with pytest.raises(PowerReadError, match="outside its own range"):
        source.read()


@pytest.mark.parametrize("find", [rapl.find, jetson.find])
def test_a_file_that_may_not_be_read_is_told_as_that(
    find: Callable[[Path], PowerSource | NoPowerSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    write_hwmon(tmp_path, ORIN_NANO)
    closed = {"energy_uj", "curr1_input"}
    original = Path.open

    def refusing(self: Path, *arguments: Any, **named: Any) -> Any:
        # Permissions do not hold root, and tests may run as root.
        if self.name in closed:
            raise PermissionError(13, os.strerror(13), str(self))
        return original(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", refusing)
    assert "may not be read by this user" in absent(find(tmp_path))


class Nvml:
    """NVML as far as it is called: so many cards, with a counter or without."""

    def __init__(self, cards: int = 1, millijoules: int = 5000, code: int = 0) -> None:
        self.cards, self.millijoules, self.code = cards, millijoules, code

    def __getattr__(self, name: str) -> Callable[..., int]:
        functions = {
            "nvmlInit_v2": lambda: 0,
            "nvmlDeviceGetCount_v2": self._count,
            "nvmlDeviceGetHandleByIndex_v2": self._handle,
            "nvmlDeviceGetTotalEnergyConsumption": self._energy,
        }
        if name not in functions:
            raise AttributeError(name)
        return functions[name]

    def _count(self, count: Any) -> int:
        count._obj.value = self.cards
        return 0

    def _handle(self, index: int, device: Any) -> int:
        assert index == 0
        device._obj.value = 7
        return 0

    def _energy(self, device: ctypes.c_void_p, found: Any) -> int:
        assert device.value == 7
        found._obj.value = self.millijoules
        return self.code


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: 570\n")
    return tmp_path


def test_the_counter_of_the_one_card_is_read_in_joules(driver: Path) -> None:
    library = Nvml()
    source = there(nvidia.find(driver, lambda name: library))
    assert (source.read(), source.unit) == (5.0, "joules")
    library.millijoules = 6500
    assert source.read() == 6.5
    assert source.covers == {"gpu"}
    assert "never run on a GPU" in source.remark
    library.code = 15
    with pytest.raises(PowerReadError, match="nvmlDeviceGetTotalEnergyConsumption answered with error 15"):
        source.read()


@pytest.mark.parametrize(
    ("library", "said"),
    [
        (Nvml(cards=0), "0 NVIDIA cards"),
        (Nvml(cards=2), "2 NVIDIA cards"),
        (Nvml(code=3), "no energy counter"),
        (Nvml(code=999), "error 999"),
        (object(), "cannot be used"),
    ],
)
def test_a_card_that_cannot_be_measured_says_why(library: Any, said: str, driver: Path) -> None:
    assert said in absent(nvidia.find(driver, lambda name: library))


def test_a_library_that_is_not_there_is_told(driver: Path) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    assert "libnvidia-ml.so.1" in absent(nvidia.find(driver, missing))


@pytest.mark.parametrize("engine", ENGINES.names())
def test_an_engine_is_measured_by_what_sees_its_work(engine: str, tmp_path: Path) -> None:
    write_rapl(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    found = find_power_sources(tmp_path)
    assert [item.name for item in found] == list(POWER_SOURCES)
    source = source_for(engine, found)
    if engine in GPU_ENGINES:
        assert source is None
        # The processor's counter is there, and would leave out most.
        assert "rapl: sees only the processor's package" in why_no_source(engine, found)
    else:
        assert source is not None
        assert source.name == "rapl"
    write_hwmon(tmp_path, AGX_ORIN)
    module = source_for(engine, find_power_sources(tmp_path))
    assert module is not None
    assert module.name == "jetson-rails"


def test_gpu_engines_are_engines() -> None:
    assert set(ENGINES) > GPU_ENGINES
    assert source_for("reference", [constant_source(1.0)]) is not None
