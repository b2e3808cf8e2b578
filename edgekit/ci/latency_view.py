"""The stored latencies of two bundles, and when one number may be made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit.bench.result import LatencyReport
from edgekit.bundle.layout import CANDIDATES, LATENCY
from edgekit.bundle.open import Bundle

__all__ = ["LatencyPair", "StoredLatency", "pair_latencies", "stored_latency"]

# Of `edgekit.core.environment.environment_print`; the rest of it is about libraries, which belong to a release.
_MACHINE = ("machine", "processor", "logical_cpus", "system")


@dataclass(frozen=True)
class StoredLatency:
    """What a bundle says of the time its engine takes.

    Attributes:
        engine: Name of the candidate that ships.
        p50_ms: Median of a run, milliseconds.
        p90_ms: 90th percentile, milliseconds.
        batch: Images a run.
        threads: As asked for; 0 left the choice to the runtime.
        machine: The part of the environment's print that is about the machine.
        further: `LatencyResult.further_costs`: power, energy and memory where they were measured.
    """

    engine: str
    p50_ms: float
    p90_ms: float
    batch: int
    threads: int
    machine: Mapping[str, Any]
    further: Mapping[str, float] = field(default_factory=dict)

    @property
    def machine_words(self) -> str:
        """The machine in words."""
        return f"{self.machine.get('processor')}, {self.machine.get('logical_cpus')} CPUs, {self.machine.get('system')}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "machine": dict(self.machine), "further": dict(self.further)}


@dataclass(frozen=True)
class LatencyPair:
    """Two latencies side by side.

    Attributes:
        ratio: Newer median over older; None where they are not of one kind.
        reason: Why there is no ratio, or what the ratio is worth.
    """

    ratio: float | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return dict(vars(self))


def stored_latency(bundle: Bundle) -> StoredLatency | None:
    """The stored latency of the engine that ships; None where the bundle holds none. Raises `IntegrityError`."""
    if LATENCY not in bundle:
        return None
    report = LatencyReport.from_dict(bundle.read_json(LATENCY), where=str(bundle.path(LATENCY)))
    names = [bundle.manifest.precision]
    if CANDIDATES in bundle:
        stored = bundle.read_json(CANDIDATES)
        if isinstance(stored, Mapping):
            names.insert(0, str(stored.get("chosen")))
    for name in names:
        if name in report.results:
            result = report.results[name]
            return StoredLatency(
                engine=name,
                p50_ms=result.percentile_ms(50),
                p90_ms=result.percentile_ms(90),
                batch=report.options.batch,
                threads=report.options.threads,
                machine={key: report.environment.get(key) for key in _MACHINE},
                further=result.further_costs(),
            )
    return None


def pair_latencies(before: StoredLatency | None, after: StoredLatency | None) -> LatencyPair:
    """A ratio where it means something: one machine by its print, one batch size, one number of threads."""
    if before is None or after is None:
        return LatencyPair(None, "not both bundles hold a latency")
    if before.machine != after.machine:
        return LatencyPair(None, "measured on different machines: no ratio of these says anything about the engines")
    if (before.batch, before.threads) != (after.batch, after.threads):
        return LatencyPair(None, "measured with another batch size or number of threads")
    return LatencyPair(
        after.p50_ms / before.p50_ms,
        "medians measured at different times on machines with the same print; 'edgekit bench' measures side by side",
    )
