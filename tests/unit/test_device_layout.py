"""Where a plan lies in a bundle: by its own name, with its graph beside it; bundles from before that keep working."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from device_candidates import RECIPE, device_stand_in, stages
from tensorrt_stand_ins import PAIRS

from edgekit import api
from edgekit.bench.options import LatencyOptions
from edgekit.bundle import layout
from edgekit.bundle.assemble import BundleRequest, bundle
from edgekit.bundle.open import open_bundle
from edgekit.core.stages import StageRecord
from edgekit.engines.build import PLAN_ENGINES, artifact_name
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.plan_file import read_plan
from edgekit.pipeline.engines import EngineChoice, EnginesRequest, run_engines
from edgekit.pipeline.release import make_release
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.policy.document import load_preset
from edgekit.targets.loader import resolve_target


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A release for TensorRT that was built where it runs, without a plan of another machine."""
    folder = tmp_path_factory.mktemp("device")
    folders, policy = stages(folder / "build"), load_preset("default")
    records = {
        "golden": StageRecord("golden", "1" * 64, {}, {}, {}, {"model": "tiny"}),
        "compress": StageRecord("compress", "1" * 64, {}, {}, {}, {}),
    }
    monkeypatch = pytest.MonkeyPatch()
    with device_stand_in(*PAIRS[2], monkeypatch, folder):
        target = resolve_target("jetson-orin-nano")
        ran = run_engines(EnginesRequest(folders, target, EngineChoice(("tensorrt",)), policy, 5))
        wanted = ReleaseRequest(folders, target.name, ran, RECIPE, policy, records | ran.records)
        yield make_release(wanted).folder
    monkeypatch.undo()


def test_names_are_what_files_are(released: Path) -> None:
    with open_bundle(released) as opened:
        assert opened.manifest.status == "released"
        assert opened.manifest.precision == "int8"
        for name in (layout.PLAN, layout.REFERENCE_PLAN):
            read_plan(opened.path(name))
        for name in (layout.MODEL, layout.REFERENCE):
            # An ONNX file begins with its IR version: field 1, a number.
            assert opened.read_bytes(name)[:1] == b"\x08"
        assert opened.model_path == opened.path(layout.PLAN)
        assert opened.partner_path == opened.path(layout.REFERENCE_PLAN)
        assert opened.reference_path == opened.path(layout.REFERENCE)
        assert not opened.awaits_device


def test_it_verifies_and_is_timed(released: Path) -> None:
    assert api.gate(released).outcome == "pass"
    assert api.verify(released).verdict.outcome == "pass"
    options = LatencyOptions(warmup=1, rounds=1, iterations=2, lead_in=0, timeout_s=60)
    report = api.bench(released, options=options)
    assert {name: each.engine["engine"] for name, each in report.results.items()} == {
        "int8": "tensorrt",
        "fp32": "tensorrt",
    }


def test_a_bundle_from_before_keeps_its_plan_under_the_old_name(released: Path, tmp_path: Path) -> None:
    with open_bundle(released) as opened:
        manifest = opened.manifest
        contents: dict[str, Path | bytes] = {name: opened.path(name) for name in manifest.files}
        contents[layout.MODEL] = contents.pop(layout.PLAN)
        contents[layout.REFERENCE] = contents.pop(layout.REFERENCE_PLAN)
        old = BundleRequest(
            target=manifest.target,
            engine=manifest.engine,
            precision=manifest.precision,
            status=manifest.status,
            card=manifest.card,
            map_spec=manifest.map_spec,
            contents=contents,
            lineage=manifest.lineage,
        )
        bundle(old, tmp_path / "old")
    with open_bundle(tmp_path / "old") as opened:
        assert opened.model_path == opened.path(layout.MODEL)
        assert opened.partner_path == opened.path(layout.REFERENCE)
    assert api.gate(tmp_path / "old").outcome == "pass"
    assert api.verify(tmp_path / "old").verdict.outcome == "pass"


@pytest.mark.parametrize("engine", list(ENGINES))
def test_every_engine_has_a_name_for_its_artifact(engine: str) -> None:
    assert artifact_name(engine).endswith(".plan" if engine in PLAN_ENGINES else ".onnx")
