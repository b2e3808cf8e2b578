"""FP16 as a candidate: which engines have it, what a device builds of it, what ships, and what a bundle then holds.

Over stand-ins: no TensorRT and no GPU ran.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from device_candidates import RECIPE, candidate, device_stand_in, edited, float_graph, run_on_device, stages
from onnx import TensorProto
from tensorrt_stand_ins import PAIRS

from edgekit import api
from edgekit.bench.options import LatencyOptions
from edgekit.bundle import layout
from edgekit.bundle.open import open_bundle
from edgekit.cli.bench import _render
from edgekit.core.digests import digest_bytes, digest_file
from edgekit.device.plan import read_plan_bytes
from edgekit.engines.half_graph import SOURCE_KEY
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.onnx_outline import read_outline
from edgekit.errors import BadInputError, IntegrityError
from edgekit.half.typed import type_half
from edgekit.pipeline.attach import AttachRequest, attach
from edgekit.pipeline.candidates import HALF_ENGINES, CandidateId, candidates_of, float_partner
from edgekit.pipeline.device_candidate import CandidateResult
from edgekit.pipeline.engine_files import graph_path, has_half
from edgekit.pipeline.engines import EngineChoice, EnginesRequest, run_engines
from edgekit.pipeline.release import make_release
from edgekit.pipeline.release_request import ReleaseRequest
from edgekit.policy.document import load_preset
from edgekit.targets.loader import resolve_target, target_names
from edgekit.verify.select import select


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CandidateResult:
    return candidate(tmp_path_factory.mktemp("host"), half=True)


def test_a_graph_without_pairs_stays_in_its_operator_set() -> None:
    typed = type_half(float_graph()).model
    assert typed.opset_import[0].version == float_graph().opset_import[0].version == 17
    assert any(tensor.data_type == TensorProto.FLOAT16 for tensor in typed.graph.initializer)


@pytest.mark.parametrize("name", sorted(set(target_names()) - {"jetson", "cpu"}))
def test_engines_that_compute_in_fp16_have_the_candidate(name: str) -> None:
    target = resolve_target(name)
    found = candidates_of(target, target.engines, half=True)
    halves = {item.engine for item in found if item.precision == "fp16"}
    assert halves == set(target.engines) & set(HALF_ENGINES)
    assert bool(halves) is not name.startswith("cpu")
    assert not [item for item in candidates_of(target, target.engines, half=False) if item.precision == "fp16"]
    for item in found:
        assert float_partner(item, found).precision == "fp32"
        assert float_partner(item, found).engine == item.engine
    assert set(HALF_ENGINES) <= set(ENGINES)


def test_names_go_by_precision_and_engine() -> None:
    found = candidates_of(resolve_target("cuda"), ("ort-cuda", "ort-tensorrt"), half=True)
    assert [item.name for item in found] == [
        *("int8", "fp16", "fp32"),
        *("int8-ort-tensorrt", "fp16-ort-tensorrt", "fp32-ort-tensorrt"),
    ]


class TestDevice:
    def test_the_plan_has_three_builds_and_their_graphs(self, made: CandidateResult) -> None:
        plan = made.plan
        assert list(plan.builds) == ["int8", "fp16", "fp32"]
        half = plan.builds["fp16"]
        assert (half.graph, half.options.float_type, half.typed) == (layout.FLOAT16_MODEL, "fp16", "")
        assert half.sha256 == plan.inputs[layout.FLOAT16_MODEL] == made.manifest.files[layout.FLOAT16_MODEL].sha256
        # Its operator set is what the oldest parser of the target reads.
        with open_bundle(made.folder) as opened:
            outline = read_outline(opened.read_bytes(layout.FLOAT16_MODEL), "float16")
        assert outline.opset == 17
        assert outline.metadata[SOURCE_KEY] == made.manifest.files[layout.REFERENCE].sha256
        for version, line in half.trtexec.items():
            # From 10.12 on the graph's types decide, and no flag.
            assert ("--fp16" in line) is (version != "10.16.2")
            assert ("--stronglyTyped" in line) is (version == "10.16.2")
            assert "--int8" not in line
        assert set(made.rehearsal) == {"int8", "fp16", "fp32"}
        assert read_plan_bytes(plan.to_bytes(), where="plan") == plan

    def test_strong_typing_needs_no_flag(self, tmp_path: Path) -> None:
        lines = candidate(tmp_path, target="jetson-thor", half=True).plan.builds["fp16"].trtexec
        assert "--fp16" not in lines["11.4.1"]
        assert "--stronglyTyped" in lines["10.13"]

    def test_the_device_builds_it_and_the_release_may_ship_it(
        self, made: CandidateResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with device_stand_in(*PAIRS[2], monkeypatch, tmp_path):
            evidence = run_on_device(made.archive, tmp_path / "evidence")
        said = evidence.candidates["fp16"]
        assert said.header["graph_sha256"] == digest_file(made.folder / layout.FLOAT16_MODEL)
        assert said.header["build"]["layers"]["by_precision"].get("fp16", 0) > 0
        assert "fp16" not in evidence.candidates["fp32"].header["build"]["layers"]["by_precision"]
        assert set(evidence.latency.results) == {"int8", "fp16", "fp32"}
        released = attach(AttachRequest(made.archive, tmp_path / "evidence", tmp_path / "out"))
        assert released.manifest.status == "released"
        assert {item.candidate.name for item in released.selection.judged} == {"int8", "fp16", "fp32"}
        # Without one of the three it is not whole.
        edited(tmp_path / "evidence", _without_half, sealed=True)
        with pytest.raises(IntegrityError, match="not whole"):
            attach(AttachRequest(made.archive, tmp_path / "evidence", tmp_path / "out"))


def _without_half(raw: dict[str, Any]) -> None:
    del raw["candidates"]["fp16"]


class TestHost:
    @pytest.mark.parametrize("pair", [PAIRS[1], PAIRS[5]], ids="-".join)
    def test_an_fp16_release_holds_its_graph_and_the_fp32_engine_beside_it(
        self, pair: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folders = stages(tmp_path, half=True)
        assert has_half(folders)
        with device_stand_in(*pair, monkeypatch, tmp_path):
            result = self._released(folders, monkeypatch)
            manifest = result.manifest
            assert (manifest.precision, manifest.status) == ("fp16", "released")
            files = manifest.files
            assert files[layout.MODEL].sha256 == digest_file(graph_path(folders, "fp16"))
            assert files[layout.REFERENCE].sha256 == digest_file(graph_path(folders, "fp32"))
            assert {layout.PLAN, layout.REFERENCE_PLAN} <= set(files)
            assert layout.SCALES not in files
            assert layout.HALF_MODEL not in files
            facts = result.records["latency"].facts
            assert {"int8_over_fp32", "fp16_over_fp32"} <= set(facts)
            assert "of fp16 on tensorrt" in facts["summary"]
            report = api.bench(result.folder, options=LatencyOptions(warmup=1, rounds=1, iterations=2, lead_in=0))
            assert set(report.results) == {"fp16", "fp32"}
            assert "fp16 takes " in _render(report)
        with pytest.raises(BadInputError, match="ships FP16"):
            api.blame(result.folder)
        assert api.gate(result.archive).outcome == "pass"

    @staticmethod
    def _released(folders: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        from device_candidates import _record

        # Whatever the stand-in's times, INT8 is to lose to FP16 here.
        genuine = select

        def without_int8(candidates: Any, options: Any, **more: Any) -> Any:
            worse = {
                name: replace(item, outcome="fail") if name == "int8" else item for name, item in candidates.items()
            }
            return genuine(worse, options, **more)

        monkeypatch.setattr("edgekit.pipeline.release.select", without_int8)
        target, policy = resolve_target("tensorrt"), load_preset("default")
        ran = run_engines(EnginesRequest(folders, target, EngineChoice(("tensorrt",)), policy, 5))
        assert [item.name for item in ran.candidates] == ["int8", "fp16", "fp32"]
        records = {
            "golden": _record("golden", model="tiny"),
            "compress": _record("compress", skipped="nothing to train"),
            **ran.records,
        }
        return make_release(ReleaseRequest(folders, "tensorrt", ran, RECIPE, policy, records))


def test_the_fp32_candidate_never_finds_the_graph_with_fp16_types(tmp_path: Path) -> None:
    from edgekit.engines.half_graph import half_graph_beside

    folders = stages(tmp_path, half=True)
    assert not half_graph_beside(graph_path(folders, "fp32")).exists()
    assert not half_graph_beside(graph_path(folders, "fp16")).exists()
    model = onnx.load(graph_path(folders, "fp16"))
    assert {item.key: item.value for item in model.metadata_props}[SOURCE_KEY] == digest_bytes(
        graph_path(folders, "fp32").read_bytes()
    )


def test_the_partner_is_of_the_same_engine() -> None:
    pool = (CandidateId("fp16", "a", "fp16"), CandidateId("fp32", "a", "fp32"), CandidateId("fp32-b", "b", "fp32"))
    assert float_partner(pool[0], pool) == pool[1]
