"""Controls: nonsense that no policy may let pass, and a gate that says so where one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_golden import GRAPH, WEIGHT, teacher_answers, tiny_golden

from edgekit.bundle.golden import GoldenSet, RandomAnswers, read_golden, write_golden
from edgekit.core.canonical import dump_canonical, parse_strict
from edgekit.core.digests import digest_bytes
from edgekit.errors import BadInputError, ExitCode, IntegrityError
from edgekit.interface.preprocess import preprocess
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.scores_io import scores_to_dict
from edgekit.policy.clauses import AgreementClause, MeanClause
from edgekit.policy.document import load_preset, preset_names
from edgekit.policy.policy import Policy
from edgekit.verify import control_scores
from edgekit.verify.control_files import CONTROLS_NAME, control_file, control_files, controls_from_files
from edgekit.verify.control_scores import other_samples
from edgekit.verify.controls import CONTROLS, StoredControls, judge_controls
from edgekit.verify.gate import with_controls
from edgekit.verify.stage import VerifyRequest, verify_engine

COUNT = 400


def with_random(golden: GoldenSet) -> GoldenSet:
    """The tiny network with its weights in another order, whose maps are worked out in numpy."""
    images = preprocess(golden.pixels, golden.card.input).astype(np.float64)
    weight = np.random.default_rng(5).permutation(WEIGHT.reshape(-1)).reshape(WEIGHT.shape)
    classes = (images.mean(axis=(2, 3)) @ weight.T).argmax(axis=1)
    sides = [
        np.maximum(np.einsum("nc,nchw->nhw", weight[which], images), 0) for which in (golden.teacher_class, classes)
    ]
    maps = np.stack([side / np.maximum(side.max(axis=(1, 2), keepdims=True), 1e-9) for side in sides])
    return replace(
        golden, random=RandomAnswers("another order", 5, classes.astype(np.int64), (maps.astype(np.float16),))
    )


@pytest.fixture(scope="module")
def golden() -> GoldenSet:
    return with_random(tiny_golden(COUNT, masks=True))


@pytest.fixture(scope="module")
def verified(golden: GoldenSet) -> Any:
    return verify_engine(VerifyRequest("reference", GRAPH, Path(), load_preset("strict")), golden)


def test_every_control_is_scored_and_keeps_what_it_says_it_keeps(verified: Any, golden: GoldenSet) -> None:
    controls, table = verified.controls, verified.table
    assert controls.state == "ran"
    assert tuple(sorted(controls.tables)) == CONTROLS
    assert controls.missing == {}
    for name in ("centre-prior", "permuted-maps"):
        np.testing.assert_array_equal(controls.tables[name].engine_class, table.engine_class)
    assert golden.random is not None
    np.testing.assert_array_equal(controls.tables["random-weights"].engine_class, golden.random.classes)
    for control in controls.tables.values():
        assert control.sample == golden.digests
        assert control.metrics.keys() == control.own_class_metrics.keys() == table.metrics.keys()
        assert control.localisation.keys() == table.localisation.keys()
        np.testing.assert_array_equal(
            control.localisation["teacher/pixel-auc"], table.localisation["teacher/pixel-auc"]
        )
    blind = controls.tables["centre-prior"].localisation
    np.testing.assert_array_equal(blind["engine/pixel-auc"], blind["centre-prior/pixel-auc"])


@pytest.mark.parametrize("preset", preset_names())
def test_the_presets_fail_every_control(verified: Any, preset: str) -> None:
    results = judge_controls(load_preset(preset), verified.controls)
    assert [(result.name, result.caught) for result in results] == [(name, True) for name in CONTROLS]


def test_the_engine_itself_passes_beside_them(verified: Any) -> None:
    assert verified.judged.outcome == "pass"
    assert verified.judged.exit_code is ExitCode.OK


def test_a_policy_of_agreement_alone_is_too_weak(verified: Any) -> None:
    policy = Policy("answers", 0.95, (AgreementClause(0.9),), 50)
    result = with_controls(replace(verified.verdict, policy=policy), verified.controls)
    assert "permuted-maps" in result.too_weak
    assert result.exit_code is ExitCode.INCONCLUSIVE
    told = {control.name: control for control in result.controls}["permuted-maps"]
    assert any("cosine" in clause for clause in told.catching)
    assert "which image" in told.remark
    assert result.to_dict()["controls"]["too_weak"] == list(result.too_weak)


def test_where_objects_stand_in_the_middle_the_centre_prior_is_a_finding(golden: GoldenSet, verified: Any) -> None:
    """A policy that a blob in the middle satisfies is named, and so is what that may mean."""
    table = verified.controls.tables["centre-prior"]
    lowest = float(np.mean(table.metrics["cosine"])) - 0.05
    policy = Policy("mild", 0.95, (MeanClause("cosine", lowest),), 50)
    told = {control.name: control for control in judge_controls(policy, verified.controls)}["centre-prior"]
    assert not told.caught
    assert "middle" in told.remark


def test_a_control_that_is_not_failed_for_want_of_samples_is_not_caught(golden: GoldenSet) -> None:
    few = with_random(tiny_golden(10))
    done = verify_engine(VerifyRequest("reference", GRAPH, Path(), load_preset("strict")), few)
    assert done.judged.outcome == "inconclusive"
    uncaught = [control for control in done.judged.controls if control.verdict.outcome == "inconclusive"]
    assert all(not control.caught for control in uncaught)


def test_controls_that_cannot_be_made_say_why() -> None:
    done = verify_engine(VerifyRequest("reference", GRAPH, Path(), load_preset("default")), tiny_golden(1))
    assert set(done.controls.tables) == {"centre-prior"}
    assert "before there were controls" in done.controls.missing["random-weights"]
    assert "no other sample" in done.controls.missing["permuted-maps"]


def test_switched_off_is_written_down_and_scores_nothing(golden: GoldenSet) -> None:
    request = VerifyRequest("reference", GRAPH, Path(), load_preset("default"), controls=False)
    done = verify_engine(request, golden)
    assert done.controls == StoredControls("off")
    assert done.judged.controls_state == "off"
    assert parse_strict(control_files(done.controls)[CONTROLS_NAME], where="x")["state"] == "off"


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 5))
def test_everybody_gets_the_map_of_another_sample_and_of_another_class_where_there_is_one(
    classes: list[int], seed: int
) -> None:
    labels = np.array(classes, dtype=np.int64)
    source = other_samples(labels, seed)
    assert sorted(source.tolist()) == list(range(len(labels)))
    assert (source != np.arange(len(labels))).all()
    largest = int(np.bincount(labels).max())
    # Of a class that is more than half of all, so many have to stay among themselves.
    assert int((labels[source] == labels).sum()) == max(0, 2 * largest - len(labels))
    np.testing.assert_array_equal(source, other_samples(labels, seed))


# --- stored and read back -------------------------------------------------------------------------------------------


def read_back(files: dict[str, bytes], golden: GoldenSet, table: ScoreTable) -> StoredControls:
    def read(name: str) -> bytes:
        if name not in files:
            raise IntegrityError("A control is missing.", where=name)
        return files[name]

    return controls_from_files(files[CONTROLS_NAME], read, golden, table, where="evidence")


def test_what_was_written_reads_back(verified: Any, golden: GoldenSet) -> None:
    found = read_back(control_files(verified.controls), golden, verified.table)
    assert found.state == "ran"
    for name, table in found.tables.items():
        assert scores_to_dict(table) == scores_to_dict(verified.controls.tables[name])


def test_of_many_samples_some_are_enough(golden: GoldenSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same some for everybody, drawn by digests; scores of the engine are of all samples."""
    monkeypatch.setattr(control_scores, "CONTROLLED", 30)
    done = verify_engine(VerifyRequest("reference", GRAPH, Path(), load_preset("default")), golden)
    rows = control_scores.controlled_rows(golden)
    assert len(rows) == 30
    assert (np.diff(rows) > 0).all()
    assert len(done.table) == len(golden) > 30
    for table in done.controls.tables.values():
        assert table.sample == tuple(golden.digests[row] for row in rows)
    assert set(done.controls.tables) == set(read_back(control_files(done.controls), golden, done.table).tables)
    monkeypatch.setattr(control_scores, "CONTROLLED", 29)
    with pytest.raises(IntegrityError, match="other samples"):
        read_back(control_files(done.controls), golden, done.table)


Files = dict[str, bytes]


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Files, Any], None]:
    """The document changed."""

    def apply(files: Files, _verified: Any) -> None:
        document = parse_strict(files[CONTROLS_NAME], where="x")
        change(document)
        files[CONTROLS_NAME] = dump_canonical(document)

    return apply


def swapped(name: str, table: Callable[[Any], ScoreTable]) -> Callable[[Files, Any], None]:
    """A control's table replaced, with its digest put right."""

    def apply(files: Files, verified: Any) -> None:
        data = dump_canonical(scores_to_dict(table(verified)))
        files[control_file(name)] = data
        edited(lambda document: document["tables"].update({name: digest_bytes(data)}))(files, verified)

    return apply


def better(verified: Any) -> ScoreTable:
    table = verified.controls.tables["centre-prior"]
    return replace(table, metrics={**table.metrics, "cosine": np.ones(len(table))})


TAMPERED: dict[str, Callable[[Files, Any], Any]] = {
    "a table left out": lambda files, _: files.pop(control_file("permuted-maps")),
    "a control left out": edited(lambda document: document["tables"].pop("permuted-maps")),
    "a control said to be missing": edited(
        lambda document: document["missing"].update({"random-weights": document["tables"].pop("random-weights")})
    ),
    "a control of another name": edited(lambda document: document["tables"].update({"other": "0" * 64})),
    "off with tables": edited(lambda document: document.update(state="off")),
    "an unknown state": edited(lambda document: document.update(state="fine")),
    "another format": edited(lambda document: document.update(format="x")),
    "a further key": edited(lambda document: document.update(more=1)),
    "no document": lambda files, _: files.update({CONTROLS_NAME: b"[]"}),
    "another digest": lambda files, _: files.update({control_file("centre-prior"): files[CONTROLS_NAME]}),
    "the engine's own scores as random weights": swapped("random-weights", lambda verified: verified.table),
    "the engine's own scores as centre prior": swapped("centre-prior", lambda verified: verified.table),
    "a centre prior that was improved": swapped("centre-prior", better),
    "answers that are not the engine's": swapped(
        "permuted-maps",
        lambda verified: replace(
            verified.controls.tables["permuted-maps"], engine_class=(verified.table.engine_class + 1) % 4
        ),
    ),
    "other samples": swapped(
        "permuted-maps",
        lambda verified: replace(verified.controls.tables["permuted-maps"], sample=verified.table.sample[::-1]),
    ),
    "fewer metrics": swapped(
        "permuted-maps",
        lambda verified: replace(
            verified.controls.tables["permuted-maps"],
            metrics={"cosine": verified.table.metrics["cosine"]},
            own_class_metrics={"cosine": verified.table.metrics["cosine"]},
        ),
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_controls_that_were_touched_are_refused(verified: Any, golden: GoldenSet, how: str) -> None:
    files = control_files(verified.controls)
    TAMPERED[how](files, verified)
    with pytest.raises(IntegrityError) as caught:
        read_back(files, golden, verified.table)
    assert caught.value.where


def test_the_engines_own_scores_as_permuted_maps_are_too_weak_a_policy(verified: Any, golden: GoldenSet) -> None:
    """They cannot be computed again without the engine's maps; as a control, they pass, and that is told."""
    files = control_files(verified.controls)
    swapped("permuted-maps", lambda verified: verified.table)(files, verified)
    found = read_back(files, golden, verified.table)
    result = with_controls(verified.verdict, found)
    assert result.too_weak == ("permuted-maps",)
    assert result.exit_code is ExitCode.INCONCLUSIVE


# --- in the golden set ----------------------------------------------------------------------------------------------


def test_a_golden_set_keeps_the_random_network(golden: GoldenSet, tmp_path: Path) -> None:
    write_golden(golden, tmp_path)
    found = read_golden(tmp_path)
    assert golden.random is not None
    assert found.random is not None
    assert (found.random.recipe, found.random.seed) == ("another order", 5)
    np.testing.assert_array_equal(found.random.maps[0], golden.random.maps[0])
    (tmp_path / "random_maps.npy").unlink()
    with pytest.raises(BadInputError, match="no such file"):
        read_golden(tmp_path)


def test_classes_that_do_not_exist_are_refused(golden: GoldenSet, tmp_path: Path) -> None:
    assert golden.random is not None
    broken = replace(golden.random, classes=np.full(COUNT, 7, dtype=np.int64))
    write_golden(replace(golden, random=broken), tmp_path)
    with pytest.raises(IntegrityError, match="random network"):
        read_golden(tmp_path)


def test_the_teachers_maps_are_worked_out_apart(golden: GoldenSet) -> None:
    _, maps = teacher_answers(preprocess(golden.pixels, golden.card.input))
    np.testing.assert_allclose(maps, golden.maps, atol=1e-6)
