"""Power beside a latency measurement: idle before, each engine in its turns, idle after."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from edgekit.bench.power.record import EnginePower, PowerNotMeasured, PowerRound
from edgekit.bench.power.registry import (
    NoPowerSource,
    PowerReadError,
    PowerSource,
    find_power_sources,
    source_for,
    why_no_source,
)
from edgekit.bench.power.sampler import PowerSampler, Stretch, mean_power

__all__ = ["LEAST_SAMPLES_A_ROUND", "PowerMonitor", "Turn"]

LEAST_SAMPLES_A_ROUND = 5
"""Readings that must lie wholly inside every round. The pieces cut at its ends are then less than a third of it, and a
round that is shorter than the sensor's time is never taken for one that was measured."""

_LEAST_IDLE_S = 1.0
_LEAST_IDLE_PERIODS = 10


@dataclass(frozen=True)
class Turn:
    """When an engine ran, on `time.monotonic`'s clock.

    Attributes:
        begun_s: Start of the first run.
        ended_s: End of the last.
        images: Answered in between.
    """

    begun_s: float
    ended_s: float
    images: int


class PowerMonitor:
    """Reads every source that speaks for one of the engines. A context manager, around everything that is measured.

    Args:
        engines: Registry names of the engines.
        find: Where sources are looked for.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        engines: Sequence[str],
        find: Callable[[], Sequence[PowerSource | NoPowerSource]] = find_power_sources,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._found = tuple(find())
        picked = {source.name: source for engine in engines if (source := source_for(engine, self._found))}
        self._samplers = {name: PowerSampler(source) for name, source in picked.items()}
        self._idle: list[tuple[float, float]] = []
        self._sleep = sleep
        self._stack = ExitStack()

    def rest(self) -> None:
        """Let the sensors see the machine without an engine, long enough to say something. No time where none reads."""
        if not self._samplers:
            return
        longest = max(sampler.source.period_s for sampler in self._samplers.values())
        begun = time.monotonic()
        self._sleep(max(_LEAST_IDLE_S, _LEAST_IDLE_PERIODS * longest))
        self._idle.append((begun, time.monotonic()))

    def result(self, engine: str, turns: Sequence[Turn]) -> EnginePower | PowerNotMeasured:
        """What an engine took in its turns; why that is not known, where it is not.

        Args:
            engine: Registry name.
            turns: One a round.
        """
        source = source_for(engine, self._found)
        if source is None:
            return PowerNotMeasured(why_no_source(engine, self._found))
        try:
            seen = self._samplers[source.name].found()
        except PowerReadError as cause:
            return PowerNotMeasured(f"{source.name}: {cause}")
        rounds = tuple(_round(seen, turn) for turn in turns)
        fewest = min(item.samples for item in rounds)
        if fewest < LEAST_SAMPLES_A_ROUND:
            shortest = min(item.seconds for item in rounds)
            return PowerNotMeasured(
                f"{source.name}: a round of {shortest:.3g} s holds {fewest} readings, one every {source.period_s:g} s, "
                f"and takes {LEAST_SAMPLES_A_ROUND} at least; rounds have to be longer "
                "(edgekit bench --round-seconds 2)"
            )
        idle = [_idle_power(seen, *span) for span in self._idle] + [None, None]
        return EnginePower(source.name, source.scope, source.remark, source.period_s, idle[0], idle[1], rounds)

    def __enter__(self) -> PowerMonitor:
        """Begins to read."""
        for sampler in self._samplers.values():
            self._stack.enter_context(sampler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops reading."""
        self._stack.close()


def _round(seen: Sequence[Stretch], turn: Turn) -> PowerRound:
    watts, samples = mean_power(seen, turn.begun_s, turn.ended_s)
    return PowerRound(turn.ended_s - turn.begun_s, turn.images, samples, watts)


def _idle_power(seen: Sequence[Stretch], begun_s: float, ended_s: float) -> float | None:
    watts, samples = mean_power(seen, begun_s, ended_s)
    return watts if samples >= LEAST_SAMPLES_A_ROUND and math.isfinite(watts) else None
