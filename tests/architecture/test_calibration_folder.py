"""The recipes under calibration/ are read like those of users, and their schema is the one of the code."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from edgekit.config.documents import load_document, read_policy
from edgekit.config.policy_schema import policy_schema
from edgekit.config.recipe import read_recipe
from edgekit.config.schema import recipe_schema
from edgekit.images.layouts import list_labelled

FOLDER = Path(__file__).resolve().parents[2] / "calibration"
SCHEMA = FOLDER / "recipe.schema.json"
RECIPES = sorted((FOLDER / "recipes").iterdir())
POLICY_SCHEMA = FOLDER / "policy.schema.json"
POLICIES = sorted((FOLDER / "policies").iterdir())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_can_be_built_with(path: Path) -> None:
    recipe = read_recipe(path)
    assert read_policy(recipe.policy).clauses
    jsonschema.validate(load_document(path), json.loads(SCHEMA.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_explained(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert path.name in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_schema_is_that_of_the_code() -> None:
    # After a change of options: `make schema`.
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == recipe_schema()


def test_the_schema_of_policies_is_that_of_the_code() -> None:
    # After a change of clauses: `make schema`.
    assert json.loads(POLICY_SCHEMA.read_text(encoding="utf-8")) == policy_schema()


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_every_policy_is_read_and_explained(path: Path) -> None:
    policy = read_policy(path)
    assert policy.name == path.stem
    jsonschema.validate(load_document(path), json.loads(POLICY_SCHEMA.read_text(encoding="utf-8")))
    text = path.read_text(encoding="utf-8")
    # Whoever copies it is told first that its numbers are nobody's rule.
    assert "no number comes from a regulation" in " ".join(text.replace("#", " ").split())
    assert text.count("#") >= len(policy.clauses)
    assert path.name in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_example_of_an_image_set_is_read_as_one(tmp_path: Path) -> None:
    table = FOLDER / "image-sets" / "labels.example.csv"
    (tmp_path / "labels.csv").write_bytes(table.read_bytes())
    images = list_labelled(tmp_path, ("no_person", "person"))
    assert len(images) == len(table.read_text(encoding="utf-8").splitlines()) - 1
    assert {image.split for image in images} == {"train", "val"}
    # The object has a mask, its absence has none.
    assert all((image.mask is not None) == (image.label == 1) for image in images)
