"""One piece of work of the tables: a network, a method, a format and a number of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from calibration.methods import Method, methods
from calibration.profiles import REAL_FORMAT, Profile

__all__ = ["Unit", "all_units", "method_named", "selected_units"]

# The one calibrator of other people whose memory grows with the images, and the first to be named for it.
_THEIR_MEMORY = "ORT entropy"


@dataclass(frozen=True)
class Unit:
    """What is measured at once.

    Attributes:
        part: "scores" (scores, time and memory) or "memory" (memory alone).
        network: Of `calibration.networks`.
        method: Of `calibration.methods`.
        number_format: Of `edgekit.calibrate.formats`; for other people's tools, which have formats of their own in
            eight bits, the one they stand beside.
        images: That calibrate.
    """

    part: str
    network: str
    method: str
    number_format: str
    images: int

    @property
    def name(self) -> str:
        """For people, and for folders."""
        method = "".join(letter if letter.isalnum() else "-" for letter in self.method.lower())
        return f"{self.part}-{self.network}-{self.number_format}-{self.images}-{method}"


def method_named(name: str) -> Method:
    """The method of a unit."""
    return next(method for method in methods() if method.name == name)


def all_units(profile: Profile) -> Iterator[Unit]:
    """Everything the tables need; the real eight bits of all networks first."""
    known, count = methods(), profile.calibrated
    for number_format in profile.formats:
        # Other tools have neither six nor four bits.
        able = [method for method in known if method.ours or number_format == REAL_FORMAT]
        for network in profile.networks:
            yield from (Unit("scores", network, method.name, number_format, count) for method in able)
    for network in profile.few_networks:
        for images in profile.few:
            few = [method for method in known if method.ours or method.map_in_float]
            yield from (Unit("scores", network, method.name, REAL_FORMAT, images) for method in few)
    for method in known:
        counts = profile.memory if method.ours else profile.memory_theirs if method.name == _THEIR_MEMORY else ()
        for images in counts if profile.memory else ():
            yield Unit("memory", profile.memory_network, method.name, REAL_FORMAT, images)


def selected_units(
    profile: Profile,
    networks: Sequence[str] = (),
    formats: Sequence[str] = (),
    chosen: Sequence[str] = (),
    parts: Sequence[str] = (),
) -> tuple[Unit, ...]:
    """The units that match a pattern each way; no pattern matches all."""
    return tuple(
        unit
        for unit in dict.fromkeys(all_units(profile))
        if _matches(unit.part, parts)
        and _matches(unit.network, networks)
        and _matches(unit.number_format, formats)
        and _matches(unit.method, chosen)
    )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)
