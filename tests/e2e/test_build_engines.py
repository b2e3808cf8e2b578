"""Engines that compete in a build, and what a bundle says of the one that won. Real engines, whichever are here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit import api
from edgekit.bench.options import LatencyOptions
from edgekit.bench.result import LatencyReport
from edgekit.bundle.open import open_bundle
from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions
from edgekit.config.recipe import Recipe
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.engines.registry import ENGINES
from edgekit.errors import BadInputError, UnavailableError
from edgekit.pipeline.release import BuildResult
from edgekit.targets.loader import resolve_target
from edgekit.targets.target import Target
from edgekit.teacher.options import GoldenOptions

RECIPE = Recipe(
    golden=GoldenOptions(samples=60),
    compress=CompressOptions(prune=PruneOptions(rate=0.0), finetune=FinetuneOptions(epochs=0)),
    policy="lenient",
)
QUICK = LatencyOptions(rounds=2, iterations=2, warmup=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "images"
    write_demo_dataset(folder, DemoSizes(train=60, val=80), seed=5)
    return folder


Build = Callable[..., BuildResult]


@pytest.fixture
def build(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Build for a target of this machine that has these engines, or its own."""

    def run(*engines: str, output: Path = tmp_path / "out", **options: str) -> BuildResult:
        here = resolve_target("cpu")
        wanted: Target = replace(here, engines=engines) if engines else here
        monkeypatch.setattr("edgekit.pipeline.build.resolve_target", lambda name: wanted)
        return api.build(teacher_path(), data=images, output=output, recipe=RECIPE, **options)  # type: ignore[arg-type]

    return run


def candidates(result: BuildResult) -> dict[str, tuple[str, str]]:
    return {item.candidate.name: (item.candidate.engine, item.candidate.precision) for item in result.selection.judged}


@pytest.mark.parametrize("engines", [("ort-cpu", "reference"), ("reference", "ort-cpu")])
def test_the_faster_engine_that_holds_ships(build: Build, engines: tuple[str, str]) -> None:
    result = build(*engines)
    first, second = engines
    assert candidates(result) == {
        "int8": (first, "int8"),
        "fp32": (first, "fp32"),
        f"int8-{second}": (second, "int8"),
        f"fp32-{second}": (second, "fp32"),
    }
    assert result.manifest.status == "released"
    assert (result.manifest.engine, result.manifest.precision) == candidates(result)[result.selection.chosen]
    with open_bundle(result.folder) as opened:
        timed = LatencyReport.from_dict(opened.read_json("evidence/latency.json"), where="latency.json")
        told = json.dumps(opened.read_json("report/report.json"))
    assert set(timed.results) == set(candidates(result))
    assert {name: item.engine["engine"] for name, item in timed.results.items()} == {
        name: engine for name, (engine, _) in candidates(result).items()
    }
    # What the first engine was left with gives way to what was faster in three rounds of four, and to nothing else.
    left = {}
    for item in result.selection.judged:
        if item.holds:
            left.setdefault(item.candidate.engine, item.candidate.name)
    if first in left and second in left:
        faster = timed.ratio(left[second], left[first]).quartiles[1] < 1
        assert result.selection.chosen == left[second if faster else first]
        assert f"times as long as {left[first]} here" in told
    else:
        assert result.selection.chosen in left.values()
    assert f"--engine {result.manifest.engine}" in told


def test_verify_and_bench_run_on_the_engine_that_the_bundle_names(build: Build) -> None:
    result = build("ort-cpu", "reference", engine="reference")
    assert {engine for engine, _ in candidates(result).values()} == {"reference"}
    assert result.manifest.engine == "reference"
    assert result.selection.absent == ()
    assert api.verify(result.folder).info.engine == "reference"
    report = api.bench(result.folder, options=QUICK)
    assert {item.engine["engine"] for item in report.results.values()} == {"reference"}
    assert api.gate(result.folder).outcome == "pass"


def test_an_engine_of_another_target_is_refused_before_any_work(build: Build, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="does not run on the engine 'tensorrt'") as raised:
        build(engine="tensorrt")
    assert raised.value.expected == "one of ort-cpu, openvino"
    assert not (tmp_path / "out" / "stages").exists()


def test_an_engine_that_is_not_here_is_told_of_and_changes_nothing(build: Build, tmp_path: Path) -> None:
    # No machine that runs tests has TensorRT; where one has, there is nothing to see here.
    reason = ENGINES.load("tensorrt").availability().reason
    if not reason:
        pytest.skip("TensorRT runs here")
    result = build("ort-cpu", "tensorrt")
    assert list(candidates(result)) == ["int8", "fp32"]
    assert [(item.engine, item.reason) for item in result.selection.absent] == [("tensorrt", reason)]
    stored = json.loads((result.folder / "evidence" / "candidates.json").read_text())
    assert stored["engines_absent"][0]["engine"] == "tensorrt"
    page = (result.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "The engine tensorrt did not compete" in page
    with pytest.raises(UnavailableError, match="'tensorrt' does not run here") as raised:
        build("ort-cpu", "tensorrt", engine="tensorrt", output=tmp_path / "named")
    assert reason in str(raised.value.found)


def test_an_engine_beside_the_preferred_one_that_cannot_build_the_graph_is_left_out(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = type(ENGINES.load("reference"))

    def build_artifact(self: object, *arguments: object, **options: object) -> object:
        if getattr(self, "name", "") == "reference":
            raise BadInputError("The engine cannot be built.", found="an operator it does not have")
        return original(self, *arguments, **options)

    original = engine.build
    monkeypatch.setattr(engine, "build", build_artifact)
    result = build("ort-cpu", "reference")
    assert {name for name, _ in candidates(result).values()} == {"ort-cpu"}
    (absent,) = result.selection.absent
    assert absent.engine == "reference"
    assert "an operator it does not have" in absent.reason


def test_openvino_ships_where_it_is_named(build: Build, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    result = build(engine="openvino")
    assert (result.manifest.status, result.manifest.engine) == ("released", "openvino")
    assert api.verify(result.folder).info.runtime.startswith("openvino ")
    report = api.bench(result.folder, options=QUICK)
    assert all(item.engine["engine"] == "openvino" for item in report.results.values())
    page = (result.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "OpenVINO" in page
    assert "neither TensorRT nor a GPU" in page
    # The same stages serve the competition of both engines.
    shutil.copytree(tmp_path / "out", tmp_path / "both")
    both = build(output=tmp_path / "both")
    assert set(candidates(both)) == {"int8", "fp32", "int8-openvino", "fp32-openvino"}
    assert both.manifest.engine in {"ort-cpu", "openvino"}
