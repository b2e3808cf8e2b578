"""A suggested policy lies between noise and nonsense, by the bounds that will judge, or there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.config.documents import parse_yaml
from edgekit.errors import BadInputError, DefectError, EvidenceNeededError, ExitCode
from edgekit.metrics.agreement import METRICS, score_agreement
from edgekit.metrics.scores import ScoreTable
from edgekit.metrics.statistics import clopper_pearson
from edgekit.policy.clauses import AgreementClause, ShareClause, UndefinedClause
from edgekit.policy.document import policy_from_dict
from edgekit.policy.floors import Measurement, Role
from edgekit.policy.suggest import SHARES, Suggestion, suggest
from edgekit.policy.suggested_clauses import SuggestedClause, SuggestOptions
from edgekit.policy.suggested_text import policy_as_yaml
from edgekit.policy.verdict import judge

Floats = npt.NDArray[np.float64]


def made(
    role: Role,
    teacher: Floats,
    engine: Floats,
    answers: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
    name: str = "",
) -> Measurement:
    """A measurement of these maps [N, h, w]; all answers agree, on four classes, unless told otherwise."""
    states, metrics = score_agreement(teacher, engine)
    count = len(teacher)
    said, says = answers if answers is not None else (np.arange(count) % 4, np.arange(count) % 4)
    table = ScoreTable(
        sample=tuple(f"{place:064x}" for place in range(count)),
        label=np.full(count, -1, dtype=np.int64),
        teacher_class=said.astype(np.int64),
        engine_class=says.astype(np.int64),
        state=states,
        metrics=metrics,
        own_class_metrics={},
        localisation={},
    )
    graph = name or {"floor": "fp32", "reached": "int8", "control": "nonsense"}[role]
    if role == "control":
        return Measurement(graph, "", "", "control", "teacher", role, table)
    return Measurement(graph, "ort-cpu", "run 2", "repeat", "first-run", role, table)


def with_cosine(role: Role, values: Sequence[float], **other: Sequence[int]) -> Measurement:
    """A measurement that holds the cosine alone, of these values."""
    count = len(values)
    same = np.arange(count, dtype=np.int64) % 4
    table = ScoreTable(
        sample=tuple(f"{place:064x}" for place in range(count)),
        label=np.full(count, -1, dtype=np.int64),
        teacher_class=np.array(other.get("teacher", same), dtype=np.int64),
        engine_class=np.array(other.get("engine", same), dtype=np.int64),
        state=("scored",) * count,
        metrics={"cosine": np.array(values, dtype=np.float64)},
        own_class_metrics={},
        localisation={},
    )
    if role == "control":
        return Measurement("nonsense", "", "", "control", "teacher", role, table)
    return Measurement("fp32", "ort-cpu", "run 2", "repeat", "first-run", role, table)


def clause_about(suggestion: Suggestion, what: str) -> SuggestedClause:
    (found,) = [each for each in suggestion.clauses if what in {each.clause.kind, getattr(each.clause, "metric", "")}]
    return found


def noisy(count: int, level: float, seed: int = 0) -> tuple[Measurement, Measurement]:
    """Noise of a level beside maps, and maps of other images as the control."""
    random = np.random.default_rng(seed)
    teacher = random.gamma(0.5, size=(count, 6, 6)) + 1e-3
    return (
        made("floor", teacher, teacher * (1 + level * random.uniform(-1, 1, teacher.shape))),
        made("control", teacher, np.roll(teacher, 1, axis=0)),
    )


def test_a_threshold_stands_where_the_margin_says() -> None:
    floor = with_cosine("floor", [0.99] * 59 + [0.98])
    control = with_cosine("control", [0.2] * 30 + [0.4] * 30)
    for margin, threshold in ((0.1, 0.9), (0.25, 0.75), (0.5, 0.5)):
        clause = clause_about(suggest([floor, control], SuggestOptions(margin=margin)), "cosine")
        # All of the 60 have to hold, so the worst counts. The control fails as soon as half of it stays away, so it is
        # the far half that says how far a threshold may go.
        assert (clause.floor, clause.control) == (pytest.approx(0.98), pytest.approx(0.2))
        assert clause.exact == pytest.approx(0.98 - margin * 0.78)
        assert isinstance(clause.clause, ShareClause)
        assert clause.clause.threshold == threshold
        assert clause.clause.threshold <= clause.exact, "rounded to the side of less"


@pytest.mark.parametrize(("count", "share"), [(14, 0.8), (28, 0.85), (29, 0.9), (58, 0.9), (59, 0.95), (299, 0.99)])
def test_what_a_flawless_engine_shows_is_asked_for(count: int, share: float) -> None:
    suggestion = suggest(noisy(count, 1e-6), SuggestOptions())
    clauses = [each.clause for each in suggestion.clauses if isinstance(each.clause, ShareClause)]
    assert {clause.at_least for clause in clauses} == {share}
    assert clopper_pearson(count, count, 0.95).lower >= share
    beyond = [each for each in SHARES if each > share]
    assert not beyond or clopper_pearson(count, count, 0.95).lower < beyond[0]
    assert suggestion.policy.min_samples <= count


@pytest.mark.parametrize("count", [1, 5, 13])
def test_too_few_samples_are_refused(count: int) -> None:
    with pytest.raises(EvidenceNeededError, match="too small") as caught:
        suggest(noisy(count, 1e-6), SuggestOptions())
    assert caught.value.exit_code == ExitCode.INCONCLUSIVE == 6
    assert "at least 14 samples" in (caught.value.expected or "")
    assert caught.value.found == str(count)
    assert caught.value.hint


def test_samples_without_maps_do_not_count() -> None:
    teacher = np.random.default_rng(0).gamma(0.5, size=(60, 4, 4))
    teacher[10:] = 0
    with pytest.raises(EvidenceNeededError, match="too small") as caught:
        suggest([made("floor", teacher, teacher), made("control", teacher, teacher[::-1])], SuggestOptions())
    assert caught.value.found == "10"


def test_less_confidence_needs_fewer() -> None:
    assert suggest(noisy(13, 1e-6), SuggestOptions(confidence=0.9)).policy.confidence == 0.9


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_maps_that_cannot_be_told_apart_are_refused(level: float) -> None:
    """Every image has the same map, so that another image's map is no worse than noise."""
    teacher = np.broadcast_to(np.random.default_rng(0).gamma(0.5, size=(1, 4, 4)), (60, 4, 4)).copy()
    random = np.random.default_rng(1)
    floor = made("floor", teacher, teacher * (1 + level * random.uniform(-1, 1, teacher.shape)))
    with pytest.raises(EvidenceNeededError, match="cannot be told apart") as caught:
        suggest([floor, made("control", teacher, teacher[::-1])], SuggestOptions())
    assert caught.value.exit_code == 6
    for name in METRICS:
        assert f"{name}: " in (caught.value.found or "")


def test_maps_of_one_cell_are_refused() -> None:
    teacher = np.random.default_rng(0).gamma(1, size=(60, 1, 1)) + 1
    with pytest.raises(EvidenceNeededError, match="cannot be told apart"):
        suggest([made("floor", teacher, teacher), made("control", teacher, teacher[::-1])], SuggestOptions())


def test_a_metric_that_tells_nothing_is_left_out_by_name() -> None:
    """All maps point at one cell, and differ elsewhere."""
    teacher = np.random.default_rng(0).gamma(0.5, size=(60, 4, 4))
    teacher[:, 0, 0] = 100
    suggestion = suggest([made("floor", teacher, teacher), made("control", teacher, teacher[::-1])], SuggestOptions())
    assert "argmax-distance" in suggestion.left_out
    assert "nonsense reach 0" in suggestion.left_out["argmax-distance"]
    assert "spearman" in {getattr(each.clause, "metric", "") for each in suggestion.clauses}
    assert "argmax-distance" not in {getattr(each.clause, "metric", "") for each in suggestion.clauses}


def test_a_threshold_leaves_room_for_one_cell() -> None:
    """A tenth of the way is less than a cell, and less than a cell is nothing."""
    random = np.random.default_rng(0)
    teacher = random.gamma(0.5, size=(60, 8, 8))
    measured = [made("floor", teacher, teacher), made("control", teacher, np.roll(teacher, 1, axis=0))]
    moved = teacher.copy().reshape(60, -1)
    for row in moved:
        order = np.argsort(-row)
        row[order[[12, 13]]] = row[order[[13, 12]]]
    one = made("reached", teacher, moved.reshape(teacher.shape))
    with_room = suggest(measured, SuggestOptions(), [(8, 8)])
    assert judge(with_room.policy, one.table).outcome == "pass"
    assert judge(suggest(measured, SuggestOptions()).policy, one.table).outcome == "fail"
    clause = clause_about(with_room, "iou-top20")
    assert clause.clause == ShareClause("iou-top20", 0.85, 0.95)
    assert "one cell makes 0.8571" in clause.comment


def test_a_metric_whose_one_cell_is_all_there_is_is_left_out() -> None:
    teacher = np.random.default_rng(0).gamma(0.5, size=(60, 2, 2))
    measured = [made("floor", teacher, teacher), made("control", teacher, np.roll(teacher, 1, axis=0))]
    suggestion = suggest(measured, SuggestOptions(), [(2, 2)])
    assert suggestion.left_out.keys() == {"iou-top20"}
    assert "one cell makes 0" in suggestion.left_out["iou-top20"]


def test_as_many_as_may_miss_do_not_widen_a_threshold() -> None:
    """Of 500 samples one may miss a share of 99 %: a single disaster of noise is that one, a second one is not."""
    control = with_cosine("control", [0.1] * 500)
    one = suggest([with_cosine("floor", [0.999] * 499 + [-0.5]), control], SuggestOptions())
    assert (one.samples, one.misses) == (500, 1)
    assert clause_about(one, "cosine").floor == pytest.approx(0.999)
    with pytest.raises(EvidenceNeededError):
        suggest([with_cosine("floor", [0.999] * 498 + [-0.5] * 2), control], SuggestOptions())


def test_the_worst_floor_decides_sample_by_sample() -> None:
    """Two runs that part on different samples are together worse than either."""
    first = with_cosine("floor", [0.999] * 499 + [0.5])
    second = with_cosine("floor", [0.5] + [0.999] * 499)
    control = with_cosine("control", [0.1] * 500)
    assert clause_about(suggest([first, control], SuggestOptions()), "cosine").floor == pytest.approx(0.999)
    assert clause_about(suggest([first, second, control], SuggestOptions()), "cosine").floor == pytest.approx(0.5)


def test_the_nearest_control_decides() -> None:
    floor = with_cosine("floor", [0.99] * 60)
    far, near = with_cosine("control", [0.1] * 60), with_cosine("control", [0.7] * 60)
    near = Measurement("blobs", "", "", "control", "teacher", "control", near.table)
    clause = clause_about(suggest([floor, far, near], SuggestOptions()), "cosine")
    assert (clause.control, clause.control_from) == (pytest.approx(0.7), "blobs")
    assert "blobs reach 0.7" in clause.comment


def test_what_the_engine_reached_decides_nothing() -> None:
    floor, control = noisy(80, 1e-4)
    bad = made("reached", np.random.default_rng(0).gamma(1, size=(80, 6, 6)), np.ones((80, 6, 6)))
    assert suggest([floor, control], SuggestOptions()) == suggest([bad, floor, control, bad], SuggestOptions())


def test_answers_lie_between_noise_and_the_commonest_class() -> None:
    said = np.array([0] * 40 + [1] * 60)
    says = said.copy()
    says[:3] = 1
    values, control = [0.999] * 100, with_cosine("control", [0.1] * 100, teacher=said, engine=said)
    suggestion = suggest([with_cosine("floor", values, teacher=said, engine=says), control], SuggestOptions())
    clause = clause_about(suggestion, "agreement")
    low, high = clopper_pearson(97, 100, 0.95).lower, clopper_pearson(60, 100, 0.95).upper
    assert (clause.floor, clause.control) == (pytest.approx(low, abs=1e-8), pytest.approx(high, abs=1e-8))
    assert isinstance(clause.clause, AgreementClause)
    assert high < clause.clause.at_least <= low - 0.1 * (low - high)
    assert clause.clause.at_least == 0.9


def test_answers_of_one_class_say_nothing() -> None:
    said = [0] * 60
    suggestion = suggest(
        [
            with_cosine("floor", [0.999] * 60, teacher=said, engine=said),
            with_cosine("control", [0.1] * 60, teacher=said, engine=said),
        ],
        SuggestOptions(),
    )
    assert "commonest class agrees in 60" in suggestion.left_out["agreement"]
    assert "agreement" not in {each.clause.kind for each in suggestion.clauses}


def test_empty_maps_are_allowed_for_as_found() -> None:
    teacher = np.random.default_rng(0).gamma(0.5, size=(100, 4, 4))
    teacher[:7] = 0
    nonsense = np.roll(teacher, 1, axis=0)
    nonsense[0] = 0
    suggestion = suggest([made("floor", teacher, teacher), made("control", teacher, nonsense)], SuggestOptions())
    clause = clause_about(suggestion, "undefined").clause
    assert isinstance(clause, UndefinedClause)
    assert clopper_pearson(7, 100, 0.95).upper <= clause.at_most == 0.15


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(14, 320),
    level=st.floats(0, 0.3),
    margin=st.floats(0.01, 0.9),
    confidence=st.sampled_from([0.9, 0.95, 0.99]),
    seed=st.integers(0, 5),
    grids=st.sampled_from([(), ((6, 6),)]),
)
def test_noise_passes_and_nonsense_fails_whatever_was_measured(
    count: int, level: float, margin: float, confidence: float, seed: int, grids: tuple[tuple[int, int], ...]
) -> None:
    floor, control = noisy(count, level, seed)
    try:
        suggestion = suggest([floor, control], SuggestOptions(margin, confidence), grids)
    except EvidenceNeededError:
        assert count < 60 or level > 0.1
        return
    policy = suggestion.policy
    assert judge(policy, floor.table).outcome == "pass"
    nonsense = judge(policy, control.table)
    for result in nonsense.clauses:
        if isinstance(result.clause, ShareClause):
            assert result.outcome == "fail"
    for each in suggestion.clauses:
        if isinstance(each.clause, ShareClause):
            low, high = sorted((each.floor, each.control or 0.0))
            assert low < each.clause.threshold < high or each.clause.threshold == each.floor
    text = policy_as_yaml(suggestion, ["heading"])
    assert policy_from_dict(parse_yaml(text.encode(), where="text"), where="text") == policy


def test_the_same_measurements_give_the_same_policy() -> None:
    assert suggest(noisy(80, 1e-3), SuggestOptions()) == suggest(noisy(80, 1e-3), SuggestOptions())


def test_a_wider_margin_never_asks_for_more() -> None:
    measured = noisy(80, 1e-3)
    before = None
    for margin in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
        found = {
            each.clause.metric: abs(METRICS[each.clause.metric].best - each.clause.threshold)
            for each in suggest(measured, SuggestOptions(margin=margin)).clauses
            if isinstance(each.clause, ShareClause)
        }
        assert before is None or all(found[name] >= before[name] for name in found)
        before = found


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"margin": 1.0}, {"margin": float("nan")}, {"confidence": 0.4}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="out of range"):
        SuggestOptions(**options)


def test_nothing_is_made_of_one_side_alone() -> None:
    floor, control = noisy(60, 1e-3)
    for side in ([floor], [control], []):
        with pytest.raises(DefectError):
            suggest(side, SuggestOptions())


@pytest.mark.parametrize(
    "hostile", ["a\nclauses: []", "a\r- {kind: undefined}", "a\u2028b: 1", "a\x85b", "\x00\x1b[31m", "# : {}", "\ud800"]
)
def test_what_others_call_themselves_stays_a_comment(hostile: str) -> None:
    suggestion = suggest(noisy(60, 1e-3), SuggestOptions(name=f"x{hostile.encode('utf-8', 'replace').decode()}"))
    count = len(suggestion.clauses)
    text = policy_as_yaml(suggestion, [hostile], [hostile] * count)
    read = policy_from_dict(parse_yaml(text.encode("utf-8"), where="text"), where="text")
    assert read == suggestion.policy
