"""The attribution-aware methods in the stage, on an exported network, and once from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained_graphs import ArrayImages
from exported import exported
from networks import CASES

from edgekit import api
from edgekit.attribution.spec import OWN_CLASS
from edgekit.calibrate.graph import IMAGE, PIXELS, read_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.qdq import serialise, write_qdq
from edgekit.calibrate.scale_table import read_scales
from edgekit.calibrate.stage import CALIBRATION_NAME, MODEL_NAME, CalibrateRequest, calibrate
from edgekit.cli.main import run
from edgekit.config.recipe import Recipe
from edgekit.core.canonical import read_json
from edgekit.core.digests import digest_path
from edgekit.core.stages import read_record
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.interface.card import InputSpec
from edgekit.interface.preprocess import preprocess

CASE = CASES["residual"]
SPEC = InputSpec(*CASE.side, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def photographs(count: int) -> ArrayImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *CASE.side, 3)).astype(np.uint8)
    return ArrayImages(preprocess(pixels, SPEC))


def request(folder: Path, **options: Any) -> CalibrateRequest:
    graph = folder / "fp32.onnx"
    graph.write_bytes(exported("residual", CASE.found).model.SerializeToString())
    return CalibrateRequest(graph, photographs(20), "x86-u8s8", CalibrateOptions(bins=256, **options), SPEC)


@pytest.mark.parametrize("adjust", [True, False])
@pytest.mark.parametrize("method", ["attribution-quick", "attribution"])
def test_the_stage_writes_what_its_table_says_and_an_engine_opens_it(method: str, adjust: bool, tmp_path: Path) -> None:
    wanted = request(tmp_path, method=method, adjust=adjust)
    out = tmp_path / "out"
    record = calibrate(wanted, out)
    table = read_scales(out / "scales.json")
    assert (out / MODEL_NAME).read_bytes() == serialise(write_qdq(read_graph(wanted.graph), table))
    assert table.provenance.method == method
    assert read_json(out / CALIBRATION_NAME)["method"]["parameters"]["adjust"] is adjust
    told = record.facts["method"]
    assert 0 < told["relative_drift"] <= 1
    assert told["judged_on_images_apart"] is True
    gridded = table.adjustments.input_grid is not None
    assert (PIXELS in table.activations) == gridded
    assert (IMAGE in table.activations) == (not gridded)
    if not adjust:
        assert not gridded
        assert not table.adjustments.factors
    with ENGINES.load("ort-cpu").open(out / MODEL_NAME, EngineOptions(threads=1)) as runner:
        images = wanted.images.pixels  # type: ignore[attr-defined]
        answer = runner.run(images, np.full(len(images), OWN_CLASS, dtype=np.int32))
    assert np.isfinite(answer.logits).all()
    assert np.isfinite(answer.attribution).all()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == ["out"]


def test_whether_a_graph_may_be_adjusted_is_part_of_what_was_asked_for(tmp_path: Path) -> None:
    keys = {
        calibrate(request(tmp_path, method="attribution-quick", adjust=adjust), tmp_path / "out").key
        for adjust in (True, False)
    }
    assert len(keys) == 2


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_dataset(folder / "images", DemoSizes(train=48, val=24), seed=11)
    api.export(teacher_path(), folder / "images", folder / "export", recipe=Recipe())
    return folder


def test_the_command_calibrates_by_it(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["calibrate", demo / "export", "--calib", demo / "images", "--method", "attribution-quick"]
    assert run([*map(str, command), "-o", str(tmp_path / "one")]) == 0
    shown = capsys.readouterr()
    assert "attribution-quick" in shown.out + shown.err
    table = read_scales(tmp_path / "one/scales.json")
    assert table.provenance.method == "attribution-quick"
    told = read_record(tmp_path / "one").facts["method"]
    assert told["relative_drift"] <= 1
    assert run([*map(str, command), "-o", str(tmp_path / "two"), "--quiet"]) == 0
    for name in ("scales.json", MODEL_NAME):
        assert digest_path(tmp_path / "one" / name) == digest_path(tmp_path / "two" / name)
