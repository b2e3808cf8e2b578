"""The timing cache of one build: taken from its file before, and merged into it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.engines.tensorrt.binding import TensorRt
from edgekit.engines.tensorrt.machine import MachineFacts
from edgekit.engines.tensorrt.memory import DeviceFacts
from edgekit.engines.tensorrt.options import BuildOptions
from edgekit.engines.tensorrt.timing_cache import cache_path, read_cache, update_cache
from edgekit.errors import EdgekitError

__all__ = ["TimedBuild"]


@dataclass(frozen=True)
class TimedBuild:
    """A build's cache.

    Attributes:
        path: Its file; None where none is used.
        state: "none", "new", "used", or what is wrong with the file.
    """

    path: Path | None
    state: str

    @classmethod
    def prepare(
        cls, tensorrt: TensorRt, config: Any, options: BuildOptions, here: tuple[DeviceFacts, MachineFacts]
    ) -> TimedBuild:
        """Give the configuration its cache. The file for another version, device or mode is never looked at."""
        if options.timing_cache is None:
            return cls(None, "none")
        device, machine = here
        name = f"{device.name}-{device.multiprocessors}"
        path = cache_path(options.timing_cache, (tensorrt.text, f"sm{device.sm}", name, machine.power_mode))
        try:
            blob, problem = read_cache(path)
        except EdgekitError as error:
            blob, problem = b"", error.message
        cache = config.create_timing_cache(blob)
        # Mismatches are not ignored: times of another device pick wrong kernels in silence.
        if cache is None or not config.set_timing_cache(cache, False):
            problem = problem or "TensorRT does not accept the timing cache; kernels are timed anew"
            fresh = config.create_timing_cache(b"")
            if fresh is None or not config.set_timing_cache(fresh, False):
                return cls(None, problem)
        return cls(path, problem or ("used" if blob else "new"))

    def keep(self, config: Any) -> str:
        """Merge what was measured into the file; returns the state. A cache that cannot be kept costs time only."""
        measured = config.get_timing_cache() if self.path is not None else None
        if self.path is None or measured is None:
            return self.state

        def merged(stored: bytes) -> bytes:
            # Another build may have stored its own meanwhile.
            other = config.create_timing_cache(stored) if stored else None
            if other is not None:
                measured.combine(other, False)
            return bytes(measured.serialize())

        try:
            update_cache(self.path, merged)
        except EdgekitError as error:
            return f"{self.state}, not kept: {error.message}"
        return self.state
