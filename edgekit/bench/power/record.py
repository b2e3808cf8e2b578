"""What a power measurement found of one engine: every round, and the two numbers made of them by stated definitions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

__all__ = ["EnginePower", "PowerNotMeasured", "PowerRound", "power_from_dict"]


@dataclass(frozen=True)
class PowerRound:
    """One engine's turn, as a sensor saw it.

    Attributes:
        seconds: From the first to the end of the last run of the turn, above 0.
        images: Answered in it, 1 at least.
        samples: Readings whose whole time lay inside it, 1 at least.
        watts: Mean power over those, above 0.
    """

    seconds: float
    images: int
    samples: int
    watts: float


@dataclass(frozen=True)
class EnginePower:
    """What an engine took. Nothing is subtracted: what the scope takes without any work is in it, and told beside it.

    Attributes:
        source: Name in `edgekit.bench.power.registry.POWER_SOURCES`.
        scope: What was drawn from, in words.
        remark: What a reader has to know of the source; may be empty.
        period_s: Time between two readings, seconds.
        idle_before_w: Mean power before any engine was opened; None where too little was read.
        idle_after_w: The same after all were closed.
        rounds: One at least.
    """

    source: str
    scope: str
    remark: str
    period_s: float
    idle_before_w: float | None
    idle_after_w: float | None
    rounds: tuple[PowerRound, ...]

    @property
    def power_w(self) -> float:
        """Mean power while the engine ran, watts: every round counts for as long as it lasted."""
        return self._joules / math.fsum(item.seconds for item in self.rounds)

    @property
    def energy_mj(self) -> float:
        """Energy for one image, millijoules: that of all rounds over the images of all rounds."""
        return 1e3 * self._joules / sum(item.images for item in self.rounds)

    @property
    def _joules(self) -> float:
        return math.fsum(item.watts * item.seconds for item in self.rounds)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            **vars(self),
            "rounds": [dict(vars(item)) for item in self.rounds],
            "power_w": self.power_w,
            "energy_mj": self.energy_mj,
        }


@dataclass(frozen=True)
class PowerNotMeasured:
    """Power was asked for and not measured.

    Attributes:
        reason: Why not, in words.
    """

    reason: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"not_measured": self.reason}


def power_from_dict(raw: object) -> EnginePower | PowerNotMeasured:
    """Read a stored measurement.

    Raises:
        KeyError, TypeError, ValueError: It is malformed, or a number in it cannot be. That its two numbers follow from
            its rounds is left to the caller, who compares whole documents.
    """
    top = dict(cast(Mapping[str, Any], raw))
    if set(top) == {"not_measured"}:
        if not isinstance(top["not_measured"], str) or not top["not_measured"]:
            raise TypeError("a reason is a text")
        return PowerNotMeasured(top["not_measured"])
    stated = {key: top.pop(key) for key in ("power_w", "energy_mj")}
    found = EnginePower(**{**top, "rounds": tuple(PowerRound(**item) for item in top["rounds"])})
    if not all(isinstance(item, str) for item in (found.source, found.scope, found.remark)):
        raise TypeError("source, scope and remark are texts")
    positive = [found.period_s, *stated.values()]
    positive += [item for item in (found.idle_before_w, found.idle_after_w) if item is not None]
    for item in found.rounds:
        positive += [item.seconds, item.watts]
        if type(item.images) is not int or type(item.samples) is not int or item.images < 1 or item.samples < 1:
            raise ValueError("a round has whole numbers of images and samples, one at least")
    if not found.rounds or not all(type(item) in (int, float) and 0 < item < math.inf for item in positive):
        raise ValueError("powers, energies and times are positive numbers, and there is a round")
    return found
