"""Targets: what a device family wants from a build."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import resources
from typing import Any

from edgekit.calibrate.formats import NUMBER_FORMATS
from edgekit.config.documents import parse_yaml
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, DefectError, UnavailableError
from edgekit.export.operator_table import table_names

__all__ = ["Target", "check_target_runs_here", "resolve_target", "target_aliases", "target_names"]

_FORMAT = "edgekit.target/1"
_ALIAS_FORMAT = "edgekit.target-alias/1"
_KEYS = {
    "format": str,
    "name": str,
    "title": str,
    "engines": list,
    "number_format": str,
    "opset": int,
    "channel_multiple": int,
    "machines": list,
    "status": str,
}
_OPTIONAL_KEYS = {"operators": str}


@dataclass(frozen=True)
class Target:
    """A device family.

    Attributes:
        name: As `--target` takes it.
        title: For people.
        engines: Registry names of the engines that run there, the preferred first.
        number_format: How INT8 is written, a name in `edgekit.calibrate.formats`: "x86-u8s8" (uint8 asymmetric
            activations) or "arm-s8s8" (int8 activations), int8 weights per channel in both.
        opset: ONNX opset of the graph.
        channel_multiple: Pruned layers keep a multiple of this many channels.
        machines: What `platform.machine()` says there, in lower case.
        status: How far the target can be trusted.
        operators: Name of the table of what the engine's parser can read (`edgekit.export.operator_table`); None where
            the engine reads every operator that edgekit writes.
    """

    name: str
    title: str
    engines: tuple[str, ...]
    number_format: str
    opset: int
    channel_multiple: int
    machines: tuple[str, ...]
    status: str
    operators: str | None = None

    def __post_init__(self) -> None:
        for holds, what in (
            (bool(self.engines) and all(name in ENGINES for name in self.engines), "engines"),
            (self.number_format in NUMBER_FORMATS, "number_format"),
            (self.opset >= 13, "opset"),  # the first with per-channel QuantizeLinear
            (self.channel_multiple >= 1, "channel_multiple"),
            (self.operators is None or self.operators in table_names(), "operators"),
            (bool(self.machines) and all(name == name.lower() for name in self.machines), "machines"),
        ):
            if not holds:
                raise DefectError(f"The target {self.name!r} is described wrongly: {what}.")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {**vars(self), "engines": list(self.engines), "machines": list(self.machines)}


def target_names() -> tuple[str, ...]:
    """Names of the device families, sorted."""
    return tuple(name for name, raw in _documents().items() if raw["format"] == _FORMAT)


def target_aliases() -> tuple[str, ...]:
    """Names that stand for a device family by the machine that builds, sorted."""
    return tuple(name for name, raw in _documents().items() if raw["format"] == _ALIAS_FORMAT)


def resolve_target(name: str, *, machine: str | None = None) -> Target:
    """The target called `name`.

    Args:
        name: A device family, or "cpu" for this machine's.
        machine: What `platform.machine()` says, unless given.

    Raises:
        BadInputError: The name is unknown; the message lists those that are known.
        UnavailableError: The name stands for this machine's family, and no family fits this machine.
        UnavailableError: PyYAML is not installed.
    """
    documents = _documents()
    if name not in documents:
        raise BadInputError(
            f"There is no target called {name!r}.",
            expected="one of " + ", ".join(documents),
            hint="run 'edgekit targets' to see what each is",
        )
    raw = documents[name]
    if raw["format"] == _FORMAT:
        return _target(raw)
    here = (machine or platform.machine()).lower()
    candidates = [_target(documents[candidate]) for candidate in raw["stands_for"]]
    for candidate in candidates:
        if here in candidate.machines:
            return candidate
    raise UnavailableError(
        f"The target {name!r} stands for this machine's processor, which no target describes.",
        expected="one of " + ", ".join(name for candidate in candidates for name in candidate.machines),
        found=here,
        hint="name the device with --target; 'edgekit targets' lists them",
    )


def check_target_runs_here(target: Target, *, machine: str | None = None) -> None:
    """Raise where what is built for `target` could not be verified, before any work is done.

    Raises:
        UnavailableError: This machine is not of the target's family: its engine computes with other instructions and
            another number format, so maps obtained here would say nothing about the device.
    """
    here = (machine or platform.machine()).lower()
    if here not in target.machines:
        raise UnavailableError(
            f"A build for {target.name!r} cannot be verified on this machine.",
            expected="a machine of type " + " or ".join(target.machines),
            found=here,
            hint=f"run the same command on the device, or build for this machine with --target {_alias_for(target)}",
        )


def _alias_for(target: Target) -> str:
    return next(name for name in target_aliases() if target.name in _documents()[name]["stands_for"])


def _documents() -> dict[str, dict[str, Any]]:
    folder = resources.files(__package__)
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            raw = parse_yaml(entry.read_bytes(), where=f"targets/{entry.name}")
            found[entry.name.removesuffix(".yaml")] = raw
    return found


def _target(raw: dict[str, Any]) -> Target:
    kinds = {key: type(value) for key, value in raw.items()}
    optional = {key: kind for key, kind in _OPTIONAL_KEYS.items() if key in kinds}
    if kinds != _KEYS | optional:
        raise DefectError("A target file is written wrongly.", expected=str(_KEYS | optional), found=str(kinds))
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    del fields["format"]
    return Target(**fields)
