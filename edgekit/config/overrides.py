"""Single values of a recipe that a command line says otherwise: `tensorrt.dla_core=0`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.config.documents import parse_yaml
from edgekit.config.recipe import Recipe, recipe_from_dict, recipe_to_dict
from edgekit.errors import BadInputError

__all__ = ["overridden"]

_WHERE = "--set"
_EXPECTED = "KEY=VALUE, as tensorrt.dla_core=0"


def overridden(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """A recipe with some values changed, read as strictly as a file.

    Args:
        recipe: The recipe.
        assignments: "section.key=value" each, the value as YAML; of the same key the last counts.

    Raises:
        BadInputError: No such form, an unknown key, or a value of the wrong type or out of range.
        UnavailableError: PyYAML or pydantic is not installed.
    """
    if not assignments:
        return recipe
    values = recipe_to_dict(recipe)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts) or parts == ["format"]:
            raise BadInputError(
                "A value for the recipe cannot be read.", where=_WHERE, expected=_EXPECTED, found=repr(assignment)
            )
        place: Any = values
        for part in parts[:-1]:
            place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise BadInputError(
                f"A recipe holds an unknown key: {key.strip()}.",
                where=_WHERE,
                expected=_EXPECTED,
                found=repr(assignment),
                hint="calibration/recipe.schema.json lists the keys",
            )
        place[parts[-1]] = parse_yaml(f"value: {text.strip()}".encode(), where=f"{_WHERE} {assignment}")["value"]
    return recipe_from_dict(values, where=_WHERE)
