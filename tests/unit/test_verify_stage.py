"""The verify stage: a verdict is written down whatever it is, and only what was run here is taken for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty import with_weights
from tiny_golden import GRAPH, OTHER_GRAPH, tiny_golden

from edgekit.bundle.golden import write_golden
from edgekit.core.canonical import read_json
from edgekit.core.stages import read_record
from edgekit.engines.protocol import EngineOptions
from edgekit.errors import BadInputError, IntegrityError
from edgekit.metrics.scores_io import scores_from_dict
from edgekit.policy.document import load_preset
from edgekit.policy.verdict import Verdict, judge
from edgekit.verify import stage as module
from edgekit.verify.stage import (
    CONTROLS_NAME,
    EVIDENCE_NAME,
    LOGITS_NAME,
    MAPS_NAME,
    SCORES_NAME,
    VERDICT_NAME,
    VerifyRequest,
    verify,
    verify_engine,
)


@pytest.fixture
def request_(tmp_path: Path) -> VerifyRequest:
    write_golden(tiny_golden(80), tmp_path / "golden")
    return VerifyRequest("reference", GRAPH, tmp_path / "golden", load_preset("default"))


def wrecked(folder: Path) -> Path:
    """The graph with its map's weights turned round: maps of other classes."""
    path = with_weights(
        GRAPH, folder / "wrecked.onnx", lambda w: w[::-1] if w.shape == (4, 3) and w.max() < 1 else None
    )
    assert path.read_bytes() != GRAPH.read_bytes()
    return path


def test_a_sound_engine_passes_and_all_of_it_is_written_down(request_: VerifyRequest, tmp_path: Path) -> None:
    record = verify(request_, tmp_path / "out")
    golden, out = tiny_golden(80), tmp_path / "out"
    tables = [f"controls/{name}.json" for name in ("centre-prior", "permuted-maps")]
    written = [SCORES_NAME, VERDICT_NAME, EVIDENCE_NAME, MAPS_NAME, LOGITS_NAME, CONTROLS_NAME, *tables]
    assert sorted(record.outputs) == sorted(written)
    assert record == read_record(out)
    assert record.facts["outcome"] == "pass"
    assert record.facts["agreement"] == 1
    assert record.facts["mean_cosine"] == pytest.approx(1)
    assert record.facts["findings"] == []

    table = scores_from_dict(read_json(out / SCORES_NAME), where="scores")
    assert table.sample == golden.digests
    verdict = Verdict.from_dict(read_json(out / VERDICT_NAME), where="verdict")
    assert verdict == judge(request_.policy, table)

    evidence = read_json(out / EVIDENCE_NAME)
    assert evidence["engine"]["engine"] == "reference"
    assert evidence["environment"]["packages"]["onnxruntime"] in evidence["engine"]["runtime"]
    maps, logits = np.load(out / MAPS_NAME), np.load(out / LOGITS_NAME)
    assert maps.shape == (2, 80, 4, 4)
    assert maps.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(maps[0], golden.maps, atol=1e-6)
    np.testing.assert_allclose(logits, golden.logits, atol=1e-6)


def test_a_wrecked_engine_is_a_verdict_and_no_exception(request_: VerifyRequest, tmp_path: Path) -> None:
    record = verify(replace(request_, artifact=wrecked(tmp_path)), tmp_path / "out")
    assert record.facts["outcome"] == "fail"
    assert record.facts["agreement"] == 1
    assert read_json(tmp_path / "out" / VERDICT_NAME)["outcome"] == "fail"
    assert record.facts["findings"] == ["map-of-another-class"]
    assert [item["fault"] for item in read_json(tmp_path / "out" / EVIDENCE_NAME)["findings"]] == record.facts[
        "findings"
    ]


def test_too_few_samples_are_inconclusive(request_: VerifyRequest, tmp_path: Path) -> None:
    write_golden(tiny_golden(20), tmp_path / "few")
    record = verify(replace(request_, golden=tmp_path / "few"), tmp_path / "out")
    assert record.facts["outcome"] == "inconclusive"


def test_done_once_and_again_for_anything_else(
    request_: VerifyRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = verify(request_, tmp_path / "out")
    assert verify(request_, tmp_path / "out") == first
    write_golden(tiny_golden(80, seed=1), tmp_path / "other")
    for changed in (
        replace(request_, engine="ort-cpu"),
        replace(request_, artifact=wrecked(tmp_path)),
        replace(request_, golden=tmp_path / "other"),
        replace(request_, policy=load_preset("strict")),
        replace(request_, options=EngineOptions(threads=2)),
    ):
        assert verify(changed, tmp_path / "out").key != first.key
    verify(request_, tmp_path / "out")
    monkeypatch.setattr(module, "environment_print", lambda: {"machine": "another"})
    assert verify(request_, tmp_path / "out").key != first.key, "made elsewhere"


def test_the_same_run_gives_the_same_bytes(request_: VerifyRequest, tmp_path: Path) -> None:
    assert verify(request_, tmp_path / "a").outputs == verify(request_, tmp_path / "b").outputs


def test_a_graph_that_explains_nothing_is_an_integrity_error(request_: VerifyRequest, tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("hello")
    for artifact in (OTHER_GRAPH, text):
        with pytest.raises(IntegrityError):
            verify(replace(request_, artifact=artifact), tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(BadInputError):
        verify(replace(request_, artifact=tmp_path / "absent.onnx"), tmp_path / "out")


def test_a_golden_set_of_another_build_is_an_integrity_error(request_: VerifyRequest, tmp_path: Path) -> None:
    golden = tiny_golden(20)
    other = replace(
        golden,
        map_spec=replace(golden.map_spec, height=2),
        maps=golden.maps[:, :2],
    )
    write_golden(other, tmp_path / "other")
    with pytest.raises(IntegrityError, match="shapes of the golden set") as caught:
        verify(replace(request_, golden=tmp_path / "other"), tmp_path / "out")
    assert "different builds" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_a_damaged_golden_set_is_an_integrity_error(request_: VerifyRequest, tmp_path: Path) -> None:
    path = tmp_path / "golden" / "pixels.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        verify(request_, tmp_path / "out")


def test_an_unknown_engine_lists_the_known(request_: VerifyRequest, tmp_path: Path) -> None:
    with pytest.raises(BadInputError) as caught:
        verify(replace(request_, engine="tpu"), tmp_path / "out")
    assert "reference" in (caught.value.expected or "")


def test_scoring_and_judging_without_writing(request_: VerifyRequest) -> None:
    golden = tiny_golden(80, masks=True)
    done = verify_engine(request_, golden)
    assert done.verdict == judge(request_.policy, done.table)
    assert done.info.engine == "reference"
    assert done.findings == ()
    assert "engine/pointing" in done.table.localisation


def test_maps_that_are_all_empty_on_both_sides_have_no_mean(request_: VerifyRequest, tmp_path: Path) -> None:
    golden = tiny_golden(60)
    write_golden(replace(golden, maps=np.zeros_like(golden.maps)), tmp_path / "empty")
    silent = with_weights(
        GRAPH, tmp_path / "silent.onnx", lambda w: w * 0 if w.shape == (4, 3) and w.max() < 1 else None
    )
    record = verify(replace(request_, golden=tmp_path / "empty", artifact=silent), tmp_path / "out")
    assert record.facts["mean_cosine"] is None
    assert "no map to compare" in record.facts["summary"]
    assert record.facts["outcome"] != "pass"
