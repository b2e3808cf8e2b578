"""Trees of sensor files as kernels show them, written where a test wants them, and sources that a test reads.

The rails of the modules are those of their device trees and of values that users published; none was read by us on a
device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.bench.power.registry import PowerSource

__all__ = ["AGX_ORIN", "AGX_XAVIER", "ORIN_NANO", "XAVIER_NX", "constant_source", "write_hwmon", "write_rapl"]

# One mapping a chip: label to millivolts and milliamperes, in the order of the channels.
Chip = Mapping[str, tuple[int, int]]
ORIN_NANO: Sequence[Chip] = ({"VDD_IN": (5080, 1000), "VDD_CPU_GPU_CV": (5080, 300), "VDD_SOC": (5080, 200)},)
XAVIER_NX: Sequence[Chip] = ({"VDD_IN": (4984, 800), "VDD_CPU_GPU_CV": (4984, 120), "VDD_SOC": (4984, 240)},)
AGX_ORIN: Sequence[Chip] = (
    {"VDD_GPU_SOC": (20000, 200), "VDD_CPU_CV": (20000, 100), "VIN_SYS_5V0": (5000, 900)},
    {"NC": (0, 0), "VDDQ_VDD2_1V8AO": (5000, 80)},
)
AGX_XAVIER: Sequence[Chip] = (
    {"GPU": (19000, 100), "CPU": (19000, 50), "SOC": (19000, 100)},
    {"CV": (19000, 0), "VDDRQ": (19000, 20), "SYS5V": (5000, 500)},
)


def write_hwmon(root: Path, chips: Sequence[Chip], update_interval: int | None = None) -> list[Path]:
    """INA3221 chips beside a sensor of another kind; the chips' folders."""
    other = root / "sys/class/hwmon/hwmon0"
    other.mkdir(parents=True)
    (other / "name").write_text("cpu_thermal\n")
    (other / "in1_label").write_text("VDD_IN\n")
    folders = []
    for number, chip in enumerate(chips, start=1):
        folder = root / f"sys/class/hwmon/hwmon{number}"
        folder.mkdir()
        (folder / "name").write_text("ina3221\n")
        for channel, (label, (millivolts, milliamperes)) in enumerate(chip.items(), start=1):
            (folder / f"in{channel}_label").write_text(f"{label}\n")
            (folder / f"in{channel}_input").write_text(f"{millivolts}\n")
            (folder / f"curr{channel}_input").write_text(f"{milliamperes}\n")
        # The driver shows the sum of the shunts as a seventh voltage, which is no rail.
        (folder / "in7_label").write_text("sum of shunt voltages\n")
        (folder / "in7_input").write_text("99999\n")
        if update_interval is not None:
            (folder / "update_interval").write_text(f"{update_interval}\n")
        folders.append(folder)
    return folders


def write_rapl(root: Path, domains: Mapping[str, tuple[str, int]], largest: int = 262_143_328_850) -> None:
    """Domains of powercap: folder to name and microjoules."""
    for folder, (name, energy) in domains.items():
        path = root / "sys/class/powercap" / folder
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text(f"{energy}\n")
        (path / "max_energy_range_uj").write_text(f"{largest}\n")


def constant_source(watts: float, period_s: float = 0.005) -> PowerSource:
    """A sensor that always says the same: what an engine takes is then known, whatever the machine is doing."""
    return PowerSource("stub", "a sensor of the test", "", frozenset({"processor"}), "watts", period_s, lambda: watts)
