"""Things timed side by side, in turns, and judged by their ratio round by round.

All of them run in one process, one block of runs at a time, so that memory, clock and neighbours are alike for all.
Threads of ONNX Runtime go on spinning for milliseconds after a run and would slow whoever runs next: before every
block the process waits until it uses no processor time any more, and the first run of a block, with cold caches, is
not counted. Who begins changes from round to round.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from edgekit.bench.worker import wait_until_quiet

__all__ = ["alternate", "spread", "times_to_dict"]

Run = Callable[[], None]
_MOST = 60


def alternate(runs: Mapping[str, Run], rounds: int, block_seconds: float = 0.08) -> dict[str, list[float]]:
    """Milliseconds of a run of each, one number a round: the median of its block.

    Args:
        runs: What is timed, by name.
        rounds: Blocks of each.
        block_seconds: How long a block lasts, roughly; it has one run at least.
    """
    counts = {name: _runs_in(run, block_seconds) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(rounds):
            for name in list(runs)[:: -1 if turn % 2 else 1]:
                wait_until_quiet()
                runs[name]()
                times[name].append(statistics.median(_timed(runs[name]) for _ in range(counts[name])) * 1e3)
    finally:
        if collecting:
            gc.enable()
    return times


def _runs_in(run: Run, seconds: float) -> int:
    run()
    taken = min(_timed(run) for _ in range(2))
    return min(max(round(seconds / taken), 1), _MOST)


def _timed(run: Run) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def spread(values: list[float], digits: int = 4) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"q1": round(low, digits), "median": round(middle, digits), "q3": round(high, digits)}


def times_to_dict(times: Mapping[str, list[float]], over: str) -> dict[str, Any]:
    """Median times, and every other one's time over that of `over`, round by round."""
    return {
        "rounds": len(times[over]),
        "median_ms": {name: round(statistics.median(values), 4) for name, values in times.items()},
        "ratio": {
            name: spread([mine / base for mine, base in zip(values, times[over], strict=True)])
            for name, values in times.items()
            if name != over
        },
    }
