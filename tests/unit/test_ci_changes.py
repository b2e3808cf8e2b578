"""What got worse since an older release: pairing by pixels, the sign test, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ci_bundles import blunted_graph, ci_bundle, damaged_graph, report_of
from hypothesis import given
from hypothesis import strategies as st
from tiny_golden import tiny_golden

from edgekit.bundle.golden import GoldenSet
from edgekit.bundle.open import open_bundle
from edgekit.ci.changes import CONFIDENCE, Changes, changes_since
from edgekit.ci.clause_view import clause_identities, good_samples
from edgekit.ci.pairing import pair_samples, same_question, scored
from edgekit.cli.main import run
from edgekit.errors import BadInputError
from edgekit.metrics.agreement import METRICS
from edgekit.policy.clauses import AgreementClause, MeanClause, ShareClause, UndefinedClause
from edgekit.verify.gate import bundle_scores


def part_of(golden: GoldenSet, rows: slice) -> GoldenSet:
    return replace(
        golden,
        **{name: getattr(golden, name)[rows] for name in ("pixels", "labels", "logits", "maps", "names")},
    )


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    work = tmp_path_factory.mktemp("changes")
    whole = tiny_golden(120)
    other_map = replace(whole, map_spec=replace(whole.map_spec, method="hires-cam"))
    return {
        "sound": ci_bundle(work / "sound"),
        "worse": ci_bundle(work / "worse", graph=blunted_graph(work)),
        "fail": ci_bundle(work / "fail", graph=damaged_graph(work)),
        "early": ci_bundle(work / "early", golden=part_of(whole, slice(0, 80))),
        "late": ci_bundle(work / "late", golden=part_of(whole, slice(60, 120)), graph=blunted_graph(work)),
        "elsewhere": ci_bundle(work / "elsewhere", golden=tiny_golden(80, seed=5)),
        "teacher": ci_bundle(work / "teacher", golden=replace(tiny_golden(), teacher="1" * 64)),
        "method": ci_bundle(work / "method", golden=other_map),
    }


def changes_of(before: Path, after: Path) -> Changes:
    changes = report_of(after, baseline=before).changes
    assert changes is not None
    return changes


def scores(path: Path):
    with open_bundle(path) as opened:
        return bundle_scores(opened, opened.golden())


def test_a_release_is_not_worse_than_itself(bundles: dict[str, Path]) -> None:
    changes = changes_of(bundles["sound"], bundles["sound"])
    assert changes.worse == ()
    assert (changes.before, changes.after) == ("pass", "pass")
    assert all(item.difference == 0 and not item.worst for item in changes.metrics)
    assert {item.metric for item in changes.metrics} == set(METRICS)
    assert changes.pairing.to_dict() == {"paired": 80, "only_before": 0, "only_after": 0}


def test_a_little_noise_is_found_though_the_verdict_passes(bundles: dict[str, Path]) -> None:
    changes = changes_of(bundles["sound"], bundles["worse"])
    assert (changes.before, changes.after) == ("pass", "pass")
    (cosine,) = (item for item in changes.metrics if item.metric == "cosine")
    assert cosine.is_worse
    assert any(phrase.startswith("cosine is worse on ") for phrase in changes.worse)
    # Against numpy, from the stored tables.
    before, after = scores(bundles["sound"]), scores(bundles["worse"])
    gain = after.metrics["cosine"] - before.metrics["cosine"]
    present = ~np.isnan(gain)
    assert cosine.difference == pytest.approx(gain[present].mean(), rel=1e-9)
    assert (cosine.counted.worse, cosine.counted.better) == (int((gain < 0).sum()), int((gain > 0).sum()))
    place = int(np.nanargmin(gain))
    worst = cosine.worst[0]
    assert (worst.digest, worst.before, worst.after) == (
        after.sample[place],
        before.metrics["cosine"][place],
        after.metrics["cosine"][place],
    )
    assert worst.name == f"{place}.png"
    assert len(cosine.worst) == 10


def test_the_other_way_round_it_got_better(bundles: dict[str, Path]) -> None:
    changes = changes_of(bundles["worse"], bundles["sound"])
    assert changes.worse == ()
    assert all(item.counted.worse == 0 for item in changes.metrics if item.metric == "cosine")


def test_a_broken_map_is_worse_in_outcome_clauses_and_samples(bundles: dict[str, Path]) -> None:
    changes = changes_of(bundles["sound"], bundles["fail"])
    assert changes.worse[0] == "the outcome was pass and is fail"
    share = next(item for item in changes.clauses if item.identity == "share/cosine")
    assert share.is_worse
    assert share.counted is not None
    before, after = scores(bundles["sound"]), scores(bundles["fail"])
    lost = (before.metrics["cosine"] >= 0.9) & (after.metrics["cosine"] < 0.9)
    assert share.counted.worse == int(lost.sum()) > 0
    assert share.lost[0] == f"{np.flatnonzero(lost)[np.argmin(after.metrics['cosine'][lost])]}.png"
    mean = next(item for item in changes.clauses if item.identity == "mean/spearman")
    assert mean.counted is None
    assert json.loads(json.dumps(changes.to_dict()))["clauses"][0]["worse"] is True


def test_only_images_that_both_have_are_compared(bundles: dict[str, Path]) -> None:
    changes = changes_of(bundles["early"], bundles["late"])
    assert changes.pairing.to_dict() == {"paired": 20, "only_before": 60, "only_after": 40}
    assert all(item.pairs <= 20 for item in changes.metrics)
    before, after = scores(bundles["early"]), scores(bundles["late"])
    (cosine,) = (item for item in changes.metrics if item.metric == "cosine")
    assert cosine.before == pytest.approx(np.nanmean(before.metrics["cosine"][60:80]))
    assert cosine.after == pytest.approx(np.nanmean(after.metrics["cosine"][:20]))


@pytest.mark.parametrize(
    ("other", "message", "found"),
    [
        ("teacher", "not about the same thing", "the teachers are other files"),
        ("method", "not about the same thing", "the maps differ in method"),
        ("elsewhere", "shares no image", "none in both"),
    ],
)
def test_what_cannot_be_paired_is_refused(
    bundles: dict[str, Path], other: str, message: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInputError, match=message) as raised:
        report_of(bundles["sound"], baseline=bundles[other])
    assert found in (raised.value.found or "")
    assert "edgekit compare" in (raised.value.hint or "")
    assert run(["gate", str(bundles["sound"]), "--baseline", str(bundles[other])]) == 3
    capsys.readouterr()


def test_a_bundle_that_was_never_verified_is_no_baseline(bundles: dict[str, Path], tmp_path: Path) -> None:
    from edgekit.bundle.layout import SCORES

    with open_bundle(bundles["sound"]) as opened:
        files = {name: ref for name, ref in opened.manifest.files.items() if name != SCORES}
        unverified = replace(opened, manifest=replace(opened.manifest, files=files, status="unverified"))
        verdict = report_of(bundles["sound"]).result.verdict
        with pytest.raises(BadInputError, match="never verified") as raised:
            changes_since(unverified, scored(opened), verdict)
    assert raised.value.found == "status unverified"


def test_the_gate_tells_of_it_and_keeps_its_exit_code(
    bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["gate", str(bundles["worse"]), "--baseline", str(bundles["sound"]), "--no-github"]) == 0
    out = capsys.readouterr().out
    assert "Worse: cosine is worse on " in out
    assert "Samples that got worse most" in out


def test_golden_sets_that_differ_are_told_of(bundles: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run(["gate", str(bundles["late"]), "--baseline", str(bundles["early"])])
    out = capsys.readouterr().out
    assert "The golden sets differ: 60 images are only in the older one, 40 only in the newer one." in out


def test_the_sign_test_needs_as_many_as_it_says() -> None:
    """k samples of which all got worse: the chance of that is 2 ** -k, held against the share of the confidence."""
    from edgekit.ci.changes import _counted

    tested = 8
    needed = next(k for k in range(1, 99) if 0.5**k < (1 - CONFIDENCE) / tested)
    for count in (needed - 1, needed):
        counted = _counted(np.ones(count), np.zeros(count), tested)
        assert counted.shown is (count >= needed)
    assert _counted(np.zeros(0), np.zeros(0), tested).shown is False


@given(st.lists(st.sampled_from("abcdefgh"), max_size=12), st.lists(st.sampled_from("abcdefgh"), max_size=12))
def test_pairs_are_of_equal_digests_and_none_is_counted_twice(before: list[str], after: list[str]) -> None:
    pairing = pair_samples(before, after)
    paired = [after[row] for row in pairing.after]
    assert paired == [before[row] for row in pairing.before]
    assert set(paired) == set(before) & set(after)
    assert len(paired) == len(set(paired))
    assert pairing.only_before == len(set(before) - set(after))
    assert pairing.only_after == len(set(after) - set(before))


def test_one_question_is_one_teacher_classes_and_maps(bundles: dict[str, Path]) -> None:
    with open_bundle(bundles["sound"]) as opened:
        read = scored(opened)
    assert same_question(read, read) == ""
    other = replace(read, card=replace(read.card, classes=("a", "b", "d", "c")))
    assert same_question(read, other) == "the classes are others"
    assert "layout" in same_question(read, replace(read, map_spec=replace(read.map_spec, layout="nhwc")))


def test_identities_tell_clauses_apart() -> None:
    clauses = (
        ShareClause("cosine", 0.9, 0.9),
        ShareClause("cosine", 0.8, 0.95),
        MeanClause("ssim", 0.5),
        AgreementClause(0.9),
    )
    assert clause_identities(clauses) == ("share/cosine", "share/cosine-2", "mean/ssim", "agreement")


def test_good_samples_are_those_that_a_clause_counts(bundles: dict[str, Path]) -> None:
    table = scores(bundles["fail"])
    for clause in (ShareClause("cosine", 0.9, 0.9), ShareClause("js-divergence", 0.1, 0.9)):
        good = good_samples(clause, table)
        values = table.metrics[clause.metric]
        expected = values >= 0.9 if clause.metric == "cosine" else values <= 0.1
        assert good is not None
        assert (good[~np.isnan(values)] == expected[~np.isnan(values)]).all()
    assert good_samples(AgreementClause(0.9), table) is not None
    assert good_samples(MeanClause("cosine", 0.9), table) is None
    assert good_samples(UndefinedClause(0.1), table) is None
