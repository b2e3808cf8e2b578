"""What a latency measurement found: every single time, and the numbers made of them by stated definitions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import numpy as np

from edgekit.bench.options import LatencyOptions
from edgekit.bench.power.record import EnginePower, PowerNotMeasured, power_from_dict
from edgekit.engines.registry import GPU_ENGINES
from edgekit.errors import EdgekitError, IntegrityError

__all__ = ["PERCENTILES", "LatencyRatio", "LatencyReport", "LatencyResult", "percentile"]

PERCENTILES = (50, 90, 99)
_FORMAT = "edgekit.latency/1"

# Stored beside the times they are computed from, so the two may differ by rounding in another library and no more.
_RELATIVE_TOLERANCE = 1e-9


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the samples lie, interpolated linearly between the two nearest.

    With the n samples sorted and counted from 0, it stands at position `percent / 100 * (n - 1)`: definition 7 of
    Hyndman and Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996).

    Args:
        samples: At least one.
        percent: 0 to 100.
    """
    return float(np.percentile(np.asarray(samples, dtype=np.float64), percent, method="linear"))


@dataclass(frozen=True)
class LatencyResult:
    """The times of one engine.

    Attributes:
        engine: `EngineInfo.to_dict()` of what ran.
        batch: Images a run.
        rounds: Milliseconds of each timed run, one tuple a round; rounds are equally long.
        quiet: False when the engine's process kept the processor busy between its blocks, so that it may have slowed
            the engines beside it.
        peak_memory_bytes: Most memory that the engine's process held, of the processor's: interpreter, libraries,
            runtime, weights, inputs and working memory, and nothing that lies on a graphics card. None where the system
            does not tell it, and in results of before it was measured.
        power: What it took, or why that was not measured; None where nobody asked.
    """

    engine: Mapping[str, Any]
    batch: int
    rounds: tuple[tuple[float, ...], ...]
    quiet: bool
    peak_memory_bytes: int | None = None
    power: EnginePower | PowerNotMeasured | None = None

    @property
    def samples_ms(self) -> tuple[float, ...]:
        """All times, in milliseconds, in the order they were measured."""
        return tuple(sample for block in self.rounds for sample in block)

    @property
    def mean_ms(self) -> float:
        """Arithmetic mean, milliseconds."""
        return math.fsum(self.samples_ms) / len(self.samples_ms)

    @property
    def throughput(self) -> float:
        """Images a second when runs follow each other: 1000 * batch / mean."""
        return 1000.0 * self.batch / self.mean_ms

    def further_costs(self) -> dict[str, float]:
        """What was measured beside the times: "power_w", "energy_mj" (of one image) and "peak_memory_bytes".

        Only what a budget may be held against. Of a GPU's engine the memory of its process is a part of what it takes,
        and a budget must not be met by a part; the number stays in the record.
        """
        costs: dict[str, float] = {}
        if isinstance(self.power, EnginePower):
            costs |= {"power_w": self.power.power_w, "energy_mj": self.power.energy_mj}
        if self.peak_memory_bytes is not None and self.engine.get("engine") not in GPU_ENGINES:
            costs["peak_memory_bytes"] = float(self.peak_memory_bytes)
        return costs

    def in_numbers(self) -> dict[str, float]:
        """The numbers that people are told: percentiles and rate by the names "p50_ms", ..., and `further_costs`."""
        percentiles = {f"p{percent}_ms": self.percentile_ms(percent) for percent in PERCENTILES}
        return {**percentiles, "images_per_s": self.throughput, **self.further_costs()}

    def percentile_ms(self, percent: float) -> float:
        """A percentile of the times, milliseconds; see `percentile`."""
        return percentile(self.samples_ms, percent)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "engine": dict(self.engine),
            "batch": self.batch,
            "quiet": self.quiet,
            "rounds_ms": [list(block) for block in self.rounds],
            **self._derived(),
            **({} if self.peak_memory_bytes is None else {"peak_memory_bytes": self.peak_memory_bytes}),
            **({} if self.power is None else {"power": self.power.to_dict()}),
        }

    def _derived(self) -> dict[str, float]:
        return {
            **{f"p{percent}_ms": self.percentile_ms(percent) for percent in PERCENTILES},
            "mean_ms": self.mean_ms,
            "min_ms": min(self.samples_ms),
            "max_ms": max(self.samples_ms),
            "throughput": self.throughput,
        }

    @classmethod
    def from_dict(cls, raw: object, *, where: str) -> LatencyResult:
        """Read a stored result. Raises `IntegrityError` when it is malformed or its numbers contradict its times."""
        try:
            top = cast(Mapping[str, Any], raw)
            rounds = tuple(tuple(float(sample) for sample in block) for block in top["rounds_ms"])
            if type(top["batch"]) is not int or type(top["quiet"]) is not bool:
                raise TypeError("batch is a whole number, quiet true or false")
            memory, power = top.get("peak_memory_bytes"), top.get("power")
            if memory is not None and (type(memory) is not int or memory < 1):
                raise TypeError("a peak of memory is a whole number of bytes")
            result = cls(
                dict(top["engine"]),
                top["batch"],
                rounds,
                top["quiet"],
                memory,
                None if power is None else power_from_dict(power),
            )
            problem = result._problem()
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise IntegrityError("A latency result is malformed.", where=where, found=repr(cause)) from cause
        if problem is not None:
            raise IntegrityError("A latency result is malformed.", where=where, expected=problem)
        if not _close(raw, result.to_dict()):
            raise IntegrityError("A latency result contradicts its own times.", where=where)
        return result

    def _problem(self) -> str | None:
        if self.batch < 1:
            return "a batch of at least one image"
        if not self.samples_ms or len({len(block) for block in self.rounds}) != 1:
            return "rounds with times in them, equally many in each"
        if not all(math.isfinite(sample) and sample > 0 for sample in self.samples_ms):
            return "times that are positive"
        return None


@dataclass(frozen=True)
class LatencyRatio:
    """How many times as long one engine takes as another, round by round.

    Attributes:
        rounds: Median of the one over median of the other, both measured in the same round.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return percentile(self.rounds, 50)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the rounds: their spread."""
        return percentile(self.rounds, 25), percentile(self.rounds, 75)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        lower, upper = self.quartiles
        return {
            "median": self.median,
            "lower_quartile": lower,
            "upper_quartile": upper,
            "rounds": list(self.rounds),
        }


@dataclass(frozen=True)
class LatencyReport:
    """Engines measured beside each other.

    Attributes:
        results: Name to result; all have the same number of rounds.
        options: How it was measured.
        environment: `environment_print()` of the machine.
    """

    results: Mapping[str, LatencyResult]
    options: LatencyOptions
    environment: Mapping[str, Any]

    def ratio(self, numerator: str, denominator: str) -> LatencyRatio:
        """How many times as long `numerator` takes as `denominator`; above 1 when it is slower.

        The engines of one round ran within seconds of each other, so a machine that is slower for a while changes both
        and leaves their ratio alone; the ratio of two overall medians has no such protection.
        """
        pairs = zip(self.results[numerator].rounds, self.results[denominator].rounds, strict=True)
        return LatencyRatio(tuple(percentile(above, 50) / percentile(below, 50) for above, below in pairs))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form. The ratio of each pair is filed under "numerator/denominator", in alphabetical order."""
        return {
            "format": _FORMAT,
            "environment": dict(self.environment),
            "options": self.options.to_dict(),
            "engines": {name: result.to_dict() for name, result in self.results.items()},
            "ratios": {
                f"{one}/{two}": self.ratio(one, two).to_dict() for one, two in combinations(sorted(self.results), 2)
            },
        }

    @classmethod
    def from_dict(cls, raw: object, *, where: str) -> LatencyReport:
        """Read a stored report.

        Raises:
            IntegrityError: It is malformed, of another format, or its numbers contradict its times.
        """
        try:
            top = cast(Mapping[str, Any], raw)
            if top["format"] != _FORMAT:
                raise IntegrityError("A latency report has an unknown format.", where=where, expected=_FORMAT)
            report = cls(
                results={
                    name: LatencyResult.from_dict(result, where=f"{where}: {name}")
                    for name, result in top["engines"].items()
                },
                options=LatencyOptions(**top["options"]),
                environment=dict(top["environment"]),
            )
            written = report.to_dict()
            sound = set(top) == set(written) and _close(top["ratios"], written["ratios"])
        except IntegrityError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, EdgekitError) as cause:
            raise IntegrityError("A latency report is malformed.", where=where, found=repr(cause)) from cause
        if not sound:
            raise IntegrityError("A latency report contradicts its own times.", where=f"{where}: ratios")
        return report


def _close(found: Any, expected: Any) -> bool:
    """Whether two JSON documents are equal up to rounding."""
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and set(found) == set(expected)
            and all(_close(found[k], expected[k]) for k in found)
        )
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(_close, found, expected))
    if isinstance(expected, float):
        return isinstance(found, (int, float)) and math.isclose(found, expected, rel_tol=_RELATIVE_TOLERANCE)
    return bool(found == expected)
