"""Where the engines of a target are built: on this machine, or on the device, by a plan that this machine makes."""

from __future__ import annotations

from edgekit.engines.build import PLAN_ENGINES
from edgekit.errors import EvidenceNeededError
from edgekit.jetson.detect import read_jetson
from edgekit.jetson.probe import Probe
from edgekit.targets.support import require_support
from edgekit.targets.target import Target, registered_engines

__all__ = ["device_engine", "refuse_without_device"]


def device_engine(target: Target, *, probe: Probe | None = None) -> str | None:
    """The engine that the device has to build, or None where engines are built here or nowhere.

    A Jetson's engines run on the module that built them. Whoever is no Jetson can prepare everything but these; a
    Jetson builds for itself, and for no other.

    Args:
        target: The target.
        probe: Whom to ask which Jetson this is; this machine unless given.

    Raises:
        UnavailableError: Nothing that is built for the target can run there, wherever it is prepared.
    """
    engines = registered_engines(target)
    if not target.modules or not engines or engines[0] not in PLAN_ENGINES:
        return None
    if read_jetson(probe) is not None:
        return None
    require_support(target)
    return engines[0]


def refuse_without_device(target: Target, *, where: str) -> None:
    """Raise where a release would need an engine that only the device can build.

    Args:
        target: The target.
        where: What would be released, for the message.

    Raises:
        EvidenceNeededError: Only the device can build it.
        UnavailableError: As `device_engine`.
    """
    engine = device_engine(target)
    if engine is not None:
        raise EvidenceNeededError(
            f"A release for {target.name!r} needs evidence from the device.",
            where=where,
            expected="evidence that 'edgekit device build' wrote there",
            found=f"a machine on which the engine {engine!r} of that device cannot be built",
            hint="'edgekit build' makes a candidate for it; then 'edgekit device build' there, 'edgekit attach' here",
        )
