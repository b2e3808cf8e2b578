"""Which samples a report shows."""

from __future__ import annotations

import numpy as np
from test_report_example import Case, example_report

from edgekit.metrics.scores import ScoreTable
from edgekit.policy.clauses import AgreementClause, MeanClause, ShareClause
from edgekit.policy.policy import Policy
from edgekit.report.selection import ranking_metric, select_samples

COSINE = Policy("p", 0.95, (AgreementClause(0.5), ShareClause("cosine", 0.9, 0.5)), 1)


def _table(cosine: list[float], state: list[str], right: list[bool], name: str = "cosine") -> ScoreTable:
    values = np.array(cosine)
    return ScoreTable(
        sample=tuple(f"{index:064x}" for index in range(len(cosine))),
        label=np.zeros(len(cosine), dtype=np.int64),
        teacher_class=np.zeros(len(cosine), dtype=np.int64),
        engine_class=np.where(right, 0, 1).astype(np.int64),
        state=tuple(state),
        metrics={name: values},
        own_class_metrics={name: values},
        localisation={},
    )


def test_lost_maps_come_before_bad_ones_and_empty_pairs_never() -> None:
    nan = float("nan")
    table = _table(
        [0.5, -1, nan, 0.99, -1, 0.7],
        ["scored", "one_zero", "both_zero", "scored", "non_finite", "scored"],
        [True, True, True, True, False, False],
    )
    chosen = select_samples(COSINE, table)
    assert chosen.metric == "cosine"
    assert chosen.worst == (4, 1, 0, 5, 3)
    assert chosen.typical == ()
    # Right answers only: sample 4 and 5 flipped, sample 3 holds.
    assert chosen.wrong_evidence == (1, 0)
    assert chosen.wrong_evidence_count == 2
    assert chosen.pictured == (4, 1, 0, 5, 3)


def test_typical_samples_stand_nearest_the_median() -> None:
    values = np.linspace(0.5, 1.0, 21)
    table = _table(values.tolist(), ["scored"] * 21, [True] * 21)
    chosen = select_samples(COSINE, table)
    assert chosen.worst == tuple(range(8))
    assert chosen.typical == (10, 9, 11, 8)


def test_where_lower_is_better_the_largest_are_worst() -> None:
    table = _table([0.1, 0.9, 0.0], ["scored"] * 3, [True] * 3, "argmax-distance")
    policy = Policy("p", 0.95, (MeanClause("argmax-distance", 0.5),), 1)
    assert select_samples(policy, table).worst == (1, 0, 2)


def test_the_policy_decides_which_metric_ranks() -> None:
    table = example_report().table
    assert ranking_metric(Policy("p", 0.95, (AgreementClause(0.5), MeanClause("ssim", 0.5)), 1), table) == "ssim"
    assert ranking_metric(Policy("p", 0.95, (AgreementClause(0.5),), 1), table) == "cosine"
    spearman = _table([0.1], ["scored"], [True], "spearman")
    assert ranking_metric(COSINE, spearman) == "spearman"


def test_a_table_without_metrics_still_lists_what_is_known_to_be_wrong() -> None:
    table = _table([-1.0, -1.0], ["one_zero", "scored"], [True, True])
    bare = ScoreTable(**(vars(table) | {"metrics": {}, "own_class_metrics": {}}))
    chosen = select_samples(COSINE, bare)
    assert (chosen.metric, chosen.worst, chosen.wrong_evidence) == (None, (), (0,))


def test_the_choice_is_stable() -> None:
    data = example_report(Case(noise=0.5))
    assert select_samples(data.verdict.policy, data.table) == select_samples(data.verdict.policy, data.table)
    assert len(select_samples(data.verdict.policy, data.table).pictured) <= 18
