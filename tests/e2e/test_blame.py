"""`edgekit blame` on a build of the demo's teacher: every hop, and an exclude list that the next build takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit import api
from edgekit.calibrate.options import CalibrateOptions
from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions
from edgekit.config.recipe import Recipe, read_recipe
from edgekit.core.canonical import read_json
from edgekit.core.digests import digest_file
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.pipeline.release import BuildResult
from edgekit.teacher.options import GoldenOptions
from edgekit.verify.options import SelectOptions

ROOT = Path(__file__).resolve().parents[2]
# INT8 has to ship for there to be anything to blame, however slow this machine's integer kernels are.
RECIPE = Recipe(
    golden=GoldenOptions(samples=48),
    compress=CompressOptions(
        prune=PruneOptions(rate=0.1), finetune=FinetuneOptions(epochs=1, learning_rate=0.005, max_images=128)
    ),
    calibrate=CalibrateOptions(method="minmax", images=32),
    select=SelectOptions(max_latency_ratio=100.0, max_accuracy_drop=1.0, latency_runs=10),
    policy="lenient",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "images"
    write_demo_dataset(folder, DemoSizes(train=160, val=60), seed=11)
    return folder


@pytest.fixture(scope="module")
def built(images: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return api.build(teacher_path(), data=images, output=tmp_path_factory.mktemp("build") / "out", recipe=RECIPE)


def _blame(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit", "blame", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_every_hop_is_measured_and_the_list_is_taken_by_the_next_build(
    built: BuildResult, images: Path, tmp_path: Path
) -> None:
    assert built.manifest.precision == "int8"
    out = tmp_path / "blame"
    done = _blame(built.archive, "--build", built.folder.parent, "--exclude-worst", 3, "--per-class", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "worst first by overall" in done.stdout
    document = read_json(out / "blame.json")
    hops = {hop["name"]: hop for hop in document["ledger"]["hops"]}
    assert all(hop["against_teacher"] is not None for name, hop in hops.items() if name != "teacher")
    # Torch and ONNX Runtime agree on the same student; what differs from the teacher is the student.
    assert hops["onnx"]["against_source"]["means"]["cosine"] > 0.9999
    assert hops["compressed"]["against_teacher"]["means"]["cosine"] < 0.9999
    modules = {item["module"] for item in document["blame"]["tensors"]}
    assert {"layer1.0", "layer1.0.bn2"} <= modules

    recipe = read_recipe(out / "recipe.json")
    excluded = list(recipe.calibrate.exclude)
    assert excluded == document["exclusion"]["exclude"]
    again = api.build(teacher_path(), data=images, output=tmp_path / "again", recipe=recipe)
    assert again.records["compress"].key == built.records["compress"].key
    ours, theirs = (set(read_json(each.folder / "scales.json")["weights"]) for each in (built, again))
    assert theirs < ours
    for step in document["exclusion"]["steps"]:
        assert step["unit"] not in read_json(again.folder / "scales.json")["activations"]
        assert step["unit"] not in theirs
    second = api.blame(again.folder)
    assert second.blame is not None
    said = document["exclusion"]["steps"][-1]["left"]["cosine"]["mean"]
    before = document["blame"]["together"]["cosine"]["mean"]
    assert second.blame.together["cosine"].mean < before
    assert second.blame.together["cosine"].mean == pytest.approx(said, rel=0.2)


def test_a_student_that_was_exchanged_is_found(built: BuildResult, tmp_path: Path) -> None:
    build = tmp_path / "build"
    shutil.copytree(built.folder.parent / "stages" / "compress", build / "stages" / "compress")
    student = build / "stages" / "compress" / "student.pt"
    shutil.copy(teacher_path(), student)
    done = _blame(built.folder, "--build", build, "--hops-only", "-o", tmp_path / "out")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    # With a record that vouches for it, it is a hop like any other, and the graph differs from it.
    record = json.loads((student.parent / "record.json").read_text())
    record["outputs"]["student.pt"] = {"sha256": digest_file(student), "size": student.stat().st_size}
    (student.parent / "record.json").write_text(json.dumps(record))
    done = _blame(built.folder, "--build", build, "--hops-only", "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    hops = {hop["name"]: hop for hop in json.loads(done.stdout)["ledger"]["hops"]}
    assert hops["compressed"]["against_teacher"]["means"]["cosine"] > 0.9999
    assert hops["onnx"]["against_source"]["means"]["cosine"] < 0.9999


def test_a_bundle_of_an_older_edgekit_can_be_blamed(tmp_path: Path) -> None:
    done = _blame(ROOT / "tests" / "golden" / "bundle-1.tar", "--samples", 12, "-o", tmp_path / "out", "-q")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "blame.html").is_file()
