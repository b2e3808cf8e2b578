"""Calibration sets in the stages that use them: what was asked for is what calibrates, and it is written down."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit import api
from edgekit.calibrate.manifest import SET_NAME, CalibrationManifest, read_manifest
from edgekit.calibrate.options import CalibrateOptions
from edgekit.config.recipe import Recipe, read_recipe
from edgekit.core.canonical import read_json
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path

OPTIONS = CalibrateOptions(method="minmax", images=8)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder / "images", DemoSizes(train=64, val=40), seed=11)
    api.export(teacher_path(), folder / "images", folder / "export", recipe=Recipe())
    return folder


def calibrated(demo: Path, calib: Path, output: Path, selection: str) -> CalibrationManifest:
    recipe = Recipe(calibrate=replace(OPTIONS, selection=selection))
    api.calibrate(demo / "export", calib, output, recipe=recipe)
    found = read_manifest(output / SET_NAME)
    assert read_json(output / "calibration.json")["images"] == list(found.digests)
    return found


def test_the_selection_that_is_asked_for_calibrates(demo: Path, tmp_path: Path) -> None:
    images = demo / "images"
    found = {name: calibrated(demo, images, tmp_path / name, name) for name in ("balanced", "diverse")}
    assert {name: item.selection for name, item in found.items()} == {"balanced": "balanced", "diverse": "diverse"}
    assert all(len(item.images) == 8 for item in found.values())
    assert set(found["balanced"].digests) != set(found["diverse"].digests)


def test_a_set_that_was_written_down_calibrates_again(demo: Path, tmp_path: Path) -> None:
    first = calibrated(demo, demo / "images", tmp_path / "first", "diverse")
    shutil.copytree(demo / "images", tmp_path / "moved")
    shutil.copy(tmp_path / "first" / SET_NAME, tmp_path / "moved.json")
    again = calibrated(
        demo, shutil.copy(tmp_path / "moved.json", tmp_path / "moved" / SET_NAME), tmp_path / "again", "diverse"
    )
    assert again.digests == first.digests
    assert (tmp_path / "again/scales.json").read_bytes() == (tmp_path / "first/scales.json").read_bytes()


def test_a_build_calibrates_on_what_its_recipe_says(demo: Path, tmp_path: Path) -> None:
    recipe = read_recipe("quantise-only")
    select = replace(recipe.select, latency_runs=10)
    recipe = replace(recipe, calibrate=replace(OPTIONS, selection="diverse"), select=select)
    api.build(teacher_path(), data=demo / "images", output=tmp_path / "build", recipe=recipe)
    found = read_manifest(tmp_path / "build/stages/calibrate" / SET_NAME)
    assert found.selection == "diverse"
    assert any(item.why.startswith("farthest within class") for item in found.images)
