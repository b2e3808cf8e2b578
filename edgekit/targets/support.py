"""The support table: whether a target can work with a JetPack, a Python and a TensorRT, asked before any work.

A rule holds for facts with a source, and for nothing that was merely never tried: that is what a target's status is
for. Sources named in the rules were read, not measured; nothing of this ran on a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgekit.errors import UnavailableError
from edgekit.jetson.releases import Release, numbers_of, release_named
from edgekit.targets.build_rules import BUILD_RULES
from edgekit.targets.feature_rules import FEATURE_RULES
from edgekit.targets.setting import Problem, Rule, Setting
from edgekit.targets.target import Target

__all__ = ["RULES", "Limit", "limits_of", "problems_of", "require_support", "usable_releases"]


RULES: Mapping[str, Rule] = MappingProxyType({**BUILD_RULES, **FEATURE_RULES})
"""Every rule by its name, those that forbid a build first."""

# What people install on a Jetson and cannot use there; a table that only judged what JetPack ships would not say so.
_TEMPTING = ("10.13.3", "11.4.0")
_OF_VERSIONS = ("tensorrt-11-jetpack", "tensorrt-of-jetpack")


@dataclass(frozen=True)
class Limit:
    """A problem, and where it holds.

    Attributes:
        problem: The problem.
        modules: Names of the targets concerned.
        releases: JetPack releases concerned; empty where it holds whatever the release.
    """

    problem: Problem
    modules: tuple[str, ...]
    releases: tuple[str, ...]


def problems_of(
    target: Target, *, jetpack: str | None = None, python: str | None = None, tensorrt: str | None = None
) -> tuple[Problem, ...]:
    """What cannot work, those that forbid a build first.

    Args:
        target: The device. Of a family, whatever any member has a problem with.
        jetpack: Release, as "6.2". Its Python and TensorRT count where they are not named.
        python: Version of Python on the device, as "3.10.12".
        tensorrt: Version of TensorRT, as "10.3.0" or "10.3.0.26".

    Raises:
        BadInputError: A version cannot be read.
    """
    found: dict[Problem, None] = {}
    for module in target.modules or (target,):
        setting = _setting(module, jetpack, python, tensorrt)
        found.update((problem, None) for rule in RULES.values() if (problem := rule(setting)) is not None)
    return tuple(sorted(found, key=lambda problem: not problem.blocks))


def _setting(target: Target, jetpack: str | None, python: str | None, tensorrt: str | None) -> Setting:
    release = None if jetpack is None else release_named(jetpack)
    named = None if tensorrt is None else numbers_of(tensorrt)
    shipped = numbers_of(release.tensorrt) if release is not None and release.tensorrt else None
    numbers = None if python is None else (*numbers_of(python), 0)
    return Setting(
        target=target,
        jetpack=jetpack,
        release=release,
        python=(numbers[0], numbers[1]) if numbers else release.python if release else None,
        tensorrt=named or shipped,
        tensorrt_named=named is not None,
    )


def usable_releases(target: Target) -> tuple[Release, ...]:
    """The JetPack releases with which one module can be built for, oldest first; empty for what is no Jetson."""
    releases = target.jetson.releases if target.jetson else ()
    return tuple(
        release
        for release in releases
        if not any(problem.blocks for problem in problems_of(target, jetpack=release.jetpack))
    )


def limits_of(target: Target) -> tuple[Limit, ...]:
    """Everything that cannot work with any JetPack of the target, once each, with the releases that it holds for."""
    limits_by: dict[Problem, tuple[dict[str, None], dict[str, None]]] = {}
    for module in target.modules or (target,):
        always = set(problems_of(module))
        for problem in always:
            limits_by.setdefault(problem, ({}, {}))[0][module.name] = None
        for release in module.jetson.releases if module.jetson else ():
            tempting = [problems_of(module, jetpack=release.jetpack, tensorrt=version) for version in _TEMPTING]
            wrong = {problem for entry in tempting for problem in entry if problem.rule in _OF_VERSIONS}
            for problem in (*problems_of(module, jetpack=release.jetpack), *sorted(wrong, key=lambda item: item.what)):
                if problem not in always:
                    modules, releases = limits_by.setdefault(problem, ({}, {}))
                    modules[module.name] = None
                    releases[release.jetpack] = None
    order = list(RULES)
    limits = [Limit(problem, tuple(modules), tuple(releases)) for problem, (modules, releases) in limits_by.items()]
    return tuple(sorted(limits, key=lambda limit: (not limit.problem.blocks, order.index(limit.problem.rule))))


def require_support(
    target: Target, *, jetpack: str | None = None, python: str | None = None, tensorrt: str | None = None
) -> None:
    """Raise where nothing can be built for `target`, whatever is done.

    Args:
        target: The device. A family is refused where every member is.
        jetpack: The device's release, where it is known; otherwise there must be one that works.
        python: As for `problems_of`.
        tensorrt: As for `problems_of`.

    Raises:
        BadInputError: A version cannot be read.
        UnavailableError: It cannot work; the message says why and what would.
    """
    reasons: list[Problem] = []
    for module in target.modules or (target,):
        known = module.jetson.releases if module.jetson else ()
        candidates = (jetpack,) if jetpack is not None or not known else tuple(release.jetpack for release in known)
        for candidate in candidates:
            blocking = [
                problem
                for problem in problems_of(module, jetpack=candidate, python=python, tensorrt=tensorrt)
                if problem.blocks
            ]
            if not blocking:
                return
            # What the newest release fails for is what is left to overcome.
            reasons = blocking
    first = reasons[0]
    raise UnavailableError(
        f"Nothing that is built for {target.name!r} can run there: {first.why}.",
        where=target.title,
        expected="a JetPack, a Python and a TensorRT that work together",
        found="; ".join(dict.fromkeys(problem.what for problem in reasons)),
        hint=f"{first.remedy} (known from: {first.source})",
    )
