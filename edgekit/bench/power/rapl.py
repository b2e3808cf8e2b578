"""Energy of the processor's packages, by the counters that Intel and AMD build in and Linux shows as `powercap`.

kernel.org, Documentation/power/powercap/powercap.rst: `/sys/class/powercap/intel-rapl:N` is a domain, `name` says of
what, `energy_uj` counts microjoules and starts again at zero after `max_energy_range_uj`. AMD's processors are shown
under the same name. A package holds its cores, caches and built-in graphics; memory, disks, fans and the power supply's
own loss are not in it. Since CVE-2020-8694 most systems let root alone read the counter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from edgekit.bench.power.registry import NoPowerSource, PowerReadError, PowerSource
from edgekit.bench.power.sensor_files import read_number, read_text

__all__ = ["find"]

_NAME = "rapl"
# Domains inside a package have a second number, and intel-rapl-mmio shows the same packages once more.
_DOMAIN = re.compile(r"intel-rapl:\d+", re.ASCII)
_PACKAGE = re.compile(r"package-\d+", re.ASCII)
# The counter moves every millisecond. Twenty readings a second are enough for a round of a second, and hardly a load.
_PERIOD_S = 0.05


class _Package:
    """One counter, made to grow for ever.

    More than one turn between two readings could not be noticed; at 250 W the shortest range in use lasts for minutes.
    """

    def __init__(self, folder: Path) -> None:
        self._counter = folder / "energy_uj"
        self._range = read_number(folder / "max_energy_range_uj")
        self._last = self._now()
        self._total = 0

    def _now(self) -> int:
        found = read_number(self._counter)
        if not 0 <= found <= self._range:
            raise PowerReadError(f"an energy counter reads {found}, outside its own range of {self._range}")
        return found

    def joules(self) -> float:
        now = self._now()
        self._total += now - self._last if now >= self._last else now + self._range - self._last
        self._last = now
        return self._total / 1e6


class _Packages:
    def __init__(self, folders: Sequence[Path]) -> None:
        self._each = [_Package(folder) for folder in folders]

    def joules(self) -> float:
        return math.fsum(package.joules() for package in self._each)


def find(root: Path) -> PowerSource | NoPowerSource:
    """The package counters under `root`; why not, where there are none or they may not be read."""
    try:
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        domains = [folder for folder in zones if _DOMAIN.fullmatch(folder.name)]
        packages = [folder for folder in domains if _PACKAGE.fullmatch(read_text(folder / "name"))]
        if not packages:
            return NoPowerSource(_NAME, "no package domain in /sys/class/powercap")
        counters = _Packages(packages)
        counters.joules()
    except PowerReadError as cause:
        return NoPowerSource(_NAME, str(cause))
    count = "the processor's package" if len(packages) == 1 else f"the {len(packages)} processors' packages"
    return PowerSource(
        name=_NAME,
        scope=f"{count}, without memory and the rest of the machine",
        remark="other programs' work on the same processor is in it",
        covers=frozenset({"processor"}),
        unit="joules",
        period_s=_PERIOD_S,
        read=counters.joules,
    )
