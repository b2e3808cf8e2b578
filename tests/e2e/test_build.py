"""The main job on the demo's teacher: released, resumed, repeated, killed, and fed what cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit import api
from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions
from edgekit.config.recipe import Recipe, recipe_to_dict
from edgekit.core.digests import digest_file, digest_path
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.pipeline.release import BuildResult
from edgekit.teacher.golden import golden as golden_stage
from edgekit.teacher.options import GoldenOptions

RECIPE = Recipe(
    golden=GoldenOptions(samples=72),
    compress=CompressOptions(
        prune=PruneOptions(rate=0.1), finetune=FinetuneOptions(epochs=1, learning_rate=0.005, max_images=256)
    ),
    policy="lenient",
)
STAGES = ("golden", "compress", "export", "calibrate", "build-int8", "verify-int8", "latency", "bundle")


class Recorder:
    """An observer that remembers which stages ran and which were skipped."""

    def __init__(self) -> None:
        self.skipped: dict[str, bool] = {}
        self.notes: list[str] = []

    def stage_started(self, stage: str) -> None:
        pass

    def stage_finished(self, stage: str, *, skipped: bool, seconds: float, summary: str) -> None:
        self.skipped[stage] = skipped

    def advanced(self, task: str, done: int, total: int | None, detail: str = "") -> None:
        pass

    def noted(self, message: str) -> None:
        self.notes.append(message)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "images"
    write_demo_dataset(folder, DemoSizes(train=300, val=90), seed=11)
    return folder


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.json"
    path.write_text(json.dumps(recipe_to_dict(RECIPE)))
    return path


@pytest.fixture(scope="module")
def built(images: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    output = tmp_path_factory.mktemp("build")
    return api.build(teacher_path(), data=images, output=output, recipe=RECIPE)


def _cli(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_a_build_ends_in_a_bundle_that_its_own_gate_accepts(built: BuildResult) -> None:
    assert built.manifest.status == "released", built.verdict.to_dict_in_words()
    assert built.folder.name == "release"
    assert api.gate(built.folder).verdict.to_dict() == built.verdict.to_dict()
    assert api.gate(built.archive).verdict.to_dict() == built.verdict.to_dict()


def test_the_engine_in_the_bundle_says_again_what_the_stored_scores_say(built: BuildResult) -> None:
    from edgekit.bundle.open import open_bundle
    from edgekit.verify.gate import bundle_scores

    again = api.verify(built.folder)
    with open_bundle(built.folder) as opened:
        stored = bundle_scores(opened, opened.golden())
    assert again.table.engine_class.tolist() == stored.engine_class.tolist()
    for name, values in stored.metrics.items():
        np.testing.assert_allclose(again.table.metrics[name], values, atol=1e-6, err_msg=name)


def test_the_shipped_bytes_are_the_verified_bytes(built: BuildResult) -> None:
    stages = built.folder.parent / "stages"
    chosen = built.selection.chosen
    record = json.loads((stages / f"verify-{chosen}" / "record.json").read_text())
    assert digest_file(built.folder / "engine" / "model.onnx") == record["inputs"]["artifact"]


def test_nothing_is_done_twice(built: BuildResult, images: Path) -> None:
    recorder = Recorder()
    again = api.build(teacher_path(), data=images, output=built.folder.parent, recipe=RECIPE, observer=recorder)
    assert recorder.skipped
    assert all(recorder.skipped.values()), recorder.skipped
    assert again.manifest == built.manifest


def test_the_same_seed_gives_the_same_bytes_elsewhere(built: BuildResult, images: Path, tmp_path: Path) -> None:
    other = api.build(teacher_path(), data=images, output=tmp_path / "other", recipe=RECIPE)
    for name in ("compress/student.pt", "export/model.onnx", "calibrate/scales.json", "calibrate/model.onnx"):
        ours, theirs = (result.folder.parent / "stages" / name for result in (built, other))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_another_policy_runs_no_training_again(built: BuildResult, images: Path) -> None:
    from dataclasses import replace

    output = built.folder.parent.parent / "policy"
    shutil.copytree(built.folder.parent, output)
    recorder = Recorder()
    strict = replace(RECIPE, policy="strict")
    result = api.build(teacher_path(), data=images, output=output, recipe=strict, observer=recorder)
    assert recorder.skipped["compress"]
    assert not recorder.skipped["verify-int8"]
    assert result.verdict.policy.name == "strict"
    # 72 samples cannot show what the strict policy demands; and what was released before must not stay standing.
    assert result.manifest.status != "released"
    assert not (output / "release").exists()
    assert not (output / "release.tar").exists()


def _comparable(output: Path) -> dict[str, str]:
    """Digests of everything that does not hold a measured time."""
    names = (
        "golden/pixels.npy",
        "golden/maps.npy",
        "compress/student.pt",
        "export/model.onnx",
        "calibrate/scales.json",
    )
    found = {name: digest_file(output / "stages" / name) for name in names}
    found |= {name: digest_file(output / "stages" / f"verify-{name}" / "scores.json") for name in ("int8", "fp32")}
    return found


@pytest.mark.slow
def test_a_kill_in_any_stage_costs_nothing_but_time(
    built: BuildResult, images: Path, recipe_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    command = [sys.executable, "-m", "edgekit", "build", teacher_path(), "--data", images, "--recipe", recipe_file]
    command += ["--output", output]
    killed = []
    for stage in STAGES:
        process = subprocess.Popen(
            [*map(str, command)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "CI": "true"},
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(f"{stage}: started"):
                process.send_signal(signal.SIGKILL)
                killed.append(stage)
                break
        process.stderr.close()
        process.wait(timeout=60)
    assert killed == list(STAGES)
    # Nothing half-written may look whole.
    assert not (output / "release" / "manifest.json").exists()
    final = _cli(*command[3:])
    assert final.returncode == 0, final.stderr
    assert _comparable(output) == _comparable(built.folder.parent)
    assert not list(output.rglob(".edgekit-partial-*"))


@pytest.fixture
def broken_teacher(tmp_path: Path) -> Iterator[Path]:
    content = torch.load(teacher_path(), weights_only=True)
    content["state_dict"]["fc.weight" if "fc.weight" in content["state_dict"] else "linear.weight"][0, 0] = torch.nan
    path = tmp_path / "nan.pt"
    torch.save(content, path)
    return path


def _bad_inputs(tmp_path: Path, images: Path) -> dict[str, tuple[list[object], int, str]]:
    """Name to arguments, exit code and a word the message must hold."""
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "model.pt"
    text.write_text("this is not a model\n")
    flat = tmp_path / "flat"
    flat.mkdir()
    for source in sorted((images / "images" / "val").glob("*.png"))[:5]:
        shutil.copy(source, flat)
    one = tmp_path / "one"
    first = sorted((images / "images" / "val").glob("*.png"))
    label = first[0].stem.split("-", 1)[1]
    (one / label).mkdir(parents=True)
    for source in [path for path in first if path.stem.endswith(label)][:5]:
        shutil.copy(source, one / label)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder is needed")
    teacher = teacher_path()
    return {
        "an empty folder": ([teacher, "--data", empty], 3, "image"),
        "one class only": ([teacher, "--data", one], 3, "one class"),
        "no labels": ([teacher, "--data", flat], 3, "label"),
        "a text file called model.pt": ([text, "--data", images], 3, "model file"),
        "a missing model": ([tmp_path / "nowhere.pt", "--data", images], 3, "no such file"),
        "an output that is a file": ([teacher, "--data", images, "--output", blocked / "out"], 3, "folder"),
        "an unknown target": ([teacher, "--data", images, "--target", "toaster"], 3, "cpu"),
        "an unknown recipe": ([teacher, "--data", images, "--recipe", "nothing"], 3, "default"),
        "an unknown option": ([teacher, "--data", images, "--frobnicate"], 2, "frobnicate"),
    }


CASES = (
    "an empty folder",
    "one class only",
    "no labels",
    "a text file called model.pt",
    "a missing model",
    "an output that is a file",
    "an unknown target",
    "an unknown recipe",
    "an unknown option",
)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_is_refused_in_words(case: str, images: Path, tmp_path: Path) -> None:
    arguments, code, word = _bad_inputs(tmp_path, images)[case]
    output = [] if "--output" in arguments else ["--output", tmp_path / "out"]
    result = _cli("build", *arguments, *output)
    assert result.returncode == code, result.stderr
    assert word in result.stderr.lower()
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "release").exists()


def test_weights_that_are_not_finite_are_refused(broken_teacher: Path, images: Path, tmp_path: Path) -> None:
    result = _cli("build", broken_teacher, "--data", images, "--output", tmp_path / "out")
    assert result.returncode == 3
    assert "not finite" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_said_and_leaves_nothing_whole(images: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        result = _cli("build", teacher_path(), "--data", images, "--output", small / "out")
        assert result.returncode == 5, result.stderr
        assert "disk is full" in result.stderr
        assert "Traceback" not in result.stderr
        assert not (small / "out" / "stages" / "golden").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_an_unwritable_output_is_refused(images: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    result = _cli("build", teacher_path(), "--data", images, "--output", locked / "out")
    assert result.returncode == 3
    assert "permission" in result.stderr.lower()


def test_without_training_images_compression_is_skipped_and_says_so(images: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held-out"
    for source in sorted((images / "images" / "val").glob("*.png")):
        folder = held_out / "val" / source.stem.split("-", 1)[1]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder)
    result = api.build(
        teacher_path(),
        data=held_out,
        calib=images / "images" / "train",
        output=tmp_path / "out",
        recipe=RECIPE,
    )
    assert "skipped" in result.records["compress"].facts
    assert result.manifest.status == "released"
    assert digest_path(result.folder / "golden")


def test_a_dry_run_builds_nothing(images: Path, tmp_path: Path) -> None:
    result = _cli("build", teacher_path(), "--data", images, "--output", tmp_path / "out", "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["images"]["train"] == 300
    assert not (tmp_path / "out" / "stages").exists()


def test_the_stages_are_functions_too() -> None:
    assert golden_stage.__name__ == "golden"
    assert {"build", "golden", "compress", "export", "calibrate", "verify", "bundle", "gate"} <= set(api.__all__)


@pytest.mark.slow
def test_the_stages_one_by_one_end_in_a_bundle_too(images: Path, recipe_file: Path, tmp_path: Path) -> None:
    stages = tmp_path / "by-hand" / "stages"
    common = ("--data", images, "--recipe", recipe_file)
    steps: list[tuple[object, ...]] = [
        ("golden", teacher_path(), *common, "-o", stages / "golden"),
        ("compress", teacher_path(), *common, "-o", stages / "compress"),
        ("export", stages / "compress" / "student.pt", *common, "-o", stages / "export"),
        (
            "calibrate",
            stages / "export",
            "--calib",
            images / "images" / "train",
            "--recipe",
            recipe_file,
            "-o",
            stages / "calibrate",
        ),
        ("bundle", tmp_path / "by-hand", "--recipe", recipe_file, "--json"),
    ]
    for step in steps:
        done = _cli(*step)
        assert done.returncode == 0, (step, done.stderr)
    told = json.loads(done.stdout)
    assert told["status"] == "released"
    assert _cli("gate", told["archive"]).returncode == 0
    assert _cli("gate", told["bundle"], "--policy", "strict").returncode in (1, 6)


def test_a_changed_byte_closes_the_gate(built: BuildResult, tmp_path: Path) -> None:
    copy = tmp_path / "release"
    shutil.copytree(built.folder, copy)
    engine = copy / "engine" / "model.onnx"
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(bytes(data))
    for command in ("gate", "verify", "bench"):
        result = _cli(command, copy)
        assert result.returncode == 4, (command, result.stderr)
        assert "Traceback" not in result.stderr
