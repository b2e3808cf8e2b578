"""Names to targets: what `--target` accepts, what a name stands for on this machine, and what is refused at once."""

from __future__ import annotations

import math
import platform

from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, DefectError, UnavailableError
from edgekit.export.operator_table import table_names
from edgekit.jetson.detect import Jetson, read_jetson
from edgekit.jetson.probe import Probe
from edgekit.targets.reading import Alias, read_alias, read_documents, read_target
from edgekit.targets.support import require_support
from edgekit.targets.target import Target, registered_engines

__all__ = [
    "Target",
    "check_target_runs_here",
    "jetson_module",
    "resolve_target",
    "target_alias",
    "target_aliases",
    "target_names",
]


def target_names() -> tuple[str, ...]:
    """Names of the device families, sorted."""
    return tuple(name for name, raw in read_documents().items() if read_target(raw) is not None)


def target_aliases() -> tuple[str, ...]:
    """Names that stand for one of several targets, sorted."""
    return tuple(name for name, raw in read_documents().items() if read_alias(raw) is not None)


def target_alias(name: str) -> Alias | None:
    """What an alias stands for, or None where `name` is no alias."""
    raw = read_documents().get(name)
    return None if raw is None else read_alias(raw)


def resolve_target(name: str, *, machine: str | None = None, probe: Probe | None = None) -> Target:
    """The target called `name`.

    Args:
        name: A device; "cpu" for this machine's processor; a family of Jetson modules, which on a Jetson is the module
            that it is and elsewhere what its modules have in common; or "jetson", which only a Jetson can answer.
        machine: What `platform.machine()` says, unless given.
        probe: Whom to ask which Jetson this is; this machine unless given.

    Raises:
        BadInputError: The name is unknown; the message lists those that are known.
        UnavailableError: The name stands for this machine's device, and no target fits this machine.
        UnavailableError: PyYAML is not installed.
    """
    documents = read_documents()
    if name not in documents:
        raise BadInputError(
            f"There is no target called {name!r}.",
            expected="one of " + ", ".join(documents),
            hint="run 'edgekit targets' to see what each is",
        )
    alias = read_alias(documents[name])
    if alias is None:
        return _named(name)
    candidates = tuple(_named(candidate) for candidate in alias.stands_for)
    if alias.decided_by == "machine":
        return _by_machine(alias, candidates, (machine or platform.machine()).lower())
    jetson = read_jetson(probe)
    found = None if jetson is None else jetson_module(jetson, candidates)
    if found is not None:
        return found
    if alias.undecided == "common":
        return _common(alias, candidates)
    raise UnavailableError(
        f"The target {name!r} stands for the Jetson that the command runs on, and "
        + ("this machine is none." if jetson is None else "which module this is cannot be told."),
        expected="one of " + ", ".join(alias.stands_for),
        found=(machine or platform.machine()) if jetson is None else _described(jetson),
        hint="name the module with --target; 'edgekit targets' lists them",
    )


def jetson_module(jetson: Jetson, candidates: tuple[Target, ...]) -> Target | None:
    """The candidate that this Jetson is, in its current power mode where that has a target of its own, or None."""
    by_name = {target.name: target for target in candidates}
    for name in (jetson.module, jetson.base_module):
        if name in by_name:
            return by_name[name]
    return None


def check_target_runs_here(
    target: Target, *, machine: str | None = None, probe: Probe | None = None, python: str | None = None
) -> None:
    """Raise where what is built for `target` could not be verified, before any work is done.

    Args:
        target: The target.
        machine: What `platform.machine()` says, unless given.
        probe: Whom to ask which Jetson this is; this machine unless given.
        python: Version of Python, this one unless given.

    Raises:
        UnavailableError: Nothing can run there; edgekit has no engine for it yet; or this machine is not of the
            target's family: its engine computes with other instructions and another number format, so maps obtained
            here would say nothing about the device.
    """
    require_support(target)
    if not registered_engines(target):
        raise UnavailableError(
            f"Building for {target.name!r} is not available yet.",
            expected="an engine called " + " or ".join(target.engines),
            found="engines of this version: " + ", ".join(ENGINES),
            hint="'edgekit export' and 'edgekit calibrate' write graph and scale table for it, and nothing is verified "
            "then; build for this machine with --target cpu",
        )
    here = (machine or platform.machine()).lower()
    if here not in target.machines:
        raise UnavailableError(
            f"A build for {target.name!r} cannot be verified on this machine.",
            expected="a machine of type " + " or ".join(target.machines),
            found=here,
            hint="run the same command on the device, or build for this machine with --target cpu",
        )
    if target.modules:
        _check_module(target, read_jetson(probe), here, python or ".".join(platform.python_version_tuple()[:2]))
    elif "tensorrt" in target.engines and (jetson := read_jetson(probe)) is not None:
        raise UnavailableError(
            f"The target {target.name!r} is for NVIDIA cards, and this is a Jetson.",
            expected="a machine with a card of its own",
            found=_described(jetson),
            hint="--target jetson stands for the Jetson that the command runs on",
        )


def _check_module(target: Target, jetson: Jetson | None, machine: str, python: str) -> None:
    names = {module.name for module in target.modules}
    if jetson is None or not names & {jetson.module, jetson.base_module}:
        raise UnavailableError(
            f"A build for {target.name!r} cannot be verified on this machine.",
            expected=" or ".join(sorted(names)),
            found=f"{machine}, no Jetson" if jetson is None else _described(jetson),
            hint="run the same command on the device; --target jetson stands for the Jetson that it runs on",
        )
    require_support(target, jetpack=jetson.jetpack, python=python)


def _described(jetson: Jetson) -> str:
    told = (jetson.module, jetson.model, jetson.part, jetson.soc)
    return ", ".join([text for text in told if text] + list(jetson.notes)) or "a Jetson that tells nothing of itself"


def _named(name: str) -> Target:
    target = read_target(read_documents().get(name, {}))
    if target is None:
        raise DefectError("A target alias stands for something that is no target.", found=name)
    return target


def _by_machine(alias: Alias, candidates: tuple[Target, ...], here: str) -> Target:
    for candidate in candidates:
        if here in candidate.machines:
            return candidate
    raise UnavailableError(
        f"The target {alias.name!r} stands for this machine's processor, which no target describes.",
        expected="one of " + ", ".join(name for candidate in candidates for name in candidate.machines),
        found=here,
        hint="name the device with --target; 'edgekit targets' lists them",
    )


def _common(alias: Alias, members: tuple[Target, ...]) -> Target:
    """What holds for every member: the oldest operator set and table, channels that suit all."""
    shared = {(member.engines, member.number_format, member.machines) for member in members}
    if len(shared) != 1:
        raise DefectError(f"The members of {alias.name!r} differ in engines, number format or machines.")
    tables = [member.operators for member in members if member.operators is not None]
    first = members[0]
    return Target(
        name=alias.name,
        title=alias.title,
        engines=first.engines,
        number_format=first.number_format,
        opset=min(member.opset for member in members),
        channel_multiple=math.lcm(*(member.channel_multiple for member in members)),
        machines=first.machines,
        status=alias.status,
        operators=min(tables, key=table_names().index) if tables else None,
        members=members,
    )
