"""Recipes: every value is reachable, every slip of the pen is named, and what is read is what is written back."""

from __future__ import annotations

import builtins
import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.calibrate.options import CalibrateOptions
from edgekit.compress.options import CompressOptions, MatchingOptions, PruneOptions
from edgekit.config import recipe as module
from edgekit.config.documents import parse_yaml, read_policy
from edgekit.config.recipe import (
    RECIPE_FORMAT,
    Recipe,
    compares_taps,
    read_recipe,
    recipe_from_dict,
    recipe_presets,
    recipe_to_dict,
)
from edgekit.config.schema import recipe_schema
from edgekit.core.canonical import dump_canonical
from edgekit.errors import BadInputError, UnavailableError
from edgekit.export.options import ExportOptions
from edgekit.policy.document import load_preset, preset_names

POLICY = load_preset("strict").to_dict()


def keys_of(cls: type, prefix: str = "") -> list[tuple[str, Any]]:
    """Every dotted key of a recipe and its type."""
    hints = get_type_hints(cls)
    found: list[tuple[str, Any]] = []
    for item in fields(cls):
        kind = hints[item.name]
        key = f"{prefix}{item.name}"
        found += keys_of(kind, f"{key}.") if is_dataclass(kind) else [(key, kind)]
    return found


def nested(key: str, value: object) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


KEYS = keys_of(Recipe)


@pytest.mark.parametrize("name", recipe_presets())
def test_every_preset_can_be_read(name: str) -> None:
    recipe = read_recipe(name)
    assert read_policy(recipe.policy).name in preset_names()
    assert recipe_from_dict(recipe_to_dict(recipe), where=name) == recipe


def test_the_default_preset_writes_out_every_value_and_each_is_the_default() -> None:
    recipe = read_recipe("default")
    assert recipe == Recipe()
    written = (Path(module.__file__).parent / "presets" / "default.yaml").read_bytes()
    assert keys_in(parse_yaml(written, where="default.yaml")) == {"format", *(key for key, _ in KEYS)}


def keys_in(document: dict[str, Any], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in document.items():
        found |= keys_in(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}"}
    return found


def test_the_comparison_preset_differs_in_the_matching_term_alone() -> None:
    default, without = read_recipe("default"), read_recipe("no-matching")
    assert without.compress.matching == MatchingOptions(loss="none")
    assert replace(without, compress=replace(without.compress, matching=default.compress.matching)) == default


def test_quantise_only_neither_prunes_nor_trains() -> None:
    compress = read_recipe("quantise-only").compress
    assert (compress.prune.rate, compress.finetune.epochs, compress.matching.loss) == (0, 0, "none")


def test_presets_of_compression_do_what_their_names_say() -> None:
    distil, iterative, sparse = (read_recipe(name).compress for name in ("distil", "prune-iterative", "sparse"))
    assert (distil.distil.weight, distil.distil.temperature, distil.prune.rate) == (0.9, 4, 0.5)
    assert iterative.prune.rounds > 1
    assert iterative.prune.round_epochs > 0
    assert (sparse.prune.rate, sparse.sparsify.sparsity, sparse.sparsify.pattern) == (0, 0.9, "unstructured")
    for compress in (distil, iterative, sparse):
        assert compress.matching.loss == "swa"
        assert compress.distil.student == "", "whose architecture that would be, no preset can know"


@pytest.mark.parametrize(("method", "expected"), [("grad-cam", True), ("hires-cam", True), ("input-gradient", False)])
def test_maps_of_pixels_are_on_no_tap(method: str, expected: bool) -> None:
    assert compares_taps(Recipe(export=ExportOptions(method=method))) == expected


@given(
    st.builds(
        Recipe,
        compress=st.builds(
            CompressOptions,
            prune=st.builds(PruneOptions, rate=st.floats(0, 0.99), ignore=st.lists(st.text(), max_size=3).map(tuple)),
        ),
        calibrate=st.builds(CalibrateOptions, percentile=st.floats(50.001, 100), images=st.integers(0, 10**9)),
        policy=st.sampled_from(["default", "strict", POLICY]),
    )
)
def test_writing_and_reading_give_the_same_recipe(recipe: Recipe) -> None:
    written = json.loads(dump_canonical(recipe_to_dict(recipe)))
    assert recipe_from_dict(written, where="r") == recipe


def test_a_recipe_says_only_what_differs() -> None:
    recipe = recipe_from_dict({"compress": {"prune": {"rate": 0.5}}}, where="r")
    assert recipe == Recipe(compress=CompressOptions(prune=PruneOptions(rate=0.5)))


@pytest.mark.parametrize(("key", "kind"), KEYS, ids=[key for key, _ in KEYS])
def test_a_value_of_the_wrong_type_is_named_by_its_key(key: str, kind: Any) -> None:
    wrong: list[object] = [] if type(None) in get_args(kind) else [None]
    wrong += [] if key == "policy" else [{"a": 1}]
    wrong += [3] if key == "policy" or kind is str else ["1"]
    if kind is int:
        wrong += [True, 1.5]
    if kind is bool:
        wrong += [1, "true"]
    if kind is float:
        wrong += [True]
    for value in wrong:
        with pytest.raises(BadInputError) as raised:
            recipe_from_dict(nested(key, value), where="r.yaml")
        assert f"{key}." in raised.value.message
        assert raised.value.where == "r.yaml"
        assert raised.value.found == repr(value)


@pytest.mark.parametrize("key", [key for key, _ in KEYS if key != "policy"] + ["compress", "golden"])
def test_a_misspelt_key_is_answered_with_the_right_one(key: str) -> None:
    section, _, name = key.rpartition(".")
    wrong = f"{section}.{name}x" if section else f"{name}x"
    with pytest.raises(BadInputError) as raised:
        recipe_from_dict(nested(wrong, 1), where="r.yaml")
    assert raised.value.message == f"A recipe holds an unknown key: {wrong}. Did you mean {name}?"
    assert name in str(raised.value.expected)


def test_further_mistakes_are_listed() -> None:
    with pytest.raises(BadInputError) as raised:
        recipe_from_dict({"golden": {"samples": "x"}, "export": {"methd": "grad-cam"}}, where="r")
    assert "golden.samples" in raised.value.message
    assert raised.value.hint == "also wrong: export.methd"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("golden.samples", -1),
        ("golden.max_corrupt_share", 1),
        ("compress.prune.rate", 1.0),
        ("compress.matching.loss", "swaa"),
        ("calibrate.method", "minmx"),
        ("export.method", "no-such-method"),
        ("compress.finetune.schedule", "linear"),
        ("export.parity_tolerance", 0),
        ("calibrate.percentile", 49),
        ("select.max_accuracy_drop", -0.1),
        ("select.max_latency_ratio", 0),
        ("select.latency_runs", 1),
    ],
)
def test_a_value_out_of_range_names_key_and_file(key: str, value: object) -> None:
    with pytest.raises(BadInputError) as raised:
        recipe_from_dict(nested(key, value), where="r.yaml")
    assert key.partition(".")[0] in raised.value.message
    assert raised.value.where == "r.yaml"


def test_a_section_that_is_no_section_lists_its_keys() -> None:
    with pytest.raises(BadInputError, match="prune, finetune, matching"):
        recipe_from_dict({"compress": 3}, where="r")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(BadInputError, match=RECIPE_FORMAT):
        recipe_from_dict({"format": "edgekit.recipe/99"}, where="r")


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(BadInputError) as raised:
        read_recipe("defualt")
    assert all(name in str(raised.value) for name in recipe_presets())


def test_a_preset_is_not_looked_for_among_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default").write_text("compress: {prune: {rate: 0.9}}", encoding="utf-8")
    assert read_recipe("default") == Recipe()


def test_a_policy_file_becomes_part_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "mine.json").write_text(json.dumps(POLICY), encoding="utf-8")
    path = tmp_path / "r.yaml"
    path.write_text("policy: rules/mine.json\n", encoding="utf-8")
    recipe = read_recipe(path)
    assert recipe.policy == POLICY
    assert read_policy(recipe.policy) == load_preset("strict")
    assert str(tmp_path) not in json.dumps(recipe_to_dict(recipe))


@pytest.mark.parametrize("name", preset_names())
def test_policies_are_read_by_name_by_file_and_as_they_stand(name: str, tmp_path: Path) -> None:
    preset = load_preset(name)
    path = tmp_path / "p.json"
    path.write_text(json.dumps(preset.to_dict()), encoding="utf-8")
    assert read_policy(name) == read_policy(str(path)) == read_policy(path) == read_policy(preset.to_dict()) == preset


def test_an_unknown_policy_lists_the_known_ones() -> None:
    with pytest.raises(BadInputError) as raised:
        read_policy("defualt")
    assert all(name in str(raised.value) for name in preset_names())


def test_without_pydantic_the_command_that_adds_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "pydantic":
            raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")
        return real(name, *rest)

    module.recipe_adapter.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnavailableError, match=r"edgekit\[host\]"):
        recipe_from_dict({}, where="r")


@pytest.mark.parametrize("name", recipe_presets())
def test_the_schema_accepts_what_the_reader_accepts(name: str) -> None:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(recipe_to_dict(read_recipe(name)), schema)


@pytest.mark.parametrize(
    "document", [{"compress": {"prun": {}}}, {"golden": {"samples": "many"}}, {"format": "x"}, {"policy": 3}]
)
def test_the_schema_refuses_what_the_reader_refuses(document: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, recipe_schema())
    with pytest.raises(BadInputError):
        recipe_from_dict(document, where="r")


def test_the_schema_explains_every_key() -> None:
    schema = recipe_schema()
    for node in (schema, *schema["$defs"].values()):
        assert node["description"]
        for name, value in node["properties"].items():
            assert name == "format" or value.get("description") or "$ref" in value, name
