"""Power of a Jetson module, by the INA3221 monitors on it: which rails there are, and which of them are the whole.

Written from documents and recorded values of devices; it was never run on a Jetson. The kernel's driver shows each
chip as a folder of `hwmon` (kernel.org, Documentation/hwmon/ina3221.rst): `in1_label` to `in3_label` name its three
channels, `in1_input` is a voltage in mV and `curr1_input` a current in mA. That is JetPack 5 and newer; JetPack 4 had
another driver and no Python that edgekit runs on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgekit.bench.power.registry import NoPowerSource, PowerReadError, PowerSource
from edgekit.bench.power.sensor_files import read_number, read_text

__all__ = ["NEVER_RUN_ON_A_JETSON", "TOTALS", "find"]

_NAME = "jetson-rails"
_CHANNELS = (1, 2, 3)

NEVER_RUN_ON_A_JETSON = "read by code that was never run on a Jetson"
"""Stands beside every number of this source until somebody has compared it with a meter."""

TOTALS: tuple[frozenset[str], ...] = (
    # Orin Nano, Orin NX, Xavier NX, TX2, TX2 NX, TX1: the module's one input, its total power by NVIDIA's word
    # (developer forum, topic 200883). Further rails of these modules hang behind it.
    frozenset({"VDD_IN"}),
    # Nano, as its device tree calls the same rail.
    frozenset({"POM_5V_IN"}),
    # AGX Orin has no single input. Its memory's rail shows the voltage of VIN_SYS_5V0 and may hang behind it: people
    # add it or leave it out, and no document says. It is added: a budget must not be met by what was left out.
    frozenset({"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}),
    # AGX Xavier has no single input either; these six are in parallel (energymon, jetson/JetsonPowerRails.md, from the
    # product design guide).
    frozenset({"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}),
)
"""Sets of rails whose sum is what a module takes. The first that is there whole counts."""

# Not a fact of the sensor, which averages as it was configured: as often as an I2C bus is asked without being felt.
_SHORTEST_PERIOD_S = 0.05
# With 1024 samples of the slowest conversions a chip takes 50 s; nobody would wait for five of those a round.
_LONGEST_PERIOD_S = 5.0


@dataclass(frozen=True)
class _Rail:
    label: str
    voltage: Path
    current: Path

    def watts(self) -> float:
        return read_number(self.voltage) / 1e3 * read_number(self.current) / 1e3


def find(root: Path) -> PowerSource | NoPowerSource:
    """The rails of the module under `root`; why not, where there are none or their sum is not known to be the whole."""
    try:
        chips = [chip for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")) if _is_monitor(chip)]
        if not chips:
            return NoPowerSource(_NAME, "no INA3221 power monitor in /sys/class/hwmon")
        rails = _rails(chips)
        whole = next((total for total in TOTALS if total <= set(rails)), None)
        if whole is None:
            told = ", ".join(sorted(rails)) or "none"
            return NoPowerSource(_NAME, f"rails ({told}) that are no known module's whole")
        picked = {label: rails[label] for label in sorted(whole)}
        source = PowerSource(
            name=_NAME,
            scope=_scope(whole),
            remark=NEVER_RUN_ON_A_JETSON,
            covers=frozenset({"processor", "gpu"}),
            unit="watts",
            period_s=max(_SHORTEST_PERIOD_S, *(_interval_s(chip) for chip in chips)),
            read=partial(_sum, picked),
        )
        source.read()
    except PowerReadError as cause:
        return NoPowerSource(_NAME, str(cause))
    return source


def _scope(whole: frozenset[str]) -> str:
    if len(whole) == 1:
        return f"the whole module, at its input {next(iter(whole))}"
    return f"the whole module, as the sum of its rails {' + '.join(sorted(whole))}"


def _is_monitor(chip: Path) -> bool:
    return (chip / "name").exists() and read_text(chip / "name") == "ina3221"


def _rails(chips: list[Path]) -> dict[str, _Rail]:
    found: dict[str, _Rail] = {}
    for chip in chips:
        for channel in _CHANNELS:
            file = chip / f"in{channel}_label"
            if not file.exists() or _disabled(chip / f"in{channel}_enable"):
                continue
            label = read_text(file)
            # What no wire leads to is called NC in NVIDIA's device trees.
            if label in ("", "NC"):
                continue
            if label in found:
                raise PowerReadError(f"two rails are called {label[:40]!r}")
            found[label] = _Rail(label, chip / f"in{channel}_input", chip / f"curr{channel}_input")
    return found


def _disabled(file: Path) -> bool:
    return file.exists() and read_text(file) == "0"


def _interval_s(chip: Path) -> float:
    """How long the chip takes for one value of each channel, by its own word; 0 where it does not say."""
    file = chip / "update_interval"
    seconds = read_number(file) / 1e3 if file.exists() else 0.0
    if not 0 <= seconds <= _LONGEST_PERIOD_S:
        raise PowerReadError(f"the monitor says that one value takes {seconds:g} s")
    return seconds


def _sum(rails: Mapping[str, _Rail]) -> float:
    # An idle rail's current may read slightly below zero: the chip measures both ways. The sum may not; that is checked
    # where all readings are.
    return math.fsum(rail.watts() for rail in rails.values())
