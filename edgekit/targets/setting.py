"""What a rule of the support table looks at, and what it says: a device with what runs on it, and a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgekit.jetson.releases import Release
from edgekit.targets.target import JetsonFacts, Target

__all__ = ["BINDINGS_SOURCE", "DEVICE_PYTHON", "Problem", "Rule", "Setting", "version_text"]

DEVICE_PYTHON = (3, 10)
"""The oldest Python that the device side of edgekit runs on."""

BINDINGS_SOURCE = "the Python bindings of TensorRT 8.6.1 to 11.4.0, compared"
"""Where facts about names that come and go with versions are from."""


@dataclass(frozen=True)
class Problem:
    """Something that cannot work.

    Attributes:
        rule: Name in `edgekit.targets.support.RULES`.
        what: What does not work.
        why: The reason.
        remedy: What to do instead.
        source: Where the fact comes from.
        blocks: Nothing can be built; otherwise one feature is missing.
    """

    rule: str
    what: str
    why: str
    remedy: str
    source: str
    blocks: bool


@dataclass(frozen=True)
class Setting:
    """One device with what runs on it, as far as it is known.

    Attributes:
        target: The device; not a family.
        jetpack: JetPack as it was named.
        release: What is known of that JetPack.
        python: Python of the device, major and minor.
        tensorrt: TensorRT's version; where only that of the release is known, that.
        tensorrt_named: The version was named, and is not merely what the release ships.
    """

    target: Target
    jetpack: str | None
    release: Release | None
    python: tuple[int, int] | None
    tensorrt: tuple[int, ...] | None
    tensorrt_named: bool

    @property
    def facts(self) -> JetsonFacts | None:
        """Facts about the Jetson module, None for another device."""
        return self.target.jetson

    @property
    def uses_tensorrt(self) -> bool:
        """Whether the target's engine is TensorRT."""
        return "tensorrt" in self.target.engines


Rule = Callable[[Setting], "Problem | None"]


def version_text(version: tuple[int, ...]) -> str:
    """A version as it is written: "10.3.0"."""
    return ".".join(map(str, version))
