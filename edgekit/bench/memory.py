"""The most memory that this process ever held."""

from __future__ import annotations

import platform
import re
from pathlib import Path

__all__ = ["peak_memory_bytes"]

_STATUS = Path("/proc/self/status")
_PEAK = re.compile(r"^VmHWM:\s*(\d{1,15}) kB$", re.MULTILINE | re.ASCII)


def peak_memory_bytes(status: Path = _STATUS) -> int | None:
    """Largest resident size of this process so far, bytes; None where the system does not tell.

    Everything that the processor's memory held of it: interpreter, libraries, runtime, weights, inputs, working memory.
    Not what a graphics card held. Pages that are shared with other processes count in full.

    Args:
        status: Where Linux tells it.
    """
    if platform.system() == "Linux":
        # Not ru_maxrss: Linux hands that on from the process that started this one (getrusage(2)), which is larger.
        try:
            match = _PEAK.search(status.read_text(encoding="ascii", errors="replace"))
        except OSError:
            return None
        return int(match[1]) * 1024 if match else None
    if platform.system() == "Darwin":
        # Windows has no such module.
        import resource

        # macOS counts in bytes, and begins with the process.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
