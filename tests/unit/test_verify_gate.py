"""The gate: the stored evidence is judged anew, and a bundle that claims more than its scores show is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty import with_weights
from tiny_golden import GRAPH, tiny_golden

from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import write_golden
from edgekit.bundle.layout import CANDIDATES, GOLDEN, LINEAGE, MODEL, POLICY, RECIPE, SCORES, VERDICT
from edgekit.bundle.open import Bundle, open_bundle
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.errors import BadInputError, ExitCode, IntegrityError
from edgekit.policy.clauses import AgreementClause
from edgekit.policy.document import load_preset
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge
from edgekit.verify.control_files import CONTROLS_NAME, control_file
from edgekit.verify.gate import bundle_policy, bundle_scores, gate
from edgekit.verify.stage import SCORES_NAME, VERDICT_NAME, VerifyRequest, verify

Documents = dict[str, Any]


def assembled(work: Path, graph: Path = GRAPH, count: int = 80, status: str = "released", **other: Any) -> Bundle:
    """A bundle of a verified graph; `other` replaces stored documents, None leaves one out."""
    golden = tiny_golden(count)
    write_golden(golden, work / "golden")
    policy = load_preset("default")
    verify(VerifyRequest("reference", graph, work / "golden", policy), work / "verified")
    documents: Documents = {
        POLICY: policy.to_dict(),
        RECIPE: {"seed": 0},
        LINEAGE: {"stages": []},
        SCORES: read_json(work / "verified" / SCORES_NAME),
        VERDICT: read_json(work / "verified" / VERDICT_NAME),
        **other,
    }
    request = BundleRequest(
        target="cpu",
        engine="reference",
        precision="fp32",
        status=status,
        card=golden.card,
        map_spec=golden.map_spec,
        contents={
            MODEL: graph,
            **contents_from_folder(GOLDEN, work / "golden"),
            **{name: dump_canonical(document) for name, document in documents.items() if document is not None},
        },
        lineage={"teacher": "0" * 64},
    )
    shutil.rmtree(work / "release", ignore_errors=True)
    bundle(request, work / "release")
    return open_bundle(work / "release")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gate")


def damaged(work: Path) -> Path:
    return with_weights(GRAPH, work / "damaged.onnx", lambda w: w[::-1] if w.shape == (4, 3) and w.max() < 1 else None)


def test_a_released_bundle_passes(work: Path) -> None:
    release = assembled(work)
    verdict = gate(release).verdict
    assert verdict.outcome == "pass"
    assert verdict.to_dict() == release.read_json(VERDICT)
    assert bundle_policy(release) == load_preset("default")
    assert bundle_scores(release, release.golden()).sample == tiny_golden(80).digests


def test_a_blocked_bundle_says_so(work: Path, tmp_path: Path) -> None:
    assert gate(assembled(tmp_path, damaged(work), status="blocked")).outcome == "fail"


def test_too_few_samples_stay_inconclusive(tmp_path: Path) -> None:
    assert gate(assembled(tmp_path, count=20, status="inconclusive")).outcome == "inconclusive"


def test_another_policy_gives_another_verdict(work: Path) -> None:
    release = assembled(work)
    strict = gate(release, load_preset("strict")).verdict
    assert strict.policy == load_preset("strict")
    # 80 faultless samples do not show what "strict" wants to be shown.
    assert strict.outcome == "inconclusive"


def test_a_bundle_that_was_never_verified_has_nothing_to_judge(work: Path) -> None:
    release = assembled(work, status="unverified", **{SCORES: None, VERDICT: None})
    with pytest.raises(BadInputError, match="never verified") as caught:
        gate(release)
    assert "edgekit verify" in (caught.value.hint or "")


def test_a_release_whose_own_evidence_fails_is_refused(work: Path, tmp_path: Path) -> None:
    for graph, count in ((damaged(work), 80), (GRAPH, 20)):
        release = assembled(tmp_path / str(count), graph, count, status="released")
        with pytest.raises(IntegrityError, match="calls itself released"):
            gate(release)
        with pytest.raises(IntegrityError):
            gate(release, load_preset("lenient"))


def changed(document: Documents, change: Callable[[Documents], Any]) -> Documents:
    document = {**document}
    change(document)
    return document


def test_a_verdict_that_the_scores_do_not_give(work: Path, tmp_path: Path) -> None:
    """A fail passed off as a pass, with every digest right."""
    good = assembled(work).read_json(VERDICT)
    release = assembled(tmp_path, damaged(work), status="released", **{VERDICT: good})
    with pytest.raises(IntegrityError, match="stored verdict") as caught:
        gate(release)
    assert (caught.value.expected, caught.value.found) == ("fail", "pass")


def test_a_policy_that_was_softened_afterwards(tmp_path: Path, work: Path) -> None:
    release = assembled(tmp_path, damaged(work), status="blocked", **{POLICY: load_preset("lenient").to_dict()})
    with pytest.raises(IntegrityError, match="stored verdict"):
        gate(release)


def test_scores_about_other_samples(work: Path, tmp_path: Path) -> None:
    sound = assembled(work).read_json(SCORES)
    for release in (
        assembled(tmp_path / "fewer", count=79, **{SCORES: sound}),
        assembled(
            tmp_path / "labels",
            **{SCORES: changed(sound, lambda raw: raw.update(label=[(label + 1) % 4 for label in raw["label"]]))},
        ),
    ):
        with pytest.raises(IntegrityError, match="other samples"):
            gate(release)


@pytest.mark.parametrize(
    "raw", [{}, [], {"name": "x"}, {"name": "x", "confidence": 2, "min_samples": 1, "clauses": []}]
)
def test_a_malformed_policy_is_an_integrity_error(tmp_path: Path, raw: Any) -> None:
    release = assembled(tmp_path, **{POLICY: raw})
    with pytest.raises(IntegrityError, match="policy is malformed"):
        gate(release)


def test_a_verdict_that_is_no_mapping(tmp_path: Path) -> None:
    release = assembled(tmp_path, **{VERDICT: [1, 2]})
    with pytest.raises(IntegrityError):
        gate(release)


def with_controls(work: Path, tmp_path: Path, **other: Any) -> Bundle:
    """A bundle with the controls that were verified beside its engine, and a recipe that says they ran."""
    assembled(work)
    stored = {
        f"evidence/{name}": read_json(work / "verified" / name)
        for name in (CONTROLS_NAME, control_file("permuted-maps"), control_file("centre-prior"))
    }
    return assembled(tmp_path, **{RECIPE: {"verify": {"controls": True}}, **stored, **other})


def test_controls_are_judged_by_the_policy_that_judges_the_engine(work: Path, tmp_path: Path) -> None:
    result = gate(with_controls(work, tmp_path))
    assert result.controls_state == "ran"
    assert [(control.name, control.caught) for control in result.controls] == [
        ("centre-prior", True),
        ("permuted-maps", True),
    ]
    assert "before there were controls" in result.controls_missing["random-weights"]
    weak = gate(with_controls(work, tmp_path), Policy("answers", 0.95, (AgreementClause(0.9),), 50))
    assert weak.verdict.outcome == "pass"
    assert weak.too_weak == ("centre-prior", "permuted-maps")
    assert weak.exit_code is ExitCode.INCONCLUSIVE


def test_a_release_under_a_policy_that_is_too_weak_is_refused(work: Path, tmp_path: Path) -> None:
    policy = Policy("answers", 0.95, (AgreementClause(0.9),), 50)
    own = assembled(work)
    documents = {
        POLICY: policy.to_dict(),
        VERDICT: judge(policy, bundle_scores(own, own.golden())).to_dict(),
    }
    with pytest.raises(IntegrityError, match="too weak"):
        gate(with_controls(work, tmp_path / "released", **documents))
    blocked = with_controls(work, tmp_path / "honest", status="inconclusive", **documents)
    assert gate(blocked).exit_code is ExitCode.INCONCLUSIVE


def test_an_older_bundle_has_no_controls_and_passes(work: Path) -> None:
    result = gate(assembled(work))
    assert (result.controls_state, result.controls, result.outcome) == ("absent", (), "pass")


def test_switched_off_shows_and_passes(work: Path, tmp_path: Path) -> None:
    off = {
        "evidence/controls.json": {"format": "edgekit.controls/1", "state": "off", "tables": {}, "missing": {}},
        RECIPE: {"verify": {"controls": False}},
    }
    result = gate(assembled(tmp_path, **off))
    assert (result.controls_state, result.outcome) == ("off", "pass")
    assert result.to_dict()["controls"]["state"] == "off"


@pytest.mark.parametrize(
    "other",
    [
        {"evidence/controls.json": None, "evidence/controls/permuted-maps.json": None},
        {"evidence/controls/permuted-maps.json": None},
        {RECIPE: {"verify": {"controls": False}}},
        {"evidence/controls.json": {"format": "edgekit.controls/1", "state": "off", "tables": {}, "missing": {}}},
    ],
    ids=["no document", "no table", "the recipe says off", "the document says off"],
)
def test_controls_that_are_claimed_and_not_there_are_refused(work: Path, tmp_path: Path, other: Documents) -> None:
    with pytest.raises(IntegrityError, match=r"[Cc]ontrol"):
        gate(with_controls(work, tmp_path, **other))


def chosen(**told: str) -> Documents:
    return {CANDIDATES: {"chosen": "fp32", "candidates": [{"name": "int8"}, {"name": "fp32", **told}]}}


@pytest.mark.parametrize("told", [{}, {"engine": "reference"}, {"engine": "reference", "precision": "fp32"}])
def test_the_evidence_is_of_the_bundles_engine(work: Path, told: dict[str, str]) -> None:
    assert gate(assembled(work, **chosen(**told))).outcome == "pass"


@pytest.mark.parametrize("told", [{"engine": "openvino"}, {"engine": "reference", "precision": "int8"}])
def test_evidence_of_another_engine_is_refused(work: Path, told: dict[str, str]) -> None:
    with pytest.raises(IntegrityError, match="not the bundle's") as raised:
        gate(assembled(work, **chosen(**told)))
    assert raised.value.expected == "fp32 on reference"


@pytest.mark.parametrize(
    "document", [{}, [], {"chosen": "int4", "candidates": [{"name": "fp32"}]}, {"chosen": "fp32", "candidates": [1]}]
)
def test_a_list_of_candidates_that_is_none_is_refused(work: Path, document: Any) -> None:
    with pytest.raises(IntegrityError, match="list of candidates"):
        gate(assembled(work, **{CANDIDATES: document}))
