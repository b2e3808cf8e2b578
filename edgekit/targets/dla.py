"""Whether a target has a DLA that can be built for, and by which TensorRT: the support table's rules, asked for one."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import UnavailableError
from edgekit.targets.setting import Problem
from edgekit.targets.support import problems_of, usable_releases
from edgekit.targets.target import Target

__all__ = ["DlaSupport", "require_dla"]

_RULES = ("dla-none", "dla-version")
_BY_CACHE = "dla-qdq"


@dataclass(frozen=True)
class DlaSupport:
    """What a target's DLA can be built with.

    Attributes:
        versions: TensorRT versions of its JetPack releases that build for the DLA of every module of it.
        by_cache: Those of them whose DLA takes INT8 by a calibration cache, and no Q/DQ.
    """

    versions: tuple[str, ...]
    by_cache: tuple[str, ...]


def require_dla(target: Target, core: int) -> DlaSupport:
    """Refuse a DLA core that a target does not have, before any work.

    Args:
        target: The target, a family or one module.
        core: Number of the core.

    Raises:
        UnavailableError: A module of the target has no such core, or no JetPack of it brings a TensorRT that builds
            for the DLA.
    """
    modules = target.modules
    for module in modules or (target,):
        if not modules or module.jetson is None:
            raise _refusal(target, core, "no Jetson, and so no DLA", "leave tensorrt.dla_core (--dla) away")
        cores = module.jetson.dla_cores
        if core >= cores:
            told = next((item for item in problems_of(module) if item.rule == "dla-none"), None)
            most = max(modules, key=lambda item: item.jetson.dla_cores if item.jetson else 0)
            others = (
                f"name the module, as --target {most.name}, or " if most.jetson and core < most.jetson.dla_cores else ""
            )
            raise _refusal(
                target,
                core,
                f"{module.name} with {cores} core{'' if cores == 1 else 's'}",
                f"{others}leave tensorrt.dla_core (--dla) away" + (f" (known from: {told.source})" if told else ""),
            )
    found: dict[str, bool] = {}
    against: list[Problem] = []
    for version, problems in _versions(modules):
        of_dla = [problem for problem in problems if problem.rule in _RULES]
        against += of_dla
        if not of_dla:
            found[version] = any(problem.rule == _BY_CACHE for problem in problems)
    refused = {version for version, problems in _versions(modules) if any(item.rule in _RULES for item in problems)}
    versions = tuple(version for version in found if version not in refused)
    if not versions:
        raise _refusal(
            target,
            core,
            against[0].what if against else "no TensorRT that is known",
            against[0].remedy if against else "leave tensorrt.dla_core (--dla) away",
        )
    return DlaSupport(versions, tuple(version for version in versions if found[version]))


def _versions(modules: tuple[Target, ...]) -> list[tuple[str, tuple[Problem, ...]]]:
    return [
        (version, problems_of(module, jetpack=release.jetpack, tensorrt=version))
        for module in modules
        for release in usable_releases(module)
        for version in (release.tensorrt, *release.also_tensorrt)
        if version
    ]


def _refusal(target: Target, core: int, found: str, hint: str) -> UnavailableError:
    return UnavailableError(
        f"The target {target.name!r} cannot run on DLA core {core}.",
        where=target.title,
        expected="a Jetson module with that core and a TensorRT that builds for it",
        found=found,
        hint=hint,
    )
