"""JetPack releases, and what each brings: facts with their source, and no rules about them.

Here and not in YAML, because a device has to know its own release and has no YAML reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.errors import BadInputError

__all__ = ["ORIN", "RELEASES", "THOR", "XAVIER", "Release", "numbers_of", "release_named", "release_of_l4t"]

# Four numbers of a few digits: whatever is longer is not a version, and must not become an integer of megabytes.
_VERSION = re.compile(r"\d{1,4}(?:\.\d{1,6}){0,3}", re.ASCII)

XAVIER, ORIN, THOR = "tegra194", "tegra234", "tegra264"

_JETSON_STATS = "table of releases in rbonghi/jetson_stats"
_FIVE = f"{_JETSON_STATS}; TensorRT 8.5 support matrix; NVIDIA/Deep-Learning-Accelerator-SW"
_SIX = f"{_JETSON_STATS}; Torch-TensorRT documentation; dusty-nv/jetson-containers"
_SEVEN = f"{_JETSON_STATS}; users' reports of the TensorRT version"


@dataclass(frozen=True)
class Release:
    """A JetPack release, or several that bring the same.

    Attributes:
        jetpack: Its number, such as "6.2".
        l4t: Jetson Linux versions that it is made of, as "36.4.3"; "38.2" means any 38.2.x. Empty where not known.
        ubuntu: Version of the distribution.
        python: The distribution's Python, which its tensorrt module is built for.
        cuda: CUDA version.
        tensorrt: What it ships; None where no source says.
        also_tensorrt: Other TensorRT versions that NVIDIA offers for it.
        socs: Systems on chip that it runs on, as the device tree calls them.
        source: Where the facts come from.
        also_called: Later releases that bring the same.
    """

    jetpack: str
    l4t: tuple[str, ...]
    ubuntu: str
    python: tuple[int, int]
    cuda: str
    tensorrt: str | None
    also_tensorrt: tuple[str, ...]
    socs: tuple[str, ...]
    source: str
    also_called: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """For comparing releases."""
        return numbers_of(self.jetpack)


def _five(jetpack: str, *l4t: str) -> Release:
    return Release(jetpack, l4t, "20.04", (3, 8), "11.4", "8.5.2", (), (XAVIER, ORIN), _FIVE)


def _six(jetpack: str, *l4t: str) -> Release:
    return Release(jetpack, l4t, "22.04", (3, 10), "12.6", "10.3.0", ("10.7.0",), (ORIN,), _SIX)


RELEASES: tuple[Release, ...] = (
    _five("5.1", "35.2.1"),
    _five("5.1.1", "35.3.1"),
    _five("5.1.2", "35.4.1"),
    _five("5.1.3", "35.5.0"),
    _five("5.1.4", "35.6.0"),
    _five("5.1.5", "35.6.1", "35.6.2", "35.6.3"),
    _five("5.1.6", "35.6.4"),
    Release("6.0", ("36.3.0",), "22.04", (3, 10), "12.2", "8.6.2", (), (ORIN,), _FIVE),
    _six("6.1", "36.4.0", "36.4.2"),
    _six("6.2", "36.4.3"),
    _six("6.2.1", "36.4.4", "36.4.7"),
    _six("6.2.2", "36.5.0"),
    Release("7.0", ("38.2",), "24.04", (3, 12), "13.0", "10.13", (), (THOR,), _SEVEN),
    Release("7.1", ("38.4.0",), "24.04", (3, 12), "13.0", "10.13.3.9", (), (THOR,), _SEVEN),
    Release("7.2", ("39.2",), "24.04", (3, 12), "13.2.1", "10.16.2", (), (ORIN, THOR), _SEVEN, ("7.2.1",)),
    # Its Jetson Linux version and what it ships by default were not found. Of Orin modules it names AGX Orin alone.
    Release("7.2.2", (), "24.04", (3, 12), "13", None, ("11.4.1",), (ORIN, THOR), "TensorRT 11.4.1 documentation"),
)
"""Oldest first. What is older than 5.1 or was not heard of yet is not here, and is refused as unknown."""


def numbers_of(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing.

    Args:
        version: As "10.3.0".

    Raises:
        BadInputError: It is no version of up to four numbers.
    """
    if _VERSION.fullmatch(version) is None:
        raise BadInputError(
            "A version cannot be read.",
            expected="up to four numbers, as 10.3.0",
            found=repr(version[:40]),
            hint="write the version as the package manager prints it, without what follows a '-' or '+'",
        )
    return tuple(int(part) for part in version.split("."))


def release_named(jetpack: str) -> Release | None:
    """The release called `jetpack`, or None where it is not known; "6.2.0" is "6.2".

    Raises:
        BadInputError: It is no version.
    """
    wanted = _trimmed(jetpack)
    return next(
        (release for release in RELEASES if wanted in map(_trimmed, (release.jetpack, *release.also_called))), None
    )


def release_of_l4t(l4t: str) -> Release | None:
    """The release that brings this Jetson Linux, or None where no release is known to.

    Args:
        l4t: As "36.4.3".

    Raises:
        BadInputError: It is no version.
    """
    found = numbers_of(l4t)
    for release in RELEASES:
        for known in map(numbers_of, release.l4t):
            if found[: len(known)] == known or _without_zeros(found) == _without_zeros(known):
                return release
    return None


def _trimmed(version: str) -> tuple[int, ...]:
    return _without_zeros(numbers_of(version))


def _without_zeros(numbers: tuple[int, ...]) -> tuple[int, ...]:
    kept = list(numbers)
    while kept and kept[-1] == 0:
        kept.pop()
    return tuple(kept)
