"""How latency is measured."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgekit.errors import BadInputError

__all__ = ["LatencyOptions"]


@dataclass(frozen=True)
class LatencyOptions:
    """How latency is measured. `rounds * iterations` timed runs an engine; a 99th percentile wants 100 at least.

    Attributes:
        batch: Images a run.
        warmup: Untimed runs after an engine was opened: first runs allocate and choose kernels.
        rounds: Each round measures one block of every engine, so that whatever slows the machine slows them all.
        iterations: Timed runs a block.
        lead_in: Untimed runs at the start of each block: threads wake, caches fill.
        threads: Intra-operator threads, 0 for the runtime's choice.
        timeout_s: Longest wait for one answer of an engine's process, in seconds.
        power: Read the machine's power sensors beside the runs, where it has any; idle before and after takes two
            seconds more.
        round_s: Shortest time of a block in seconds, below `timeout_s`. After its timed runs an engine goes on with the
            same work, untimed, for power sensors that are slower than a block; 0 adds nothing.
    """

    batch: int = 1
    warmup: int = 20
    rounds: int = 10
    iterations: int = 20
    lead_in: int = 3
    threads: int = 0
    timeout_s: float = 300.0
    power: bool = False
    round_s: float = 0.0

    def __post_init__(self) -> None:
        smallest = {"batch": 1, "warmup": 1, "rounds": 1, "iterations": 1, "lead_in": 0, "threads": 0, "timeout_s": 0.1}
        for name, least in smallest.items():
            if not getattr(self, name) >= least:
                raise BadInputError(
                    f"An option of the latency measurement is out of range: {name}.",
                    expected=f"at least {least}",
                    found=repr(getattr(self, name)),
                )
        if not 0 <= self.round_s < self.timeout_s or not math.isfinite(self.round_s):
            raise BadInputError(
                "An option of the latency measurement is out of range: round_s.",
                expected=f"from 0 to less than timeout_s, {self.timeout_s:g} seconds",
                found=repr(self.round_s),
            )
        if type(self.power) is not bool:
            raise BadInputError(
                "An option of the latency measurement is out of range: power.",
                expected="true or false",
                found=repr(self.power),
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form.

        What came later is left out at its default: options of before stay as they were, byte for byte.
        """
        later = {item.name: item.default for item in fields(self) if item.name in ("power", "round_s")}
        return {key: value for key, value in asdict(self).items() if later.get(key, self) != value}
