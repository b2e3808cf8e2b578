"""ITimingCache: what tactics took on one device, with one version."""

from __future__ import annotations

import json
from typing import Any

from fake_tensorrt.api import Api, Behaviour

__all__ = ["TimingCache"]

MAGIC = b"fake-timing-cache\n"


class TimingCache(Behaviour):
    """ITimingCache.

    Attributes:
        owner: (version, SM, device) that the times are of.
        times: Milliseconds by layer.
    """

    public_name = "ITimingCache"

    def __init__(self, api: Api, data: bytes, logger: Any) -> None:
        super().__init__(api)
        self.owner = self._here()
        self.times: dict[str, float] = {}
        self._logger = logger
        if not data:
            return
        if not data.startswith(MAGIC):
            api.log(logger, "WARNING", "Magic tag does not match. Timing cache will not be used.")
            return
        try:
            stored = json.loads(data[len(MAGIC) :])
        except ValueError:
            api.log(logger, "WARNING", "The timing cache is cut short. Timing cache will not be used.")
            return
        self.owner, self.times = list(stored["owner"]), dict(stored["times"])

    def _here(self) -> list[Any]:
        device = self.api.machine.device
        return [self.api.version, list(device.capability), device.name]

    @property
    def fits(self) -> bool:
        """The times are of this version and this device."""
        return self.owner == self._here()

    def serialize(self) -> Any:
        """The times as bytes."""
        return self.api.host_memory(
            MAGIC + json.dumps({"owner": self.owner, "times": self.times}, sort_keys=True).encode()
        )

    def combine(self, input_cache: TimingCache, ignore_mismatch: bool) -> bool:
        """Take over another cache's times."""
        if input_cache is self or (input_cache.owner != self.owner and not ignore_mismatch):
            self.api.log(self._logger, "WARNING", "The timing caches are of different devices or versions.")
            return False
        self.times |= input_cache.times
        return True

    def reset(self) -> bool:
        """Forget all times."""
        self.times.clear()
        return True
