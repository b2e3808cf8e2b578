"""Reading a power source again and again beside the work, and the mean power of a stretch of time made of it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from edgekit.bench.power.registry import PowerReadError, PowerSource

__all__ = ["PowerSampler", "Stretch", "mean_power", "stretches"]

# What no machine takes that edgekit runs on: beyond it a reading is a sensor's fault and no power.
_MOST_W = 5000.0


@dataclass(frozen=True)
class Stretch:
    """A piece of time whose mean power is known.

    Attributes:
        begun_s: On the clock of the sampler, seconds.
        ended_s: Later than that.
        watts: Mean power between the two.
    """

    begun_s: float
    ended_s: float
    watts: float


class PowerSampler:
    """A thread that reads one source at its period, from entering to leaving. A context manager.

    Each reading costs this process a fraction of a millisecond; that is the whole price that latencies pay for it.

    Args:
        source: What is read.
        clock: Seconds; monotonic, and one for all processes of the machine, as `time.monotonic` is.
    """

    def __init__(self, source: PowerSource, clock: Callable[[], float] = time.monotonic) -> None:
        self.source = source
        self.failure: str | None = None
        self._clock = clock
        self._readings: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"power-{source.name}", daemon=True)

    def sample(self) -> bool:
        """Read once. False when the source failed, and `failure` says how: from then on nothing counts."""
        asked = self._clock()
        try:
            value = self.source.read()
        except PowerReadError as cause:
            self.failure = str(cause)
            return False
        if not math.isfinite(value):
            self.failure = f"a reading of {value} {self.source.unit}"
            return False
        # A bus may let a reader wait; the value is of some moment in between.
        self._readings.append(((asked + self._clock()) / 2, value))
        return True

    def found(self) -> tuple[Stretch, ...]:
        """What was read so far. Raises `PowerReadError` when the source failed or said what cannot be."""
        if self.failure is not None:
            raise PowerReadError(self.failure)
        return stretches(tuple(self._readings), self.source.unit)

    def _loop(self) -> None:
        while self.sample() and not self._stop.wait(self.source.period_s):
            pass

    def __enter__(self) -> PowerSampler:
        """Begins to read."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops, and waits for the reading under way."""
        self._stop.set()
        self._thread.join()


def stretches(readings: Sequence[tuple[float, float]], unit: str) -> tuple[Stretch, ...]:
    """Readings as pieces of time with a power each.

    Of watts, each reading holds for the time since the one before. Of joules, a piece lasts from one change of the
    counter to the next: one that is renewed less often than it is read would else seem to take nothing, then twice as
    much.

    Args:
        readings: Times in seconds, growing, and values.
        unit: "watts" or "joules".

    Raises:
        PowerReadError: A power that cannot be: below zero, zero, or beyond 5 kW.
    """
    found: list[Stretch] = []
    begun: tuple[float, float] | None = None
    for at, value in readings:
        if begun is not None and at > begun[0]:
            if unit == "joules" and value == begun[1]:
                continue
            watts = value if unit == "watts" else (value - begun[1]) / (at - begun[0])
            if not 0 < watts <= _MOST_W:
                raise PowerReadError(f"a power of {watts:.6g} W, which cannot be")
            found.append(Stretch(begun[0], at, watts))
        begun = (at, value)
    # Where a counter was seen first says nothing of when it got there.
    return tuple(found[1:] if unit == "joules" else found)


def mean_power(found: Sequence[Stretch], begun_s: float, ended_s: float) -> tuple[float, int]:
    """Mean power of a time by the pieces that lie wholly inside, watts, and how many those are; (nan, 0) of none."""
    inside = [item for item in found if begun_s <= item.begun_s and item.ended_s <= ended_s]
    if not inside:
        return math.nan, 0
    energy = math.fsum(item.watts * (item.ended_s - item.begun_s) for item in inside)
    return energy / math.fsum(item.ended_s - item.begun_s for item in inside), len(inside)
