"""A candidate whose plan asks for the DLA, from the host over the device to the release; all over stand-ins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from device_candidates import RECIPE, candidate, device_stand_in, run_on_device

from edgekit.bundle import layout
from edgekit.bundle.open import open_bundle
from edgekit.core.digests import digest_file
from edgekit.engines.tensorrt.calibration_cache import read_calibration_cache
from edgekit.engines.tensorrt.settings import TensorRtSettings
from edgekit.errors import UnavailableError
from edgekit.pipeline.attach import AttachRequest, attach
from edgekit.pipeline.device_candidate import CandidateResult

TARGET = "jetson-agx-orin"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CandidateResult:
    recipe = replace(RECIPE, tensorrt=TensorRtSettings(dla_core=0, dla_sram=1 << 16, workspace=64 << 20))
    return candidate(tmp_path_factory.mktemp("host"), target=TARGET, recipe=recipe)


def test_the_plan_is_for_versions_that_build_for_the_dla(made: CandidateResult) -> None:
    plan = made.plan
    assert (plan.tensorrt.oldest, plan.tensorrt.newest) == ("8.6.2", "11.4.1")
    int8, fp32 = plan.builds["int8"], plan.builds["fp32"]
    assert (int8.options.dla_core, int8.options.batches, int8.unrounded) == (0, (1, 1, 1), layout.REFERENCE)
    assert (fp32.options.dla_core, fp32.unrounded) == (None, "")
    # JetPack 7.2 brings 10.16, whose DLA cannot be built for.
    assert list(int8.trtexec) == ["8.6.2", "10.3.0", "10.7.0", "11.4.1"]
    for version in ("8.6.2", "10.3.0", "10.7.0"):
        line = int8.trtexec[version]
        assert f"--onnx={layout.REFERENCE} " in line
        assert f"--calib={layout.DEVICE_CACHES}/{version}.cache" in line
        assert "--useDLACore=0 --allowGPUFallback" in line
        assert "workspace:64" in line
        assert "dlaSRAM:0.0625" in line
    assert f"--onnx={layout.HALF_MODEL} " in int8.trtexec["11.4.1"]
    assert "--calib" not in int8.trtexec["11.4.1"]
    assert "DLA" not in fp32.trtexec["10.3.0"]


def test_the_caches_are_tied_as_the_dla_wants_it(made: CandidateResult) -> None:
    with open_bundle(made.folder) as opened:
        cache = read_calibration_cache(opened.read_bytes(made.plan.caches["10.3.0"]), "cache")
    assert cache.scales


def test_a_target_without_a_dla_gets_no_such_plan(tmp_path: Path) -> None:
    recipe = replace(RECIPE, tensorrt=TensorRtSettings(dla_core=0))
    with pytest.raises(UnavailableError, match="DLA core 0"):
        candidate(tmp_path, target="jetson-orin-nano", recipe=recipe)


def test_evidence_from_a_scale_table_completes_the_release(
    made: CandidateResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with device_stand_in("10.3.0", "pycuda", monkeypatch, tmp_path, gpu="agx-orin-64"):
        evidence = run_on_device(made.archive, tmp_path / "evidence", "agx-orin-64gb")
    header = evidence.candidates["int8"].header
    assert header["dla_core"] == 0
    assert header["build"]["precision"]["calibrated"] is True
    assert header["graph_sha256"] == digest_file(made.folder / layout.REFERENCE)
    assert evidence.candidates["fp32"].header["dla_core"] is None
    released = attach(AttachRequest(made.archive, tmp_path / "evidence", tmp_path / "out"))
    assert released.manifest.status == "released"


def test_from_11_4_1_on_it_comes_from_the_pairs(
    made: CandidateResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with device_stand_in("11.4.1", "cuda-python-13", monkeypatch, tmp_path, gpu="agx-orin-64"):
        evidence = run_on_device(made.archive, tmp_path / "evidence", "agx-orin-64gb")
    header = evidence.candidates["int8"].header
    assert (header["tensorrt"], header["dla_core"]) == ("11.4.1", 0)
    assert header["build"]["precision"]["strong"] is True
    assert header["build"]["precision"]["calibrated"] is False
    assert header["build"]["typed_graph"] == digest_file(made.folder / layout.HALF_MODEL)
    assert header["graph_sha256"] == digest_file(made.folder / layout.MODEL)
    # The recorded device has JetPack 6, which takes no such TensorRT: its evidence is sound, and no release.
    with pytest.raises(UnavailableError, match="do not support JetPack"):
        attach(AttachRequest(made.archive, tmp_path / "evidence", tmp_path / "out"))
