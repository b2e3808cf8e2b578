"""Calibration sets in the stages that use them: what was asked for is what calibrates, and it is written down."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit import api
from edgekit.calibrate.manifest import SET_NAME, CalibrationManifest, read_manifest
from edgekit.calibrate.options import CalibrateOptions
from edgekit.cli.main import run
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


def test_the_command_finds_a_sets_images_where_it_is_told(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = calibrated(demo, demo / "images", tmp_path / "first", "balanced")
    written = tmp_path / "first" / SET_NAME
    moved = tmp_path / "moved"
    shutil.copytree(demo / "images", moved)
    common = ["calibrate", str(demo / "export"), "--calib", str(written), "--method", "minmax", "-q"]
    # Beside the file lie the stage's own files and no images.
    assert run([*common, "-o", str(tmp_path / "beside")]) == 3
    assert run([*common, "-o", str(tmp_path / "lost"), "--root", str(tmp_path / "absent")]) == 3
    assert str(tmp_path / "absent") in capsys.readouterr().err
    assert run([*common, "-o", str(tmp_path / "found"), "--root", str(moved)]) == 0
    assert read_manifest(tmp_path / "found" / SET_NAME) == first
    assert not (tmp_path / "beside").exists()
    assert not (tmp_path / "lost").exists()


def test_a_build_finds_them_too(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = calibrated(demo, demo / "images/images/train", tmp_path / "first", "balanced")
    # Labelled data of held-out images alone, and the set's images under another name.
    held_out, moved = tmp_path / "held-out", tmp_path / "moved"
    shutil.copytree(demo / "images", held_out)
    (held_out / "images/train").rename(moved)
    table = held_out / "labels.csv"
    rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(row for row in rows if "train" not in row), encoding="utf-8")
    build = ["build", str(teacher_path()), "--data", str(held_out), "--recipe", "quantise-only", "--dry-run", "--json"]
    build += ["-q", "-o", str(tmp_path / "build"), "--calib", str(tmp_path / "first" / SET_NAME)]
    assert run(build) == 3
    assert "--root" in capsys.readouterr().err
    assert run([*build, "--root", str(moved)]) == 0
    assert json.loads(capsys.readouterr().out)["images"]["calibration"] == len(first.images)


def test_a_build_calibrates_on_what_its_recipe_says(demo: Path, tmp_path: Path) -> None:
    recipe = read_recipe("quantise-only")
    select = replace(recipe.select, latency_runs=10)
    recipe = replace(recipe, calibrate=replace(OPTIONS, selection="diverse"), select=select)
    api.build(teacher_path(), data=demo / "images", output=tmp_path / "build", recipe=recipe)
    found = read_manifest(tmp_path / "build/stages/calibrate" / SET_NAME)
    assert found.selection == "diverse"
    assert any(item.why.startswith("farthest within class") for item in found.images)
