"""How latency is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
    """

    batch: int = 1
    warmup: int = 20
    rounds: int = 10
    iterations: int = 20
    lead_in: int = 3
    threads: int = 0
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        smallest = {"batch": 1, "warmup": 1, "rounds": 1, "iterations": 1, "lead_in": 0, "threads": 0, "timeout_s": 0.1}
        for name, least in smallest.items():
            if not getattr(self, name) >= least:
                raise BadInputError(
                    f"An option of the latency measurement is out of range: {name}.",
                    expected=f"at least {least}",
                    found=repr(getattr(self, name)),
                )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)
