"""The JSON schema of recipes, so that editors complete and check them while they are written."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from edgekit.config.recipe import RECIPE_FORMAT, Recipe, recipe_adapter
from edgekit.core.canonical import write_json

__all__ = ["described_attributes", "recipe_schema", "write_recipe_schema"]

_ATTRIBUTE = re.compile(r"^    (?P<name>\w+): (?P<text>.+(?:\n {8}.+)*)", re.MULTILINE)


def recipe_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe document, described by the docstrings of the options.

    Ranges are checked when a recipe is read and are named in the descriptions, not in the schema.

    Raises:
        UnavailableError: pydantic is not installed.
    """
    schema = _without_titles(recipe_adapter().json_schema())
    definitions = schema["$defs"]
    for cls in _option_classes(Recipe):
        node = schema if cls is Recipe else definitions[cls.__name__]
        node["description"] = (inspect.getdoc(cls) or "").partition("\n")[0]
        for name, text in described_attributes(cls).items():
            node["properties"][name]["description"] = text
    schema["properties"] = {"format": {"const": RECIPE_FORMAT}, **schema["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "edgekit recipe"}


def write_recipe_schema(path: Path) -> None:
    """Write the schema where editors find it: `calibration/recipe.schema.json` in the repository."""
    write_json(path, recipe_schema())


def _option_classes(cls: type) -> Iterator[type]:
    yield cls
    hints = get_type_hints(cls)
    for item in fields(cls):
        if is_dataclass(hints[item.name]):
            yield from _option_classes(hints[item.name])


def described_attributes(cls: type) -> dict[str, str]:
    """The "Attributes" section of a docstring, by attribute."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    return {match["name"]: " ".join(match["text"].split()) for match in _ATTRIBUTE.finditer(section)}


def _without_titles(node: Any) -> Any:
    # pydantic repeats each key as its own title; where a key is itself called "title", its value is a mapping.
    if isinstance(node, dict):
        return {
            key: _without_titles(child)
            for key, child in node.items()
            if not (key == "title" and isinstance(child, str))
        }
    return [_without_titles(child) for child in node] if isinstance(node, list) else node
