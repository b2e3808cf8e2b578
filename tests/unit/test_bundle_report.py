"""The report of a bundle that lies there: the stored evidence, pictures of another run, and blame that is about it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blame_bundles import POLICY, Made, harmed_table, make_bundle
from test_report_example import example_blame

from edgekit.bundle import layout
from edgekit.bundle.open import open_bundle
from edgekit.cli.main import run
from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.core.stages import FileRef, StageRecord
from edgekit.errors import BadInputError, IntegrityError
from edgekit.metrics.agreement import METRICS
from edgekit.pipeline.bundle_report import blame_beside, report_file
from edgekit.pipeline.told_controls import control_summaries
from edgekit.policy.document import load_preset
from edgekit.verify.controls import StoredControls, judge_controls
from edgekit.verify.gate import bundle_scores

RECORDS = {
    name: StageRecord(
        name, f"{place:02x}" * 32, options, {}, {"out": FileRef("ab" * 32, 7)}, {"summary": f"{name} was done"} | facts
    )
    for place, (name, options, facts) in enumerate(
        (
            ("verify-int8", {"environment": {"processor": "Elsewhere 1"}}, {}),
            ("golden", {}, {"model": "teacher.pt"}),
            ("build-int8", {}, {"engine": {"runtime": "onnxruntime 9.9", "device": "Elsewhere 1"}}),
            ("compress", {}, {"skipped": "nobody asked"}),
        )
    )
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    lineage = {name: record.to_dict() for name, record in RECORDS.items()}
    return make_bundle(tmp_path_factory.mktemp("made") / "bundle", lineage=lineage)


@pytest.fixture
def folder(made: Made, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.folder, tmp_path / "build" / "bundle"))


def read(folder: Path) -> tuple[dict[str, Any], str]:
    page = (folder / "report.html").read_text(encoding="utf-8")
    return parse_strict((folder / "report.json").read_bytes(), where="report.json"), page


def about(folder: Path) -> dict[str, Any]:
    """A blame document about this bundle."""
    with open_bundle(folder) as opened:
        return example_blame() | {"bundle": opened.manifest.digest}


def test_stored_evidence_is_told_with_what_is_known_of_the_build(folder: Path, tmp_path: Path) -> None:
    written = report_file(folder, tmp_path / "out")
    document, page = read(tmp_path / "out")
    assert (written.status, written.headline) == ("released", document["headline"])
    assert document["title"] == "teacher.pt"
    # In the order of the work, whatever the order of the file.
    assert [stage["stage"] for stage in document["stages"]] == ["golden", "compress", "build-int8", "verify-int8"]
    assert document["compression"]["skipped"] == "nobody asked"
    assert document["controls"]["state"] in ("ran", "off", "absent")
    assert document["hops"] is None
    assert "data:image/jpeg;base64," in page
    with open_bundle(folder) as opened:
        stored = opened.read_json(layout.VERDICT)
    assert [clause["observed"] for clause in document["verdict"]["clauses"]] == [
        clause["observed"] for clause in stored["clauses"]
    ]


def test_another_policy_judges_the_same_scores(folder: Path, tmp_path: Path) -> None:
    hard = replace(POLICY, min_samples=10_000)
    written = report_file(folder, tmp_path / "out", policy=hard)
    assert written.status == "inconclusive"
    assert "10000 samples would" in written.headline


def test_blame_that_lies_beside_is_told_where_it_is_about_this_bundle(folder: Path, tmp_path: Path) -> None:
    place = folder.parent / "edgekit-blame" / "blame.json"
    place.parent.mkdir()
    place.write_bytes(dump_canonical(about(folder)))
    assert report_file(folder, tmp_path / "out").blame == place
    document, page = read(tmp_path / "out")
    assert document["hops"]["tensors_total"] == 2
    assert "Where the map was moved" in page
    for other in (b"{}", b"no json", dump_canonical(example_blame()), b"[]"):
        place.write_bytes(other)
        with open_bundle(folder) as opened:
            assert blame_beside(opened, folder) is None


def test_blame_that_was_named_and_is_about_another_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(dump_canonical(example_blame()))
    with pytest.raises(BadInputError, match="another bundle") as caught:
        report_file(folder, tmp_path / "out", blame=other)
    assert caught.value.where == str(other)
    other.write_bytes(dump_canonical({"bundle": about(folder)["bundle"]}))
    with pytest.raises(IntegrityError, match="cannot read"):
        report_file(folder, tmp_path / "out", blame=other)
    assert not (tmp_path / "out").exists()


def test_an_engine_that_answers_otherwise_than_its_scores_say_gets_no_page(tmp_path: Path) -> None:
    spoilt = make_bundle(tmp_path / "spoilt", table=lambda table: harmed_table(table, "relu_4", 200.0))
    with pytest.raises(IntegrityError, match="otherwise here") as caught:
        report_file(spoilt.folder, tmp_path / "out")
    assert "edgekit verify" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("chosen", "means"), [("int8", True), ("fp32", False)])
def test_candidates_are_told_from_the_evidence(chosen: str, means: bool, made: Made, tmp_path: Path) -> None:
    from edgekit.pipeline.bundle_report import _candidates

    candidate = {"name": "int8", "precision": "int8", "bytes": 9, "outcome": "pass", "agreement": 1.0, "accuracy": None,
                 "latency_p50_ms": 0.5, "shipped": True, "reason": "holds"}  # fmt: skip
    document = {"candidates": [candidate], "chosen": chosen, "engines_absent": [{"engine": "x", "reason": "y"}]}

    class Stored:
        """A bundle that holds this one file."""

        def __contains__(self, name: object) -> bool:
            return name == layout.CANDIDATES

        def read_json(self, name: str) -> Any:
            return document

        def path(self, name: str) -> Path:
            return tmp_path / name

    with open_bundle(made.folder) as opened:
        table = bundle_scores(opened, opened.golden())
    bundle: Any = Stored()
    name, candidates, absent = _candidates(bundle, table)
    assert (name, [item.name for item in candidates], absent) == (chosen, ["int8"], ({"engine": "x", "reason": "y"},))
    assert bool(candidates[0].means) == means
    del candidate["reason"]
    with pytest.raises(IntegrityError, match="malformed"):
        _candidates(bundle, table)


def test_controls_are_told_with_what_catches_them(made: Made) -> None:
    with open_bundle(made.folder) as opened:
        table = bundle_scores(opened, opened.golden())
    nonsense = replace(table, metrics={name: np.full(len(table), METRICS[name].worst) for name in table.metrics})
    stored = StoredControls("ran", {"permuted-maps": nonsense, "the-engine": table})
    results = judge_controls(POLICY, stored)
    told = control_summaries(results)
    assert [(item.name, item.caught) for item in told] == [("permuted-maps", True), ("the-engine", False)]
    assert told[0].failed == ("mean cosine >= 0.98",)
    assert [item.caught for item in told] == [result.caught for result in results]


def test_the_command_writes_and_says_where(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["report", str(folder), "-o", str(out), "-q", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(out / "report.html")
    assert told["blame"] is None
    assert run(["report", str(folder), "-o", str(out), "-q", "--policy", "strict"]) == 0
    assert load_preset("strict").name in capsys.readouterr().out
