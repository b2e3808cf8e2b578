"""What of this machine decides about a plan and about timings, read from files and one command, never guessed."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["MachineFacts", "available_memory", "machine_facts"]

_RELEASE = re.compile(r"# R(?P<major>\d+) \(release\), REVISION: (?P<minor>[\d.]+)")
_MODE = re.compile(r"NV Power Mode:\s*(?P<mode>\S+)")
_AVAILABLE = re.compile(r"^MemAvailable:\s*(?P<kilobytes>\d+) kB$", re.MULTILINE)
_QUERY_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class MachineFacts:
    """A Jetson's release and mode; empty texts elsewhere, and where they cannot be read.

    Attributes:
        l4t: Release of Linux for Tegra, such as "36.4.3".
        model: The module and board as the device tree names them.
        power_mode: What nvpmodel calls the mode, such as "MAXN_SUPER": clocks and cores follow it.
    """

    l4t: str = ""
    model: str = ""
    power_mode: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


def machine_facts(root: Path = Path("/")) -> MachineFacts:
    """Read them under `root`; nvpmodel is asked, which changes nothing."""
    release = _RELEASE.search(_text(root / "etc" / "nv_tegra_release"))
    l4t = f"{release['major']}.{release['minor']}" if release else ""
    model = _text(root / "proc" / "device-tree" / "model").strip("\0\n ")
    mode = _MODE.search(_power_mode_text()) if l4t else None
    return MachineFacts(l4t, model, mode["mode"] if mode else "")


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the host could give to programs without swapping; None where the system does not tell."""
    found = _AVAILABLE.search(_text(meminfo))
    return int(found["kilobytes"]) * 1024 if found else None


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[:65536].decode("utf-8", "replace")
    except OSError:
        return ""


def _power_mode_text() -> str:
    program = shutil.which("nvpmodel")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, "-q"], capture_output=True, text=True, check=False, timeout=_QUERY_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
