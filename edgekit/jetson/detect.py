"""Which Jetson this is, by what the device says of itself. What cannot be told is None, with a note that says why.

Where each answer lies: rbonghi/jetson_stats, and recorded output of devices. No text that a device can hold raises
anything here: a device tree may be of a carrier board that nobody has heard of.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgekit.jetson.modules import MODULES, Module
from edgekit.jetson.probe import Probe, SystemProbe
from edgekit.jetson.releases import release_of_l4t

__all__ = ["Jetson", "read_jetson"]

_MODEL = "/proc/device-tree/model"
_COMPATIBLE = "/proc/device-tree/compatible"
_RELEASE = "/etc/nv_tegra_release"
_MEMORY = "/proc/meminfo"
_PACKAGE = ("dpkg-query", "--show", "--showformat=${Version}", "nvidia-l4t-core")
_POWER = ("nvpmodel", "-q")

_TEGRA = re.compile(r"nvidia,(tegra\d{3})\b", re.ASCII)
_PART = re.compile(r"\b(p\d{4}-\d{4})\b", re.ASCII)
_L4T = re.compile(r"#\s*R(\d{1,4})\s*\(release\),\s*REVISION:\s*(\d{1,4}(?:\.\d{1,4}){0,2})\b", re.ASCII)
_PACKAGE_VERSION = re.compile(r"(\d{1,4}\.\d{1,4}(?:\.\d{1,4})?)(?:-|\s|$)", re.ASCII)
_POWER_MODE = re.compile(r"^NV Power Mode:[ \t]*(\S[^\r\n]{0,63})", re.MULTILINE)
_MEM_TOTAL = re.compile(r"^MemTotal:\s*(\d{1,15}) kB", re.MULTILINE | re.ASCII)
_FASTER_MODES = {"25W", "MAXN_SUPER"}
_SHOWN = 100


@dataclass(frozen=True)
class Jetson:
    """A Jetson, as far as it can be told.

    Attributes:
        model: What the device tree calls it, printable characters only.
        module: Name of the target that it is; None where that cannot be told.
        base_module: Name of the module's own target where `module` is that of its faster power modes, else `module`.
        soc: System on chip: "tegra194", "tegra234" or "tegra264" among others; None where not told.
        part: Part number of the module that decided, such as "p3767-0005".
        l4t: Jetson Linux version, such as "36.4.3".
        jetpack: JetPack release that brings it, such as "6.2".
        power_mode: Current power mode, such as "MAXN_SUPER".
        memory_gib: Memory that the system sees, in GiB.
        notes: What could not be told, and why.
    """

    model: str
    module: str | None
    base_module: str | None
    soc: str | None
    part: str | None
    l4t: str | None
    jetpack: str | None
    power_mode: str | None
    memory_gib: float | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "notes": list(self.notes)}


def read_jetson(probe: Probe | None = None) -> Jetson | None:
    """This machine as a Jetson, or None where it is none.

    Args:
        probe: Whom to ask; this machine unless given.
    """
    asked = probe or SystemProbe()
    model = _printable(asked.file(_MODEL))
    compatible = (asked.file(_COMPATIBLE) or "").replace("\0", "\n").lower()
    soc = next(iter(_TEGRA.findall(compatible)), None)
    release_text = asked.file(_RELEASE)
    # A server with an NVIDIA card has none of these.
    if soc is None and release_text is None and "jetson" not in model.lower():
        return None
    notes: list[str] = []
    memory = _memory_gib(asked.file(_MEMORY))
    power_mode = _power_mode(asked, notes)
    found, part = _module(model, soc, tuple(dict.fromkeys(_PART.findall(compatible))), memory)
    if found is None:
        notes.append("the module is none that edgekit knows, or the device does not tell it from its siblings")
    l4t = _l4t(asked, release_text, notes)
    release = release_of_l4t(l4t) if l4t else None
    if l4t and release is None:
        notes.append(f"no JetPack release is known to bring Jetson Linux {l4t}")
    return Jetson(
        model=model,
        module=_name(found, model, power_mode),
        base_module=found.name if found else None,
        soc=soc or (found.soc if found else None),
        part=part,
        l4t=l4t,
        jetpack=release.jetpack if release else None,
        power_mode=power_mode,
        memory_gib=memory,
        notes=tuple(notes),
    )


def _module(
    model: str, soc: str | None, parts: tuple[str, ...], memory: float | None
) -> tuple[Module | None, str | None]:
    """The module and the part number that told it.

    The part number goes before the model's text: an Orin NX on the carrier of an Orin Nano is called a Nano there.
    """
    of_soc = [module for module in MODULES if soc in (None, module.soc)]
    part = next((part for part in parts if any(part in module.parts for module in of_soc)), None)
    if part is not None:
        candidates = [module for module in of_soc if part in module.parts]
    else:
        said = set(re.findall(r"[a-z0-9]+", model.lower()))
        candidates = [module for module in of_soc if said.issuperset(module.words)]
    if len(candidates) > 1 and memory is not None:
        # The system sees less than is soldered: firmware and display keep some.
        candidates = [item for item in candidates if any(0.75 * size < memory <= size for size in item.memory_gib)]
    return (candidates[0], part) if len(candidates) == 1 else (None, part)


def _name(module: Module | None, model: str, power_mode: str | None) -> str | None:
    if module is None:
        return None
    if module.super_name is None:
        return module.name
    # 25W came with the faster tables of modes; below it the clocks are those that the module was sold with.
    faster = model.lower().endswith(" super") if power_mode is None else power_mode.upper() in _FASTER_MODES
    return module.super_name if faster else module.name


def _l4t(probe: Probe, release_text: str | None, notes: list[str]) -> str | None:
    match = _L4T.search(release_text or "")
    if match is not None:
        revision = match[2] if "." in match[2] else f"{match[2]}.0"
        return f"{match[1]}.{revision}"
    match = _PACKAGE_VERSION.match((probe.output(*_PACKAGE) or "").strip(" '\""))
    if match is not None:
        return match[1]
    notes.append(f"neither {_RELEASE} nor the package nvidia-l4t-core tells the Jetson Linux version")
    return None


def _power_mode(probe: Probe, notes: list[str]) -> str | None:
    match = _POWER_MODE.search(probe.output(*_POWER) or "")
    if match is None:
        notes.append("nvpmodel does not tell the power mode")
        return None
    return _printable(match[1])


def _memory_gib(text: str | None) -> float | None:
    match = _MEM_TOTAL.search(text or "")
    return int(match[1]) / 2**20 if match else None


def _printable(text: str | None) -> str:
    """What a terminal can be shown: device trees end their texts with a zero byte, and hostile ones hold anything."""
    kept = "".join(letter if letter.isprintable() else " " for letter in (text or "")[:_SHOWN])
    return " ".join(kept.split())
