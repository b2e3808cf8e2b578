"""What of this machine decides about a plan and about timings, besides its GPU: a Jetson's release, module and mode."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgekit.jetson.detect import read_jetson
from edgekit.jetson.probe import Probe, SystemProbe

__all__ = ["MachineFacts", "available_memory", "machine_facts"]

_AVAILABLE = re.compile(r"^MemAvailable:\s*(?P<kilobytes>\d{1,15}) kB", re.MULTILINE | re.ASCII)


@dataclass(frozen=True)
class MachineFacts:
    """A Jetson's release and mode; empty texts elsewhere, and where the device does not tell.

    Attributes:
        l4t: Version of Jetson Linux, such as "36.4.3".
        module: The module, by the name of its target: all Orin GPUs call themselves "Orin".
        power_mode: What nvpmodel calls the mode, such as "MAXN_SUPER": clocks and cores follow it.
    """

    l4t: str = ""
    module: str = ""
    power_mode: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


def machine_facts(probe: Probe | None = None) -> MachineFacts:
    """Ask the machine, or whom a test puts in its place. Changes nothing, raises nothing."""
    jetson = read_jetson(probe)
    if jetson is None:
        return MachineFacts()
    return MachineFacts(jetson.l4t or "", jetson.module or "", jetson.power_mode or "")


def available_memory(probe: Probe | None = None) -> int | None:
    """Bytes that the host could give to programs without swapping; None where the system does not tell."""
    found = _AVAILABLE.search((probe or SystemProbe()).file("/proc/meminfo") or "")
    return int(found["kilobytes"]) * 1024 if found else None
