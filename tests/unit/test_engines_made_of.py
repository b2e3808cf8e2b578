"""What an engine says it was made of: written by the export, carried along, read by runners, told where it differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from explained_graphs import GRAPHS, ArrayImages
from test_export_stage import request_  # noqa: F401 - fixture
from tiny_bundles import tiny_bundle
from tiny_golden import GRAPH, tiny_golden

from edgekit.bundle.open import open_bundle
from edgekit.calibrate.formats import number_format
from edgekit.calibrate.graph import parse_graph
from edgekit.calibrate.options import CalibrateOptions
from edgekit.calibrate.stage import quantise_graph
from edgekit.core.digests import digest_file
from edgekit.engines.made_of import MADE_OF, STUDENT_KEY, TEACHER_KEY, made_of, said_to_be_made_of
from edgekit.engines.protocol import EngineOptions
from edgekit.engines.registry import ENGINES
from edgekit.engines.tensorrt.onnx_outline import read_outline
from edgekit.export.origin import set_made_of
from edgekit.export.stage import GRAPH_NAME, ExportRequest, export
from edgekit.half.typed import type_half
from edgekit.policy.document import load_preset
from edgekit.verify.bundled_student import bundled_student
from edgekit.verify.stage import VerifyRequest, verify_bundle, verify_engine

STUDENT, TEACHER, OTHER = "a" * 64, "b" * 64, "c" * 64


def said_by(model: onnx.ModelProto) -> dict[str, str]:
    return {item.key: item.value for item in model.metadata_props}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, {}),
        ({"edgekit.half_of": STUDENT}, {}),
        ({STUDENT_KEY: STUDENT}, {MADE_OF: {"student": STUDENT}}),
        ({STUDENT_KEY: STUDENT, TEACHER_KEY: TEACHER}, {MADE_OF: {"student": STUDENT, "teacher": TEACHER}}),
        ({STUDENT_KEY: STUDENT.upper(), TEACHER_KEY: "b" * 63}, {}),
        ({STUDENT_KEY: STUDENT + "\n", TEACHER_KEY: ""}, {}),
    ],
)
def test_digests_are_taken_and_nothing_else(metadata: dict[str, str], expected: dict[str, object]) -> None:
    assert made_of(metadata) == expected


def test_details_without_it_name_nothing() -> None:
    assert said_to_be_made_of({}, "teacher") == ""
    assert said_to_be_made_of({MADE_OF: {"student": STUDENT}}, "teacher") == ""
    assert said_to_be_made_of({MADE_OF: None}, "teacher") == ""


def test_the_export_writes_both(request_: ExportRequest, tmp_path: Path) -> None:  # noqa: F811
    alone = export(request_, tmp_path / "out")
    student = digest_file(tmp_path / "m.pt")
    assert said_by(onnx.load(tmp_path / "out" / GRAPH_NAME)) == {STUDENT_KEY: student}
    named = export(replace(request_, teacher=TEACHER), tmp_path / "out")
    assert named.key != alone.key
    assert said_by(onnx.load(tmp_path / "out" / GRAPH_NAME)) == {STUDENT_KEY: student, TEACHER_KEY: TEACHER}


def stamped(path: Path, student: str = STUDENT, teacher: str = TEACHER) -> onnx.ModelProto:
    model = onnx.load(GRAPH)
    set_made_of(model, student, teacher)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return model


@pytest.mark.parametrize("name", ["residual", "depthwise-relu6"])
def test_what_is_made_of_a_graph_says_the_same(name: str) -> None:
    model = GRAPHS[name]()
    set_made_of(model, STUDENT, TEACHER)
    graph = parse_graph(model.SerializeToString(), where="test")
    images = ArrayImages(np.random.default_rng(0).random((8, 3, 16, 16)).astype(np.float32))
    quantised = quantise_graph(graph, images, number_format("x86-u8s8"), CalibrateOptions(method="minmax")).model
    expected = {STUDENT_KEY: STUDENT, TEACHER_KEY: TEACHER}
    assert said_by(quantised) == said_by(model) == expected
    typed = type_half(model, source="d" * 64).model
    assert said_by(typed) == {**expected, "edgekit.half_of": "d" * 64}


@pytest.mark.parametrize("engine", ["ort-cpu", "reference", "openvino"])
def test_runners_read_it(tmp_path: Path, engine: str) -> None:
    loaded = ENGINES.load(engine)
    if not loaded.availability().available:
        pytest.skip(loaded.availability().reason)
    stamped(tmp_path / "m.onnx")
    with loaded.open(tmp_path / "m.onnx", EngineOptions()) as runner:
        assert runner.info.details[MADE_OF] == {"student": STUDENT, "teacher": TEACHER}
    with loaded.open(GRAPH, EngineOptions()) as runner:
        assert MADE_OF not in runner.info.details


@pytest.mark.parametrize(
    ("said", "wanted", "words"),
    [
        ((STUDENT, TEACHER), (STUDENT, TEACHER), ()),
        ((STUDENT, TEACHER), ("", TEACHER), ()),
        (("", ""), (OTHER, OTHER), ()),
        ((STUDENT, TEACHER), (STUDENT, OTHER), ("teacher bbbbbbbbbbbb", "golden set names cccccccccccc")),
        ((STUDENT, TEACHER), (OTHER, TEACHER), ("student aaaaaaaaaaaa", "bundle names cccccccccccc")),
        ((STUDENT, TEACHER), (OTHER, OTHER), ("teacher bbbbbbbbbbbb", "student aaaaaaaaaaaa")),
    ],
)
def test_a_difference_is_told_and_changes_no_verdict(
    tmp_path: Path, said: tuple[str, str], wanted: tuple[str, str], words: tuple[str, ...]
) -> None:
    stamped(tmp_path / "m.onnx", *said)
    golden = replace(tiny_golden(12), teacher=wanted[1])
    request = VerifyRequest("reference", tmp_path / "m.onnx", tmp_path, load_preset("default"), student=wanted[0])
    done = verify_engine(request, golden)
    plain = verify_engine(replace(request, artifact=GRAPH, student=""), golden)
    assert done.verdict == plain.verdict
    stale = [finding for finding in done.findings if finding.fault == "stale-engine"]
    assert bool(stale) == bool(words)
    assert "stale-engine" not in {finding.fault for finding in plain.findings}
    assert all(text in stale[0].text for text in words)
    assert not stale or done.findings[0] == stale[0]
    assert not stale or "maps-drifted" not in {finding.fault for finding in done.findings}


LINEAGES = [
    ({}, ""),
    ([], ""),
    ({"compress": {"key": "x"}}, ""),
    ({"compress": {"outputs": {"student.pt": {"sha256": STUDENT}}}}, STUDENT),
    ({"compress": {"outputs": {}}, "qat": {"outputs": {"student.pt": {"sha256": OTHER}}}}, OTHER),
]


@pytest.mark.parametrize(("lineage", "student"), LINEAGES)
def test_a_bundle_tells_whose_weights_are_in_it(tmp_path: Path, lineage: Any, student: str) -> None:
    with open_bundle(tiny_bundle(tmp_path, lineage=lineage, verified=False)) as opened:
        assert bundled_student(opened) == student


def test_a_bundle_with_an_engine_of_other_weights_is_told(tmp_path: Path) -> None:
    """Packed with an engine of before: the manifest's digests all hold, since they are of what was packed."""
    golden = tiny_golden(12)
    graph = tmp_path / "m.onnx"
    stamped(graph, student=OTHER, teacher=golden.teacher)
    lineage = {"compress": {"outputs": {"student.pt": {"sha256": STUDENT}}}}
    with open_bundle(tiny_bundle(tmp_path, golden, lineage=lineage, verified=False, graph=graph)) as opened:
        done = verify_bundle(opened)
    assert [finding.fault for finding in done.findings] == ["stale-engine"]


def test_the_outline_that_openvino_is_told_by(tmp_path: Path) -> None:
    stamped(tmp_path / "m.onnx")
    told = read_outline((tmp_path / "m.onnx").read_bytes(), "test").metadata
    assert made_of(told) == {MADE_OF: {"student": STUDENT, "teacher": TEACHER}}
