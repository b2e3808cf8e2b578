"""Answers of Jetson devices, in the form in which users published them; none was read by us on a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgekit.jetson.probe import RecordedProbe

__all__ = ["DEVICES", "Device", "probe_of"]


@dataclass(frozen=True)
class Device:
    """What a device answers, and what it is.

    Attributes:
        model: Text of the device tree's model.
        compatible: Names in the device tree, most special first.
        release: First line of nv_tegra_release; empty where the file is missing.
        package: Version of nvidia-l4t-core; empty where dpkg does not know it.
        power: What nvpmodel prints.
        mem_total_kb: As in meminfo.
        module: Name of the target that it is.
        l4t: Jetson Linux version.
        jetpack: JetPack release, None where none is known.
    """

    model: str
    compatible: tuple[str, ...]
    release: str
    package: str
    power: str
    mem_total_kb: int
    module: str
    l4t: str
    jetpack: str | None


_R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC"

DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        "orin-nano-super": Device(
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
            _R36,
            "36.4.3-20250107174145",
            "NV Power Mode: MAXN_SUPER\n2\n",
            7_802_828,
            "jetson-orin-nano-super",
            "36.4.3",
            "6.2",
        ),
        "orin-nano-super-at-15W": Device(
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            ("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
            "# R36 (release), REVISION: 4.7, GCID: 1, BOARD: generic, EABI: aarch64, DATE: today",
            "",
            "NV Power Mode: 15W\n0\n",
            7_802_828,
            "jetson-orin-nano-8gb",
            "36.4.7",
            "6.2.1",
        ),
        "orin-nano-4gb": Device(
            "NVIDIA Jetson Orin Nano Developer Kit",
            ("nvidia,p3768-0000+p3767-0004", "nvidia,p3767-0004", "nvidia,tegra234"),
            "",
            "36.3.0-20240506102626",
            "NV Power Mode: 10W\n0\n",
            3_500_000,
            "jetson-orin-nano-4gb",
            "36.3.0",
            "6.0",
        ),
        # Its carrier is that of the Nano, and the text says so.
        "orin-nx-on-a-nano-carrier": Device(
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            ("nvidia,p3768-0000+p3767-0000-super", "nvidia,p3767-0000", "nvidia,tegra234"),
            _R36,
            "",
            "NV Power Mode: 25W\n3\n",
            15_900_000,
            "jetson-orin-nx-16gb",
            "36.4.3",
            "6.2",
        ),
        # No part number that is known: the text and the memory decide.
        "orin-nx-8gb-of-another-maker": Device(
            "Some Maker Orin NX Box",
            ("maker,box", "nvidia,tegra234"),
            _R36,
            "",
            "NV Power Mode: MAXN\n0\n",
            7_700_000,
            "jetson-orin-nx-8gb",
            "36.4.3",
            "6.2",
        ),
        "agx-orin-64gb": Device(
            "NVIDIA Jetson AGX Orin Developer Kit",
            ("nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"),
            "# R36 (release), REVISION: 4.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: today",
            "",
            "NV Power Mode: MAXN\n0\n",
            64_350_000,
            "jetson-agx-orin-64gb",
            "36.4.0",
            "6.1",
        ),
        # One part number for both sizes of memory.
        "agx-orin-first-kit": Device(
            "Jetson AGX Orin Developer Kit",
            ("nvidia,p3737-0000+p3701-0000", "nvidia,p3701-0000", "nvidia,tegra234"),
            "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 2023",
            "",
            "NV Power Mode: MODE_30W\n2\n",
            31_280_000,
            "jetson-agx-orin-32gb",
            "35.4.1",
            "5.1.2",
        ),
        "xavier-nx": Device(
            "NVIDIA Jetson Xavier NX Developer Kit",
            ("nvidia,p3449-0000+p3668-0000", "nvidia,p3668-0000", "nvidia,tegra194"),
            "# R35 (release), REVISION: 3.1, GCID: 32827747, BOARD: t186ref, EABI: aarch64, DATE: Sun Mar 19 2023",
            "",
            "NV Power Mode: MODE_20W_6CORE\n8\n",
            7_000_000,
            "jetson-xavier-nx",
            "35.3.1",
            "5.1.1",
        ),
        "agx-xavier": Device(
            "Jetson-AGX",
            ("nvidia,p2972-0000", "nvidia,tegra194"),
            "# R35 (release), REVISION: 6.4, GCID: 1, BOARD: t186ref, EABI: aarch64, DATE: today",
            "",
            "NV Power Mode: MAXN\n0\n",
            32_000_000,
            "jetson-agx-xavier",
            "35.6.4",
            "5.1.6",
        ),
        "thor": Device(
            "NVIDIA Jetson AGX Thor Developer Kit",
            ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
            "# R38 (release), REVISION: 4.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: today",
            "",
            "NV Power Mode: 120W\n1\n",
            128_000_000,
            "jetson-thor-t5000",
            "38.4.0",
            "7.1",
        ),
        "thor-with-a-release-that-nobody-knows": Device(
            "NVIDIA Jetson AGX Thor Developer Kit",
            ("nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"),
            "# R39 (release), REVISION: 0.0",
            "",
            "",
            128_000_000,
            "jetson-thor-t5000",
            "39.0.0",
            None,
        ),
    }
)


def probe_of(name: str, **changed: str) -> RecordedProbe:
    """The answers of a device.

    Args:
        name: In `DEVICES`.
        changed: Other texts for "model", "compatible", "release", "meminfo", "package" or "power".
    """
    device = DEVICES[name]
    texts = {
        "model": device.model + "\0",
        "compatible": "\0".join(device.compatible) + "\0",
        "release": device.release,
        "meminfo": f"MemTotal:       {device.mem_total_kb} kB\nMemFree:          1 kB\n",
        "package": device.package,
        "power": device.power,
        **changed,
    }
    files = {
        "/proc/device-tree/model": texts["model"],
        "/proc/device-tree/compatible": texts["compatible"],
        "/proc/meminfo": texts["meminfo"],
        "/etc/nv_tegra_release": texts["release"],
    }
    outputs = {"dpkg-query": texts["package"], "nvpmodel": texts["power"]}
    return RecordedProbe(
        {path: text for path, text in files.items() if text}, {name: text for name, text in outputs.items() if text}
    )
