"""A build that trains with quantisation: what ships, what the runtime says of it, and what is refused at once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from qat_networks import run

from edgekit import api
from edgekit.bundle import layout
from edgekit.calibrate.graph import LOGITS, read_graph
from edgekit.calibrate.manifest import SET_NAME, read_manifest
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.scale_table import read_scales
from edgekit.cli.main import run as run_command
from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions, QatOptions
from edgekit.config.recipe import Recipe, recipe_to_dict
from edgekit.core.canonical import read_json
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.errors import BadInputError, IntegrityError
from edgekit.export.options import ExportOptions
from edgekit.pipeline.build import BuildRequest, plan
from edgekit.pipeline.folders import BuildFolders
from edgekit.pipeline.release import BuildResult
from edgekit.qat.interpreter import Interpreter, weight_names
from edgekit.qat.quantiser import Quantiser
from edgekit.targets.loader import resolve_target
from edgekit.teacher.options import GoldenOptions
from edgekit.verify.options import SelectOptions

RECIPE = Recipe(
    golden=GoldenOptions(samples=60),
    compress=CompressOptions(
        prune=PruneOptions(rate=0.1),
        finetune=FinetuneOptions(epochs=0, max_images=96, batch_size=32),
    ),
    # Chosen by their maps, and so known only once there is a graph.
    calibrate=CalibrateOptions(images=16, selection="diverse"),
    qat=QatOptions(epochs=1, learning_rate=0.005, scale_learning_rate=0.01),
    # INT8 has to ship, however slow this machine's integer kernels are just now.
    select=SelectOptions(max_latency_ratio=100.0, max_accuracy_drop=1.0, latency_runs=10),
    policy="lenient",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "images"
    write_demo_dataset(folder, DemoSizes(train=120, val=90), seed=11)
    return folder


@pytest.fixture(scope="module")
def built(images: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return api.build(teacher_path(), data=images, output=tmp_path_factory.mktemp("build"), recipe=RECIPE)


def test_what_ships_is_what_was_trained(built: BuildResult) -> None:
    folders = BuildFolders(built.folder.parent, trained_quantised=True)
    assert built.records["qat"].facts["number_format"] == resolve_target("cpu").number_format
    assert built.manifest.status == "released", built.verdict.to_dict_in_words()
    stage = folders.qat / "calibrate"
    assert digest_file(built.folder / layout.SCALES) == digest_file(stage / "scales.json")
    # The engine of ONNX Runtime is the graph itself.
    assert digest_file(built.folder / layout.MODEL) == digest_file(stage / "model.onnx")
    assert digest_file(built.folder / layout.REFERENCE) == digest_file(folders.qat / "export/model.onnx")
    assert digest_file(built.folder / layout.MODEL) != digest_file(folders.calibrate / "model.onnx")


def test_it_sees_the_images_that_calibrated(built: BuildResult) -> None:
    folders = BuildFolders(built.folder.parent, trained_quantised=True)
    chosen = read_manifest(folders.calibrate / SET_NAME)
    assert chosen.selection == "diverse"
    seen = digest_bytes("\n".join(chosen.digests).encode())
    assert built.records["qat"].inputs["parity_images"] == seen
    assert read_json(folders.qat / "export/record.json")["inputs"]["images"] == seen
    # Of the graph there was none to ask before the first export.
    assert built.records["export"].inputs["images"] != seen


def test_its_logits_are_those_of_the_rounded_network(built: BuildResult) -> None:
    folders = BuildFolders(built.folder.parent, trained_quantised=True)
    graph = read_graph(folders.final_export / "model.onnx")
    table = read_scales(folders.final_calibrate / "scales.json")
    network = Interpreter(graph, weight_names(graph), Quantiser(graph, table)).eval()
    pixels = np.random.default_rng(3).normal(0, 1, (16, *graph.input_shape)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(pixels)).numpy()
    shipped = onnx.load(built.folder / layout.MODEL)
    for optimised in (False, True):
        (found,) = run(shipped, pixels, [LOGITS], optimised=optimised)
        assert np.abs(found - wanted).max() <= np.abs(wanted).max() / 127


def test_the_report_and_the_lineage_tell_of_it(built: BuildResult) -> None:
    lineage = json.loads((built.folder / layout.LINEAGE).read_text())
    assert lineage["qat"]["facts"]["summary"] == built.records["qat"].facts["summary"]
    page = next((built.folder / "report").glob("*.html")).read_text()
    assert "trained with the rounding of the INT8 graph" in page


def test_the_ledger_has_a_hop_for_the_training(built: BuildResult) -> None:
    hops = {hop.name: hop for hop in api.blame(built.folder, build=built.folder.parent, hops_only=True).ledger.hops}
    assert list(hops)[:4] == ["teacher", "compressed", "trained", "onnx"]
    trained, graph = hops["trained"], hops["onnx"]
    assert "torch" in trained.ran_on
    assert (trained.compared_with, graph.compared_with) == ("compressed", "trained")
    # Training moved the student, and what was exported again is the student that it left.
    assert trained.against_source is not None
    assert trained.against_source.means["cosine"] < 0.99999
    assert graph.against_source is not None
    assert graph.against_source.means["cosine"] > 0.99999


def test_a_trained_student_that_was_exchanged_shows_at_the_graphs_hop(built: BuildResult, tmp_path: Path) -> None:
    build = tmp_path / "build"
    for stage in ("compress", "qat"):
        shutil.copytree(built.folder.parent / "stages" / stage, build / "stages" / stage)
    student = build / "stages/qat/student.pt"
    shutil.copy(build / "stages/compress/student.pt", student)
    with pytest.raises(IntegrityError):
        api.blame(built.folder, build=build, hops_only=True)
    # With a record that vouches for it: the training seems to have done nothing, and the graph is another network's.
    record = read_json(student.parent / "record.json")
    record["outputs"]["student.pt"] = {"sha256": digest_file(student), "size": student.stat().st_size}
    (student.parent / "record.json").write_text(json.dumps(record))
    hops = {hop.name: hop for hop in api.blame(built.folder, build=build, hops_only=True).ledger.hops}
    trained, graph = hops["trained"].against_source, hops["onnx"].against_source
    assert trained is not None
    assert graph is not None
    assert trained.means["cosine"] == pytest.approx(1, abs=1e-9)
    assert graph.means["cosine"] < 0.99999


def test_without_the_build_folder_both_students_are_named(built: BuildResult) -> None:
    hops = {hop.name: hop for hop in api.blame(built.folder, hops_only=True).ledger.hops}
    assert {hops[name].reason for name in ("compressed", "trained")} == {"give --build"}
    assert hops["onnx"].compared_with == "teacher"


def test_it_can_be_bundled_again_from_its_folder(built: BuildResult) -> None:
    again = api.bundle(built.folder.parent, recipe=RECIPE)
    assert again.manifest == built.manifest


def test_a_dry_run_lists_the_stage(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for recipe, listed in ((RECIPE, True), (replace(RECIPE, qat=QatOptions()), False)):
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(recipe_to_dict(recipe)))
        asked = ["build", teacher_path(), "--data", images, "--recipe", path, "--output", tmp_path / "out"]
        assert run_command([*map(str, asked), "--dry-run", "--json"]) == 0
        assert ("qat" in json.loads(capsys.readouterr().out)["stages"]) == listed


def test_the_stage_is_a_command(
    built: BuildResult, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the build's own folders it asks for the very same work, and so does nothing."""
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe_to_dict(RECIPE)))
    folders = BuildFolders(built.folder.parent, trained_quantised=True)
    written = (folders.qat / "record.json").stat().st_mtime_ns
    asked = ["qat", teacher_path(), "--data", images, "--recipe", path, "--output", folders.qat]
    asked += ["--student", folders.compress, "--exported", folders.export, "--calibrated", folders.calibrate]
    assert run_command([*map(str, asked), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == built.records["qat"].key
    assert (folders.qat / "record.json").stat().st_mtime_ns == written


def test_what_cannot_be_trained_is_refused_before_the_first_stage(images: Path, tmp_path: Path) -> None:
    fixed = replace(RECIPE, export=ExportOptions(batch=1))
    with pytest.raises(BadInputError, match="batches of one size alone"):
        plan(BuildRequest(teacher_path(), images, tmp_path / "out", recipe=fixed))
    held_out = tmp_path / "held-out"
    for source in sorted((images / "images" / "val").glob("*.png")):
        folder = held_out / "val" / source.stem.split("-", 1)[1]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder)
    with pytest.raises(BadInputError, match="no images to train on"):
        plan(BuildRequest(teacher_path(), held_out, tmp_path / "out", recipe=RECIPE, calib=images / "images" / "train"))
