"""Verifications that stop when they are decided: which samples they take, when they stop, and what the gate accepts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import with_weights
from tiny_golden import GRAPH, tiny_golden

from edgekit.bundle.assemble import BundleRequest, bundle, contents_from_folder
from edgekit.bundle.golden import write_golden
from edgekit.bundle.layout import CONTROLS, GOLDEN, LINEAGE, MODEL, POLICY, RECIPE, SCORES, VERDICT
from edgekit.bundle.open import Bundle, open_bundle
from edgekit.core.canonical import dump_canonical, read_json
from edgekit.errors import BadInputError, IntegrityError
from edgekit.metrics.scores import ScoreTable
from edgekit.policy.clauses import AgreementClause, MeanClause, ShareClause
from edgekit.policy.document import load_preset
from edgekit.policy.policy import Policy
from edgekit.policy.verdict import judge
from edgekit.verify.gate import bundle_scores, gate
from edgekit.verify.sequence import judged_part, looks, verification_order
from edgekit.verify.stage import SCORES_NAME, VERDICT_NAME, Verification, VerifyRequest, verify, verify_engine

COUNT = 320
WATCHED = Policy(
    "watched",
    0.95,
    (ShareClause("cosine", 0.9, 0.95), AgreementClause(0.8), MeanClause("cosine", 0.8, interval="exact")),
    20,
    sequential=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sequential")
    write_golden(tiny_golden(COUNT), place / "golden")
    return place


def verified(folder: Path, graph: Path = GRAPH, policy: Policy = WATCHED, **other: Any) -> Verification:
    request = VerifyRequest("reference", graph, folder / "golden", policy, **other)
    return verify_engine(request, tiny_golden(COUNT))


def damaged(folder: Path) -> Path:
    def turned(weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
        return weights[::-1] if weights.shape == (4, 3) and weights.max() < 1 else None

    return with_weights(GRAPH, folder / "damaged.onnx", turned)


def test_the_order_is_of_the_samples_and_not_of_their_list() -> None:
    golden = tiny_golden(40)
    order = verification_order(golden)
    assert sorted(order.tolist()) == list(range(40))
    assert order.tolist() != list(range(40))
    turned = golden.part(np.arange(40)[::-1])
    assert golden.part(order).digests == turned.part(verification_order(turned)).digests


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000, 5000])
def test_looks_cover_every_sample_once(count: int) -> None:
    parts = list(looks(count))
    assert parts[0][0] == 0
    assert parts[-1][1] == count
    assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))
    assert all(stop - start >= 64 for start, stop in parts[:-1])


def test_a_sound_engine_is_passed_early_and_the_controls_fail(folder: Path) -> None:
    done = verified(folder)
    assert done.verdict.outcome == "pass"
    assert len(done.table) < COUNT
    assert done.golden_samples == COUNT
    assert done.judged.outcome == "pass"
    assert done.controls.state == "ran"
    part = judged_part(tiny_golden(COUNT), WATCHED, len(done.table))
    assert done.table.sample == part.digests
    assert len(done.answers.logits) == len(done.answers.maps) == len(done.table)


def test_a_stop_sooner_would_not_have_been_decided(folder: Path) -> None:
    """At every look before the last the policy was undecided, or a control had not failed yet."""
    done = verified(folder, controls=False)
    for _, stop in looks(COUNT):
        outcome = judge(WATCHED, done.table.part(np.arange(min(stop, len(done.table))))).outcome
        if stop >= len(done.table):
            assert outcome == "pass"
            break
        assert outcome == "inconclusive"


def test_a_damaged_engine_is_failed_early(folder: Path) -> None:
    done = verified(folder, damaged(folder))
    assert done.verdict.outcome == "fail"
    assert len(done.table) < COUNT
    assert done.findings


def test_what_is_never_decided_takes_every_sample(folder: Path) -> None:
    """The golden set is too small for this bound, whatever the engine."""
    hard = dataclasses.replace(WATCHED, clauses=(ShareClause("cosine", 0.9, 0.999),))
    done = verified(folder, policy=hard)
    assert done.verdict.outcome == "inconclusive"
    assert len(done.table) == COUNT
    assert set(done.table.sample) == set(tiny_golden(COUNT).digests)


def test_a_policy_too_weak_for_a_control_is_found_out(folder: Path) -> None:
    weak = dataclasses.replace(WATCHED, clauses=(AgreementClause(0.8),))
    done = verified(folder, policy=weak)
    assert done.verdict.outcome == "pass"
    assert "permuted-maps" in done.judged.too_weak
    assert done.judged.outcome == "inconclusive"


def test_other_policies_look_at_everything(folder: Path) -> None:
    done = verified(folder, policy=dataclasses.replace(WATCHED, sequential=False))
    assert done.table.sample == tiny_golden(COUNT).digests


def released(folder: Path, work: Path, change: Callable[[dict[str, Any]], None] | None = None) -> Bundle:
    """A bundle of the sound engine; `change` is made to its scores, and the verdict is the one they then give."""
    golden, done = tiny_golden(COUNT), work / "verified"
    verify(VerifyRequest("reference", GRAPH, folder / "golden", WATCHED), done)
    scores, verdict = read_json(done / SCORES_NAME), read_json(done / VERDICT_NAME)
    if change is not None:
        change(scores)
    documents = {
        POLICY: WATCHED.to_dict(),
        RECIPE: {"seed": 0, "verify": {"controls": True}},
        LINEAGE: {"stages": []},
        SCORES: scores,
        VERDICT: verdict,
    }
    request = BundleRequest(
        target="cpu",
        engine="reference",
        precision="fp32",
        status="released",
        card=golden.card,
        map_spec=golden.map_spec,
        contents={
            MODEL: GRAPH,
            CONTROLS: done / "controls.json",
            **{f"evidence/controls/{path.name}": path for path in sorted((done / "controls").iterdir())},
            **contents_from_folder(GOLDEN, folder / "golden"),
            **{name: dump_canonical(document) for name, document in documents.items()},
        },
        lineage={"teacher": "0" * 64},
    )
    bundle(request, work / "release")
    return open_bundle(work / "release")


def test_the_gate_finds_the_verdict_again(folder: Path, tmp_path: Path) -> None:
    opened = released(folder, tmp_path)
    result = gate(opened)
    assert result.outcome == "pass"
    assert result.controls_state == "ran"
    assert len(bundle_scores(opened, opened.golden())) == result.verdict.samples < COUNT


def test_the_gate_refuses_to_judge_them_by_bounds_of_fixed_size(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="whole golden set") as caught:
        gate(released(folder, tmp_path), load_preset("default"))
    assert "edgekit verify" in (caught.value.hint or "")
    stricter = dataclasses.replace(WATCHED, confidence=0.99)
    assert gate(released(folder, tmp_path), stricter).outcome in {"pass", "inconclusive"}


def swapped(scores: dict[str, Any]) -> None:
    sample = scores["sample"]
    sample[0], sample[1] = sample[1], sample[0]


def in_golden_order(scores: dict[str, Any]) -> None:
    scores["sample"] = list(tiny_golden(COUNT).digests[: len(scores["sample"])])


@pytest.mark.parametrize("change", [swapped, in_golden_order])
def test_samples_that_somebody_chose_are_refused(
    change: Callable[[dict[str, Any]], None], folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match="other samples"):
        gate(released(folder, tmp_path, change))


def test_tables_are_joined_and_taken_apart() -> None:
    table = verified_table()
    rows = np.arange(len(table))
    again = ScoreTable.joined([table.part(rows[:7]), table.part(rows[7:])])
    assert again.sample == table.sample
    assert again.state == table.state
    for name, column in table.metrics.items():
        np.testing.assert_array_equal(again.metrics[name], column)


def verified_table() -> ScoreTable:
    golden = tiny_golden(20)
    request = VerifyRequest("reference", GRAPH, Path(), load_preset("default"))
    return verify_engine(request, golden).table
