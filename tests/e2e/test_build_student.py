"""The main job with students that are more than pruned: several steps, another network, maps at another tap."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import api
from edgekit.bundle.open import open_bundle
from edgekit.calibrate.options import CalibrateOptions
from edgekit.cli.main import run
from edgekit.compress.options import (
    CompressOptions,
    DistilOptions,
    FinetuneOptions,
    MatchingOptions,
    PruneOptions,
    SparsifyOptions,
)
from edgekit.config.recipe import Recipe, recipe_to_dict
from edgekit.core.canonical import read_json
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.errors import BadInputError, ExitCode
from edgekit.export.options import ExportOptions
from edgekit.pipeline.build import BuildRequest, plan
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.loading import load_model
from edgekit.teacher.options import GoldenOptions
from edgekit.verify.options import SelectOptions

SHORT = FinetuneOptions(epochs=1, batch_size=32, learning_rate=0.005, max_images=64)
# Its last map is 2x2. It has maps of 8x8, as the demo's teacher has, in the middle.
OTHER = CompressOptions(
    PruneOptions(rate=0), SHORT, distil=DistilOptions(student="mobilenet_v1", arguments={"width": 0.125}, weight=0.5)
)
# Somebody's network, in which nothing has the name of the teacher's tap.
CODE = """
from torch import nn

class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU(),
        )
        self.head = nn.Linear(12, classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))
"""
SMALL = "student_of_a_recipe:Small"
OWN_CODE = CompressOptions(PruneOptions(rate=0), SHORT, distil=DistilOptions(student=SMALL, weight=0.5))
COMBINED = CompressOptions(
    PruneOptions(rate=0.25, rounds=2), SHORT, distil=DistilOptions(weight=0.5), sparsify=SparsifyOptions(sparsity=0.3)
)


def recipe(compress: CompressOptions, **others: Any) -> Recipe:
    quick = {"calibrate": CalibrateOptions(images=16), "select": SelectOptions(latency_runs=5)}
    return Recipe(golden=GoldenOptions(samples=60), compress=compress, policy="lenient", **quick, **others)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "images"
    write_demo_dataset(folder, DemoSizes(train=64, val=60), seed=3)
    return folder


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "student_of_a_recipe.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "student_of_a_recipe", raising=False)


def written(folder: Path, compress: CompressOptions, **others: Any) -> Path:
    path = folder / "recipe.json"
    path.write_text(json.dumps(recipe_to_dict(recipe(compress, **others))))
    return path


def test_pruned_made_sparse_and_distilled_in_one_recipe(images: Path, tmp_path: Path) -> None:
    result = api.build(teacher_path(), data=images, output=tmp_path / "build", recipe=recipe(COMBINED))
    stage = tmp_path / "build" / "stages" / "compress"
    assert [item["name"] for item in read_json(stage / "history.json")["runs"]] == [
        "prune-1", "sparsify-1", "fine-tune"
    ]  # fmt: skip
    facts = read_json(stage / "record.json")["facts"]
    assert facts["after"]["parameters"] < facts["before"]["parameters"]
    assert facts["sparsity"]["zeros"] == round(0.3 * facts["sparsity"]["weights"])
    assert facts["last_epoch"]["distillation"] > 0
    assert load_model(stage / "student.pt").surgery is not None
    assert result.manifest.map_spec.tap == "layer3"
    assert (result.folder / "report" / "report.html").read_text().count("sparse layers") == 1
    assert not (tmp_path / "build" / "stages" / "compress.work").exists()


@pytest.mark.usefixtures("code")
def test_another_network_is_compared_with_the_teacher_at_a_tap_of_its_own(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "build"
    result = api.build(teacher_path(), data=images, output=output, recipe=recipe(OWN_CODE), student_code=SMALL)
    student = load_model(output / "stages" / "compress" / "student.pt", LoadOptions(arch=SMALL))
    assert student.arguments == {"classes": 6}
    assert student.card.classes == load_model(teacher_path()).card.classes
    assert read_json(output / "stages" / "golden" / "golden.json")["map"]["tap"] == "layer3"
    assert read_json(output / "stages" / "export" / "interface.json")["map"]["tap"] == "features"
    assert read_json(result.folder / "lineage.json")["compress"]["facts"]["student"]["arch"] == SMALL
    # The bundle tells of the network in it, and its engine still answers for the teacher's golden set.
    assert (result.manifest.card.tap, result.manifest.map_spec.tap) == ("features", "features")
    again = api.verify(result.folder)
    assert api.gate(result.folder).verdict.to_dict() == result.verdict.to_dict()
    with open_bundle(result.folder) as opened:
        golden = opened.golden()
    assert golden.map_spec.tap == "layer3"
    assert again.answers.maps.shape == golden.maps.shape
    assert np.isfinite(again.table.metrics["cosine"][again.table.compared]).all()


@pytest.mark.parametrize("dry", [True, False])
def test_maps_that_cannot_be_compared_are_refused_before_any_stage(
    images: Path, tmp_path: Path, dry: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for matching in (MatchingOptions(), MatchingOptions(loss="none")):
        path = written(tmp_path, dataclasses.replace(OTHER, matching=matching))
        command = ["build", str(teacher_path()), "--data", str(images), "--recipe", str(path), "-q"]
        command += ["--output", str(tmp_path / "build"), *(["--dry-run"] if dry else [])]
        assert run(command) == ExitCode.BAD_INPUT
        told = capsys.readouterr().err
        assert "maps of different sizes" in told
        assert "8 x 8" in told
        assert "blocks.4" in told, "what would do"
        assert not (tmp_path / "build" / "stages").exists()


def test_maps_of_pixels_need_no_tap_that_fits(images: Path, tmp_path: Path) -> None:
    export = ExportOptions(method="input-gradient")
    wanted = recipe(dataclasses.replace(OTHER, matching=MatchingOptions(loss="none")), export=export)
    checked = plan(BuildRequest(teacher_path(), images, tmp_path / "build", wanted))
    assert checked.to_dict()["compress"].startswith("a new mobilenet_v1")


def test_a_dry_run_says_what_the_student_will_be(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build", str(teacher_path()), "--data", str(images), "--recipe", str(written(tmp_path, COMBINED)), "-q"]
    assert run([*command, "--output", str(tmp_path / "build"), "--dry-run"]) == ExitCode.OK
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "prune 25% of the channels in 2 rounds, hold 30% of the weights at zero (unstructured), train 1 epochs" in told
    )


@pytest.mark.usefixtures("code")
def test_code_in_a_recipe_has_to_be_named_on_the_command_line(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(teacher_path()), "--data", str(images), "--recipe", str(written(tmp_path, OWN_CODE)), "-q"]
    given += ["--output", str(tmp_path / "out")]
    for command in ("build", "compress"):
        assert run([command, *given]) == ExitCode.BAD_INPUT
        assert f"--student-arch {SMALL}" in capsys.readouterr().err
        assert run([command, *given, "--student-arch", "cifar_resnet"]) == ExitCode.BAD_INPUT
        assert "differs from the recipe's student" in capsys.readouterr().err
    assert "student_of_a_recipe" not in sys.modules
    assert run(["build", *given, "--student-arch", SMALL, "--dry-run"]) == ExitCode.OK
    assert f"a new {SMALL}" in capsys.readouterr().out
    assert run(["compress", *given[:-1], str(tmp_path / "student"), "--student-arch", SMALL, "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["facts"]["student"]["arch"] == SMALL
    with pytest.raises(BadInputError, match="code outside edgekit"):
        api.compress(teacher_path(), images, tmp_path / "other", recipe=recipe(OWN_CODE))
