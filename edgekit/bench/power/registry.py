"""Where power can be read on this machine: what a source is, the registry of them, and which one speaks for an engine.

A source is found by reading the machine, never by its name or model. One that is not there says why, and then nothing
is measured: there is no estimate, and no zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.core.registry import Registry
from edgekit.engines.registry import GPU_ENGINES

__all__ = [
    "POWER_SOURCES",
    "NoPowerSource",
    "PowerFinder",
    "PowerReadError",
    "PowerSource",
    "find_power_sources",
    "source_for",
    "why_no_source",
]

Part = Literal["processor", "gpu"]


class PowerReadError(Exception):
    """A sensor gave no number, or one that cannot be.

    The measurement ends, and its record says this. Never escapes `edgekit.bench`.
    """


@dataclass(frozen=True)
class PowerSource:
    """Something that can be read again and again.

    Attributes:
        name: Its name in `POWER_SOURCES`.
        scope: What is drawn from, in words: what the numbers include.
        remark: What a reader of its numbers has to know, such as that it was never run; may be empty.
        covers: Parts of a machine whose work it sees.
        unit: "watts" where a reading is a power, mean of the time since the reading before; "joules" where it is a
            counter of energy that only grows, from any start.
        period_s: Time between two readings, seconds; reading more often would say nothing new.
        read: Reads once. Raises `PowerReadError`.
    """

    name: str
    scope: str
    remark: str
    covers: frozenset[Part]
    unit: Literal["watts", "joules"]
    period_s: float
    read: Callable[[], float]


@dataclass(frozen=True)
class NoPowerSource:
    """A source that is not there.

    Attributes:
        name: Its name in `POWER_SOURCES`.
        reason: Why not, in words.
    """

    name: str
    reason: str


PowerFinder = Callable[[Path], PowerSource | NoPowerSource]
"""Looks for one source under the root of a file system, which is "/" but in tests. Raises nothing."""

POWER_SOURCES: Registry[PowerFinder] = Registry(
    "power source",
    {
        "jetson-rails": "edgekit.bench.power.jetson:find",
        "nvidia-gpu": "edgekit.bench.power.nvidia:find",
        "rapl": "edgekit.bench.power.rapl:find",
    },
)


def find_power_sources(root: Path = Path("/")) -> tuple[PowerSource | NoPowerSource, ...]:
    """Look for every registered source, in the order of their names. Each that is there has been read once."""
    return tuple(POWER_SOURCES.load(name)(root) for name in POWER_SOURCES)


def source_for(engine: str, found: Sequence[PowerSource | NoPowerSource]) -> PowerSource | None:
    """The source that speaks for an engine; None where there is none.

    A GPU's engine is not measured by the processor's counter, which would leave out most of what it takes. Of several
    the first counts, and the rails of a whole module come first.

    Args:
        engine: Registry name.
        found: What `find_power_sources` found.
    """
    part: Part = "gpu" if engine in GPU_ENGINES else "processor"
    return next((item for item in found if isinstance(item, PowerSource) and part in item.covers), None)


def why_no_source(engine: str, found: Sequence[PowerSource | NoPowerSource]) -> str:
    """Why no source speaks for an engine, in one line."""
    part = "a GPU" if engine in GPU_ENGINES else "the processor"
    reasons = [
        f"{item.name}: {item.reason}" if isinstance(item, NoPowerSource) else f"{item.name}: sees only {item.scope}"
        for item in found
    ]
    return f"no sensor here tells what an engine on {part} takes ({'; '.join(reasons)})"
