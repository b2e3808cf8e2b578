"""What an engine's ONNX parser can read, version by version: tables kept as data, with their source in the file.

Free of torch and onnx, so that a list of targets opens quickly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from edgekit.errors import BadInputError, DefectError

__all__ = ["Operator", "OperatorTable", "Restriction", "load_table", "table_names"]

_FORMAT = "edgekit.operators/1"
_FOLDER = "edgekit.export.operators"


@dataclass(frozen=True)
class Restriction:
    """A condition on the use of an operator.

    Attributes:
        rule: The kind, a name in `operator_rules`; "note" is for people alone and never checked.
        text: The condition in words.
        arguments: What the rule needs to know.
    """

    rule: str
    text: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Operator:
    """One line of a table.

    Attributes:
        supported: Whether the parser reads the operator at all.
        types: Element types that it takes, as "FP32"; empty where the source says none.
        restrictions: Conditions on its use.
    """

    supported: bool
    types: tuple[str, ...] = ()
    restrictions: tuple[Restriction, ...] = ()


@dataclass(frozen=True)
class OperatorTable:
    """What one version of an engine can read.

    Attributes:
        name: As a target names it: "tensorrt-8.6".
        engine: "tensorrt".
        version: Of the engine: "8.6".
        opset: Oldest and newest ONNX operator set.
        basis: How the table came to be: as published, or from which published texts.
        sources: File, commit where it is known, and heading of each text.
        cast_down: Types that the parser reads as another.
        operators: ONNX operator to what is known of it; one that is not listed is not known.
    """

    name: str
    engine: str
    version: str
    opset: tuple[int, int]
    basis: str
    sources: tuple[Mapping[str, str | None], ...]
    cast_down: Mapping[str, str]
    operators: Mapping[str, Operator]


def table_names() -> tuple[str, ...]:
    """Names of the tables, oldest version first."""
    found = [entry.name.removesuffix(".json") for entry in resources.files(_FOLDER).iterdir()]
    return tuple(sorted((name for name in found if not name.startswith("__")), key=_age))


def _age(name: str) -> tuple[str, tuple[int, ...]]:
    engine, _, version = name.partition("-")
    return engine, tuple(int(part) for part in version.split("."))


@cache
def load_table(name: str) -> OperatorTable:
    """The table called `name`.

    Raises:
        BadInputError: There is none; the message lists those there are.
    """
    if name not in table_names():
        raise BadInputError(
            f"There is no operator table called {name!r}.", expected="one of " + ", ".join(table_names())
        )
    raw = json.loads((resources.files(_FOLDER) / f"{name}.json").read_text("utf-8"))
    if raw.pop("format") != _FORMAT or name != f"{raw['engine']}-{raw['version']}":
        raise DefectError("An operator table is written wrongly.", where=name)
    operators = {
        op_type: Operator(
            supported=bool(line["supported"]),
            types=tuple(line.get("types", ())),
            restrictions=tuple(_restriction(entry) for entry in line.get("restrictions", ())),
        )
        for op_type, line in raw.pop("operators").items()
    }
    return OperatorTable(
        name=name,
        engine=raw["engine"],
        version=raw["version"],
        opset=(int(raw["opset"][0]), int(raw["opset"][1])),
        basis=raw["basis"],
        sources=tuple(MappingProxyType(source) for source in raw["sources"]),
        cast_down=MappingProxyType(raw["cast_down"]),
        operators=MappingProxyType(operators),
    )


def _restriction(entry: Mapping[str, Any]) -> Restriction:
    arguments = {key: value for key, value in entry.items() if key not in {"rule", "text"}}
    return Restriction(entry["rule"], entry["text"], MappingProxyType(arguments))
