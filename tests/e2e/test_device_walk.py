"""The whole walk on a small network: host, device, attach, gate. The device is a stand-in, and says that it is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from device_candidates import device_stand_in, run_on_device
from tensorrt_stand_ins import PAIRS

from edgekit.bundle import layout
from edgekit.bundle.open import open_bundle
from edgekit.calibrate.options import CalibrateOptions
from edgekit.cli.main import run
from edgekit.compress.options import CompressOptions, FinetuneOptions, PruneOptions
from edgekit.config.recipe import Recipe, recipe_to_dict
from edgekit.demo.dataset import DemoSizes, write_demo_dataset
from edgekit.demo.network import teacher_path
from edgekit.engines.tensorrt.status import NEVER_RUN
from edgekit.teacher.options import GoldenOptions
from edgekit.verify.options import SelectOptions

RECIPE = Recipe(
    golden=GoldenOptions(samples=64),
    compress=CompressOptions(prune=PruneOptions(rate=0.0), finetune=FinetuneOptions(epochs=0)),
    calibrate=CalibrateOptions(images=32),
    # A stand-in's times mean nothing: the choice must not hang on them.
    select=SelectOptions(latency_runs=5, max_latency_ratio=1000.0, max_accuracy_drop=1.0),
    policy="lenient",
)


def test_host_device_attach_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, recipe, build = tmp_path / "images", tmp_path / "recipe.json", tmp_path / "build"
    write_demo_dataset(images, DemoSizes(train=60, val=80), seed=5)
    recipe.write_text(json.dumps(recipe_to_dict(RECIPE)))
    words = ["build", str(teacher_path()), "--target", "jetson-orin-nano", "--data", str(images)]
    words += ["--recipe", str(recipe), "--output", str(build), "--quiet"]

    assert run([*words, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["for_device"] is True
    assert planned["engines"] == ["tensorrt"]
    assert planned["stages"][-2:] == ["rehearsal", "bundle"]

    # The host: complete, and not a release.
    assert run(words) == 6
    said = capsys.readouterr()
    assert "unverified: needs device evidence" in said.out
    assert "says nothing of TensorRT" in said.out
    assert NEVER_RUN in said.err
    candidate = build / "device-candidate.tar"
    assert not (build / "release").exists()
    assert run(["gate", str(candidate)]) == 6
    assert "edgekit device build" in capsys.readouterr().err
    assert run(["verify", str(candidate), "--quiet"]) == 6
    assert run(["bundle", str(build), "--target", "jetson-orin-nano", "--recipe", str(recipe), "--quiet"]) == 6
    assert run(["inspect", str(candidate)]) == 0
    capsys.readouterr()

    # Not the device: this machine has neither TensorRT nor a Jetson.
    assert run(["device", "build", str(candidate), "--output", str(tmp_path / "none"), "--quiet"]) == 5
    assert not (tmp_path / "none" / "evidence.json").exists()
    capsys.readouterr()

    # The device.
    with device_stand_in(*PAIRS[2], monkeypatch, tmp_path):
        evidence = run_on_device(candidate, tmp_path / "evidence")
    assert evidence.notice == NEVER_RUN
    int8 = evidence.candidates["int8"].header["build"]["layers"]
    assert int8["count"] > 0

    # The host again.
    assert run(["attach", str(candidate), str(tmp_path / "evidence"), "--quiet", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "released"
    release = build / "release.tar"
    assert run(["gate", str(release)]) == 0
    assert NEVER_RUN in capsys.readouterr().out
    assert run(["gate", str(release), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notice"] == NEVER_RUN
    assert Path(told["archive"]) == release
    with open_bundle(release) as opened:
        assert opened.manifest.engine == "tensorrt"
        assert {layout.PLAN, layout.MODEL, layout.DEVICE_EVIDENCE, layout.REPORT_HTML} <= set(opened.manifest.files)
        assert NEVER_RUN in opened.read_bytes(layout.REPORT_JSON).decode("utf-8")
    # Damaged on the way back: refused, and the release of a moment ago is not what it speaks for.
    (tmp_path / "evidence" / "evidence.json").write_bytes(b"{}")
    assert run(["attach", str(candidate), str(tmp_path / "evidence"), "--quiet"]) == 4
