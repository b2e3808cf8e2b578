"""Target files read strictly: every key known, of its type, and none missing. A slip in them is a defect of edgekit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from edgekit.config.documents import parse_yaml
from edgekit.errors import DefectError
from edgekit.targets.target import JetsonFacts, Peak, Target

__all__ = ["Alias", "read_alias", "read_documents", "read_target"]

_FORMAT = "edgekit.target/1"
_ALIAS_FORMAT = "edgekit.target-alias/1"
_TARGET_KEYS = {
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
_TARGET_OPTIONAL = {"operators": str, "jetson": dict}
_JETSON_KEYS = {
    "soc": str,
    "compute_capability": str,
    "sms": int,
    "dla_cores": int,
    "jetpack_oldest": str,
    "jetpack_newest": str,
    "power_modes": list,
    "peaks": list,
    "unconfirmed": list,
}
_PEAK_KEYS = {"mode": str, "gpu_int8_tops": float, "dla_int8_tops": float, "bandwidth": float, "basis": str}
_PEAK_OPTIONAL = {"gpu_fp16_tops": float}
_ALIAS_KEYS = {"format": str, "name": str, "title": str, "stands_for": list, "decided_by": str, "undecided": str}
_ALIAS_OPTIONAL = {"status": str}


@dataclass(frozen=True)
class Alias:
    """A name that stands for one of several targets.

    Attributes:
        name: As `--target` takes it.
        title: For people.
        stands_for: Names of the targets.
        decided_by: "machine": the first target that the processor fits. "jetson": the module that this is.
        undecided: Where that decides nothing: "ask" refuses and names the targets, "common" takes what they share.
        status: How far the targets can be trusted; empty where they say it themselves.
    """

    name: str
    title: str
    stands_for: tuple[str, ...]
    decided_by: str
    undecided: str
    status: str = ""

    def __post_init__(self) -> None:
        for holds, what in (
            (len(self.stands_for) > 1, "stands_for"),
            (self.decided_by in {"machine", "jetson"}, "decided_by"),
            (self.undecided in {"ask", "common"}, "undecided"),
            ((self.undecided == "common") == bool(self.status), "status"),
        ):
            if not holds:
                raise DefectError(f"The target alias {self.name!r} is described wrongly: {what}.")


@cache
def read_documents() -> Mapping[str, Mapping[str, Any]]:
    """Every target file by its name without suffix, sorted, as parsed.

    Raises:
        DefectError: A file's name is not the target's, or it is of another format.
        UnavailableError: PyYAML is not installed.
    """
    found = {}
    for entry in sorted(resources.files(__package__).iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".yaml"):
            name = entry.name.removesuffix(".yaml")
            found[name] = raw = parse_yaml(entry.read_bytes(), where=f"targets/{entry.name}")
            if raw.get("name") != name or raw.get("format") not in {_FORMAT, _ALIAS_FORMAT}:
                raise DefectError("A target file is written wrongly.", where=entry.name, expected=f"name: {name}")
    return MappingProxyType(found)


def read_target(raw: Mapping[str, Any]) -> Target | None:
    """The target that a document describes, or None where it describes an alias.

    Raises:
        DefectError: A key is missing, unknown or of another type, or a value is impossible.
    """
    if raw.get("format") != _FORMAT:
        return None
    values = _checked(raw, _TARGET_KEYS, _TARGET_OPTIONAL)
    if "jetson" in values:
        values["jetson"] = _jetson(values["jetson"])
    del values["format"]
    return Target(**values)


def read_alias(raw: Mapping[str, Any]) -> Alias | None:
    """The alias that a document describes, or None where it describes a target. Raises as `read_target`."""
    if raw.get("format") != _ALIAS_FORMAT:
        return None
    values = _checked(raw, _ALIAS_KEYS, _ALIAS_OPTIONAL)
    del values["format"]
    return Alias(**values)


def _jetson(raw: Mapping[str, Any]) -> JetsonFacts:
    values = _checked(raw, _JETSON_KEYS, {}, texts=("power_modes", "unconfirmed"))
    peaks = []
    for entry in values["peaks"]:
        if not isinstance(entry, dict):
            raise DefectError("A target file is written wrongly.", expected="peaks: mappings", found=str(entry))
        peaks.append(Peak(**{"gpu_fp16_tops": None, **_checked(entry, _PEAK_KEYS, _PEAK_OPTIONAL)}))
    return JetsonFacts(**{**values, "peaks": tuple(peaks)})


def _checked(
    raw: Mapping[str, Any],
    keys: Mapping[str, type],
    optional: Mapping[str, type],
    *,
    texts: tuple[str, ...] = ("engines", "machines", "stands_for"),
) -> dict[str, Any]:
    """`raw` with lists as tuples, once its keys are `keys` and any of `optional`, each of its type."""
    kinds = {key: type(value) for key, value in raw.items()}
    wanted = {**keys, **{key: kind for key, kind in optional.items() if key in kinds}}
    if kinds != wanted or not all(isinstance(item, str) for key in texts for item in raw.get(key, ())):
        raise DefectError("A target file is written wrongly.", expected=str(wanted), found=str(kinds))
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
