"""Recipes: everything a build can be told, composed of what each stage can be told, and read strictly.

A misspelt key is an error and never ignored: a build that silently used a default would answer another question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from edgekit.calibrate.options import CalibrateOptions
from edgekit.compress.options import CompressOptions, QatOptions
from edgekit.config.documents import load_document, parse_yaml
from edgekit.config.names import is_file_name
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.errors import BadInputError, UnavailableError
from edgekit.export.options import ExportOptions
from edgekit.teacher.options import GoldenOptions
from edgekit.verify.options import SelectOptions, VerifyOptions

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "RECIPE_FORMAT",
    "Recipe",
    "compares_taps",
    "read_recipe",
    "recipe_adapter",
    "recipe_from_dict",
    "recipe_presets",
    "recipe_to_dict",
]

RECIPE_FORMAT = "edgekit.recipe/1"
_PRESETS = "edgekit.config.presets"


@dataclass(frozen=True)
class Recipe:
    """How to build.

    Attributes:
        golden: How the golden set is drawn.
        compress: Pruning, fine-tuning and the term that holds the map.
        export: How the explained graph is written and checked.
        calibrate: How INT8 ranges are found.
        qat: Training with the rounding of INT8 in place.
        verify: Whether controls are verified beside the engines.
        tensorrt: How TensorRT builds and runs, here and on a device; other engines heed nothing of it.
        select: When INT8 or FP16 is worth shipping.
        policy: The tolerance: the name of a policy preset, or a policy document.
    """

    golden: GoldenOptions = field(default_factory=GoldenOptions)
    compress: CompressOptions = field(default_factory=CompressOptions)
    export: ExportOptions = field(default_factory=ExportOptions)
    calibrate: CalibrateOptions = field(default_factory=CalibrateOptions)
    qat: QatOptions = field(default_factory=QatOptions)
    verify: VerifyOptions = field(default_factory=VerifyOptions)
    tensorrt: TensorRtSettings = field(default_factory=TensorRtSettings)
    select: SelectOptions = field(default_factory=SelectOptions)
    policy: str | Mapping[str, Any] = "default"

    # Read by pydantic, here and for the dataclasses within, none of which has to know it.
    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


def recipe_presets() -> tuple[str, ...]:
    """Names of the recipes that come with edgekit, sorted."""
    names = (item.name for item in resources.files(_PRESETS).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def read_recipe(source: str | Path) -> Recipe:
    """Read a recipe file, or a preset by name.

    Args:
        source: The name of a preset, or a path: whatever holds a slash or ends in .yaml, .yml or .json. A policy that
            the file names by path, relative to itself, is read and becomes part of the recipe.

    Raises:
        BadInputError: No such file or preset; or a key is unknown, a value has the wrong type or is out of range. The
            message names the key by its dotted path.
        UnavailableError: PyYAML or pydantic is not installed.
    """
    if not is_file_name(source):
        known = recipe_presets()
        if str(source) not in known:
            raise BadInputError(
                f"There is no recipe called {str(source)!r}.",
                expected="one of " + ", ".join(known) + ", or a file ending in .yaml or .json",
            )
        name = f"{source}.yaml"
        return recipe_from_dict(
            parse_yaml(resources.files(_PRESETS).joinpath(name).read_bytes(), where=name), where=name
        )
    path = Path(source)
    raw = load_document(path)
    policy = raw.get("policy")
    if isinstance(policy, str) and is_file_name(policy):
        # Taken in here, so that the resolved recipe means the same wherever it is read.
        raw["policy"] = load_document(path.parent / policy)
    return recipe_from_dict(raw, where=str(path))


def recipe_from_dict(raw: Mapping[str, Any], *, where: str) -> Recipe:
    """Check and build a recipe from plain data. Raises like `read_recipe`."""
    values = dict(raw)
    stated = values.pop("format", RECIPE_FORMAT)
    if stated != RECIPE_FORMAT:
        raise BadInputError("A recipe has an unknown format.", where=where, expected=RECIPE_FORMAT, found=repr(stated))
    adapter = recipe_adapter()
    from pydantic import ValidationError

    try:
        # Through JSON, because pydantic's strictness about Python values refuses lists where tuples are meant.
        recipe = adapter.validate_json(json.dumps(values))
        _check_names(recipe)
    except ValidationError as cause:
        raise _explained(cause, where) from cause
    except BadInputError as cause:
        cause.where = cause.where or where
        raise
    return recipe


def _check_names(recipe: Recipe) -> None:
    """Names that the stages would look up only after minutes of work."""
    from edgekit.calibrate.calibrator import CALIBRATORS
    from edgekit.teacher.methods.registry import METHODS

    for key, name, registry in (
        ("calibrate.method", recipe.calibrate.method, CALIBRATORS.names()),
        ("export.method", recipe.export.method, METHODS.names()),
    ):
        if name not in registry:
            raise BadInputError(
                f"A recipe names nothing that is known: {key}.", expected=", ".join(registry), found=name
            )


def compares_taps(recipe: Recipe) -> bool:
    """Whether its attribution method has maps on modules, so that those of teacher and student must fit each other."""
    from edgekit.teacher.methods.registry import METHODS

    return METHODS.load(recipe.export.method).domain == "tap"


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Every value of a recipe, JSON-ready; `recipe_from_dict` reads it back."""
    plain: dict[str, Any] = json.loads(json.dumps({"format": RECIPE_FORMAT, **asdict(recipe)}, default=dict))
    return plain


@cache
def recipe_adapter() -> TypeAdapter[Recipe]:
    """Pydantic's reader of recipes. Raises `UnavailableError` where pydantic is not installed."""
    try:
        from pydantic import TypeAdapter
    except ImportError as cause:
        raise UnavailableError(
            "Reading a recipe needs the package pydantic, which is not installed.",
            hint="pip install 'edgekit[host]'",
        ) from cause
    return TypeAdapter(Recipe)


def _explained(cause: Any, where: str) -> BadInputError:
    """The first of pydantic's complaints in our words; the keys of the others as a hint."""
    complaints: dict[str, Mapping[str, Any]] = {}
    for complaint in cause.errors(include_url=False):
        location = complaint["loc"]
        # Both branches of "text or document" complain; the user wrote one value.
        key = "policy" if location[:1] == ("policy",) else ".".join(map(str, location))
        complaints.setdefault(key, complaint)
    (key, first), *others = complaints.items()
    hint = f"also wrong: {', '.join(name for name, _ in others)}" if others else None
    if key == "policy":
        return BadInputError(
            "A recipe value has the wrong type: policy.",
            where=where,
            expected="the name of a preset, a file, or a policy document",
            found=repr(first["input"]),
            hint=hint,
        )
    if first["type"] == "unexpected_keyword_argument":
        known = _keys_beside(first["loc"])
        near = get_close_matches(str(first["loc"][-1]), known, n=1)
        return BadInputError(
            f"A recipe holds an unknown key: {key}." + (f" Did you mean {near[0]}?" if near else ""),
            where=where,
            expected="one of " + ", ".join(known),
            found=str(first["loc"][-1]),
            hint=hint,
        )
    return BadInputError(
        f"A recipe value has the wrong type: {key}.",
        where=where,
        expected=_expected(first),
        found=repr(first["input"]),
        hint=hint,
    )


def _expected(complaint: Mapping[str, Any]) -> str:
    if complaint["type"] == "dataclass_type":
        return "keys: " + ", ".join(_keys_beside((*complaint["loc"], "")))
    return str(complaint["msg"]).removeprefix("Input should be ")


def _keys_beside(location: Sequence[object]) -> list[str]:
    """The keys that are accepted where the last part of `location` stands."""
    cls: Any = Recipe
    for part in location[:-1]:
        cls = get_type_hints(cls)[str(part)]
    return [item.name for item in fields(cls)] if is_dataclass(cls) else []
