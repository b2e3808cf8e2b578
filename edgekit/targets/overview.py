"""Targets as people are shown them: one line each, or one in full. Everything derives from the files and the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.engines.packages import PACKAGES, is_installed
from edgekit.errors import UnavailableError
from edgekit.jetson.probe import Probe, RecordedProbe
from edgekit.jetson.releases import numbers_of
from edgekit.targets.loader import (
    check_target_runs_here,
    resolve_target,
    target_alias,
    target_aliases,
    target_names,
)
from edgekit.targets.setting import DEVICE_PYTHON
from edgekit.targets.site import device_engine
from edgekit.targets.support import Limit, limits_of, usable_releases
from edgekit.targets.target import Target, registered_engines

__all__ = ["Line", "limit_text", "line_of", "readme_table", "target_lines", "version_range"]


@dataclass(frozen=True)
class Line:
    """A target in one line.

    Attributes:
        name: As `--target` takes it.
        title: For people.
        target: What the name stands for here; None where this machine cannot tell.
        stands_for: Its targets where the name is an alias, empty otherwise.
        jetpack: JetPack releases that can be built with, "none" where none can, "-" for what is no Jetson.
        tensorrt: TensorRT versions of these.
        dla: Cores of the deep learning accelerator, "-" for what is no Jetson.
        reason: Why this machine cannot build for it; empty where it can.
        status: How far it can be trusted.
    """

    name: str
    title: str
    target: Target | None
    stands_for: tuple[str, ...]
    jetpack: str
    tensorrt: str
    dla: str
    reason: str
    status: str

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of its engines."""
        return self.target.engines if self.target else ()

    @property
    def number_format(self) -> str:
        """How INT8 is written."""
        return self.target.number_format if self.target else "-"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, with everything that is known of the target and what cannot work."""
        plain = self.target.to_dict() if self.target else {"engines": [], "number_format": ""}
        return {
            **plain,
            "name": self.name,
            "title": self.title,
            "status": self.status,
            "stands_for": self.target.name if self.target else "",
            "candidates": list(self.stands_for),
            "jetpack": self.jetpack,
            "tensorrt": self.tensorrt,
            "dla": self.dla,
            "python": ".".join(map(str, DEVICE_PYTHON)),
            "reason": self.reason,
            "limits": [_limit_dict(limit) for limit in (limits_of(self.target) if self.target else ())],
        }


def target_lines(*, probe: Probe | None = None) -> tuple[Line, ...]:
    """Every target: names that stand for others first, each kind sorted."""
    return tuple(line_of(name, probe=probe) for name in (*target_aliases(), *target_names()))


def line_of(name: str, *, probe: Probe | None = None) -> Line:
    """One target.

    Raises:
        BadInputError: The name is unknown.
    """
    alias = target_alias(name)
    stands_for = alias.stands_for if alias else ()
    try:
        target = resolve_target(name, probe=probe)
    except UnavailableError as error:
        # The name stands for this machine's device, and there is no target for it.
        title = alias.title if alias else ""
        return Line(name, title, None, stands_for, "-", "-", "-", error.message, "depends on the device")
    reason = ""
    try:
        check_target_runs_here(target, probe=probe)
        reason = _without_package(target)
    except UnavailableError as error:
        reason = _completed_elsewhere(target, probe) or error.message
    return Line(
        name=name,
        title=alias.title if alias else target.title,
        target=target,
        stands_for=stands_for,
        jetpack=_jetpack(target),
        tensorrt=_tensorrt(target),
        dla=_dla(target),
        reason=reason,
        status=target.status,
    )


def _without_package(target: Target) -> str:
    """What is missing where no engine of the target is installed, empty otherwise."""
    engines = registered_engines(target)
    if any(is_installed(engine) for engine in engines):
        return ""
    packages = dict.fromkeys(PACKAGES[engine] for engine in engines)
    return f"{' or '.join(packages)} is not installed ('edgekit doctor' says how)"


def _completed_elsewhere(target: Target, probe: Probe | None) -> str:
    """What a build here comes to where the device has the last word; empty where there is no build here at all."""
    try:
        left = device_engine(target, probe=probe)
    except UnavailableError:
        return ""
    return "the device completes what is built here ('edgekit device build', 'edgekit attach')" if left else ""


def version_range(versions: Sequence[str]) -> str:
    """Versions as "8.6.2 to 10.16.2", "10.3.0" where there is one, "none" where there is none."""
    known = sorted(set(versions), key=numbers_of)
    if not known:
        return "none"
    return known[0] if len(known) == 1 else f"{known[0]} to {known[-1]}"


def limit_text(limit: Limit, target: Target) -> str:
    """What cannot work, as sentences: where it holds, why, and what to do instead."""
    problem = limit.problem
    where = f" (JetPack {version_range(limit.releases)})" if limit.releases else ""
    if len(target.modules) > len(limit.modules):
        where += f" on {' and '.join(limit.modules)}"
    return f"{problem.what}{where}: {problem.why}. Instead: {problem.remedy}. [{problem.source}]"


def readme_table() -> str:
    """The table of the README: every target that is no member of a family, in Markdown."""
    families = [alias for alias in map(target_alias, target_aliases()) if alias and alias.undecided == "common"]
    members = {name for family in families for name in family.stands_for}
    names = sorted({*(family.name for family in families), *target_names()} - members)
    rows = ["| `--target` | device | engine | JetPack | TensorRT | INT8 | DLA cores | status |", "|" + "---|" * 8]
    for name in names:
        # A family is what its modules have in common, whichever machine writes the README.
        line = line_of(name, probe=RecordedProbe())
        more = ", ".join(f"`{member}`" for member in line.stands_for)
        cells = (
            f"`{name}`" + (f" ({more})" if more else ""),
            line.title,
            ", ".join(line.engines),
            line.jetpack,
            line.tensorrt,
            line.number_format,
            line.dla,
            line.status,
        )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _jetpack(target: Target) -> str:
    if not target.modules:
        return "-"
    return version_range([release.jetpack for module in target.modules for release in usable_releases(module)])


def _tensorrt(target: Target) -> str:
    if target.modules:
        releases = [release for module in target.modules for release in usable_releases(module)]
        offered = [version for release in releases for version in (release.tensorrt, *release.also_tensorrt)]
        return version_range([version for version in offered if version is not None])
    return "-" if target.operators is None else f"{target.operators.rpartition('-')[2]} or later"


def _dla(target: Target) -> str:
    cores = sorted({module.jetson.dla_cores for module in target.modules if module.jetson})
    if not cores:
        return "-"
    return str(cores[0]) if len(cores) == 1 else f"{cores[0]} to {cores[-1]}"


def _limit_dict(limit: Limit) -> dict[str, Any]:
    return {**asdict(limit.problem), "modules": list(limit.modules), "releases": list(limit.releases)}
