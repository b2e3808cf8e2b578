"""Blame and ledger of networks with several maps, and the student in torch among the hops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blame_bundles import POLICY, harmed_table, make_bundle
from exported import OPSET
from networks import CASES
from test_teacher_golden import Images

from edgekit import api
from edgekit.blame.options import BlameOptions
from edgekit.blame.rounding import own_classes
from edgekit.bundle.golden import GoldenSet, read_golden
from edgekit.calibrate.graph import parse_graph
from edgekit.core.stages import Stage, run_stage
from edgekit.errors import BadInputError
from edgekit.export.explained import cleaned_onnx, explained_onnx
from edgekit.interface.card import InputSpec, ModelCard
from edgekit.interface.preprocess import preprocess
from edgekit.teacher.checkpoint import LoadedModel, save_checkpoint
from edgekit.teacher.golden import GoldenRequest, golden
from edgekit.teacher.load_options import LoadOptions
from edgekit.teacher.options import MapOptions

CASE = CASES["inverted"]
MAPS = MapOptions(classes=2)
ARCH = "networks:Inverted"


def network() -> LoadedModel:
    card = ModelCard(InputSpec(*CASE.side), tuple("abcd"), tap="last", further_taps=("project",))
    return LoadedModel(CASE.make(), card, ARCH, {}, None, "")


@pytest.fixture(scope="module")
def graph() -> Any:
    raw = explained_onnx(network(), MAPS, use_closed_form=True, opset=OPSET)
    return cleaned_onnx(raw, lambda _model: None)[0].model


@pytest.fixture(scope="module")
def golden_set(tmp_path_factory: pytest.TempPathFactory) -> GoldenSet:
    folder = tmp_path_factory.mktemp("golden")
    save_checkpoint(folder / "m.pt", network())
    pixels = np.random.default_rng(3).integers(0, 256, size=(24, *CASE.side, 3), dtype=np.uint8)
    images = Images(pixels, np.zeros(24, dtype=np.int64))
    golden(GoldenRequest(folder / "m.pt", LoadOptions(arch=ARCH), images, MAPS), folder / "golden")
    return read_golden(folder / "golden")


def build_folder(folder: Path, change: float = 0.0) -> Mapping[str, Any]:
    """A build whose compress stage left the network, its weights moved by `change`; its lineage."""
    loaded = network()
    generator = torch.Generator().manual_seed(0)
    for parameter in loaded.model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += change * parameter.abs().mean() * noise

    def body(stage: Path) -> dict[str, Any]:
        save_checkpoint(stage / "student.pt", loaded)
        return {}

    wanted = Stage("compress", 2, {"change": change}, {})
    return {"compress": run_stage(wanted, folder / "stages" / "compress", body).to_dict()}


def test_each_tensor_is_judged_by_the_worst_of_four_maps(graph: Any, golden_set: GoldenSet, tmp_path: Path) -> None:
    sound = make_bundle(tmp_path / "sound", graph=graph, golden_set=golden_set)
    name = next(iter(list(sound.table.activations)[1:]))
    made = make_bundle(
        tmp_path / "harmed", graph=graph, golden_set=golden_set, table=lambda table: harmed_table(table, name, 40.0)
    )
    report = api.blame(made.folder, options=BlameOptions(samples=12))
    assert report.blame is not None
    assert report.blame.units[0].unit.name == name
    assert report.blame.units[0].unit.module is not None
    assert report.blame.adjusted["cosine"] < 1e-6
    assert {item.index for item in report.blame.classes} <= set(range(4))
    broken = report.ledger.first_broken
    assert broken is None or broken.name == "qdq"


def test_own_classes_are_ranked_as_the_golden_set_ranks_them(graph: Any, golden_set: GoldenSet) -> None:
    parsed = parse_graph(graph.SerializeToString(), where="test")
    images = preprocess(golden_set.pixels, golden_set.card.input)
    assert np.array_equal(own_classes(parsed, images, 2), golden_set.explained_classes)


def test_the_student_is_a_hop_once_its_code_is_named(graph: Any, golden_set: GoldenSet, tmp_path: Path) -> None:
    lineage = build_folder(tmp_path / "build")
    made = make_bundle(tmp_path / "sound", graph=graph, golden_set=golden_set, lineage=lineage)
    with pytest.raises(BadInputError, match="student") as refused:
        api.blame(made.folder, build=tmp_path / "build", hops_only=True)
    assert "--student-arch" in str(refused.value.hint)
    report = api.blame(made.folder, build=tmp_path / "build", student_code=ARCH, hops_only=True)
    hop = report.ledger.hops[1]
    assert (hop.name, hop.outcome) == ("compressed", "pass")
    assert hop.ran_on.startswith("torch")
    assert hop.against_teacher is not None
    # The very network of the golden set, asked for both classes at both taps.
    for name in ("cosine", "spearman", "iou-top20"):
        assert hop.against_teacher.means[name] == pytest.approx(1, abs=1e-6)
        assert hop.against_teacher.own_means[name] == pytest.approx(1, abs=1e-6)
    assert report.ledger.hops[2].compared_with == "compressed"


def test_a_student_that_lost_the_map_is_the_first_to_break_the_policy(
    graph: Any, golden_set: GoldenSet, tmp_path: Path
) -> None:
    lineage = build_folder(tmp_path / "build", change=2.0)
    # Graph and engine are the teacher's: only the student differs, and the graph then differs from it.
    made = make_bundle(tmp_path / "sound", graph=graph, golden_set=golden_set, lineage=lineage)
    report = api.blame(
        made.folder, build=tmp_path / "build", student_code=ARCH, hops_only=True, policy=replace(POLICY, min_samples=5)
    )
    assert report.ledger.first_broken is not None
    assert report.ledger.first_broken.name == "compressed"
    assert "may have been lost there already" not in report.ledger.in_words()
    following = report.ledger.hops[2]
    assert following.outcome == "pass"
    assert following.against_source is not None
    assert following.against_source.means["cosine"] is not None
    assert following.against_source.means["cosine"] < 0.98
