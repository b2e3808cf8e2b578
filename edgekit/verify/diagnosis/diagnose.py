"""Why did the maps not match? Each known fault is undone on the engine's side; what restores the match is named.

A finding is a hint for a person and never changes a verdict: the verdict is computed from the scores alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekit.bundle.golden import GoldenSet
from edgekit.engines.protocol import Runner
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answers import EngineAnswers
from edgekit.verify.diagnosis.finders import FINDERS
from edgekit.verify.diagnosis.finding import Finding, best_of_each
from edgekit.verify.diagnosis.suspect import Suspect

__all__ = ["diagnose"]

# What plain INT8 done well reaches: nothing to explain.
_HEALTHY_COSINE = 0.98
_HEALTHY_AGREEMENT = 0.95
# Below these, faults are looked for even so: cosine flatters maps that are zero in most cells.
_HEALTHY_MEANS = {"spearman": 0.9, "iou-top20": 0.75}
# Below these, drift is told of even so; pruned networks that hold their maps lie between.
_DRIFTED_MEANS = {"spearman": 0.8, "iou-top20": 0.6}
# Where more maps than this are empty on one side, that is the fault, and not what came of another.
_MOST = 0.5


def diagnose(
    golden: GoldenSet, answers: EngineAnswers, table: ScoreTable, runner: Runner | None, student: str = ""
) -> tuple[Finding, ...]:
    """Look for known faults behind a mismatch, most convincing first; empty when maps and answers match.

    Args:
        golden: The golden set.
        answers: What the engine said.
        table: The scores of those answers.
        runner: The engine, to ask it again with differently prepared inputs; None leaves out whatever needs that.
        student: SHA-256 of the student's file that the engine has to be made of; empty where that is not known.
    """
    suspect = Suspect.of(golden, answers, table, runner, student)
    broken = _broken_values(answers, table)
    certain = _found(suspect, "always")
    matches = _mean_cosine_of(table, golden) >= _HEALTHY_COSINE and float(np.mean(table.agrees)) >= _HEALTHY_AGREEMENT
    if matches and _reaches(table, _HEALTHY_MEANS):
        return (*certain, *broken)
    # What leaves the smallest gap explains most; what cannot be undone comes last.
    findings = sorted(
        best_of_each(_found(suspect, "mismatch")),
        key=lambda finding: (finding.after <= finding.before, 1 - finding.after),
    )
    if not (certain or findings):
        findings = _found(suspect, "unexplained")
    told = (*certain, *findings, *broken)
    if any(_explains(finding) for finding in told) or (matches and _reaches(table, _DRIFTED_MEANS)):
        return told
    return (_unexplained(suspect), *told)


def _explains(finding: Finding) -> bool:
    """Whether a finding tells why: that a few maps are empty comes with many a mismatch, and is the cause of none."""
    return finding.fault != "map-vanished" or finding.before > _MOST


def _mean_cosine_of(table: ScoreTable, golden: GoldenSet) -> float:
    """Mean cosine of the first map of every sample, as `mean_cosine` would find it again."""
    columns = table.views[golden.map_spec.views[0].name] if table.views else table.metrics
    compared = columns["cosine"][~np.isnan(columns["cosine"])]
    return float(np.mean(compared)) if len(compared) else 0.0


def _found(suspect: Suspect, when: str) -> list[Finding]:
    return [
        finding
        for finder in FINDERS.values()
        if finder.when == when and not (finder.asks and suspect.runner is None)
        for finding in finder.find(suspect)
    ]


def _reaches(table: ScoreTable, means: Mapping[str, float]) -> bool:
    """Whether the means of metrics, over what could be compared, are at least these."""
    compared = table.compared
    return not compared.any() or all(
        float(np.mean(table.metrics[name][compared])) >= least for name, least in means.items()
    )


def _broken_values(answers: EngineAnswers, table: ScoreTable) -> list[Finding]:
    """Values that are no maps or answers; a single one that is not finite is a fault, some empty maps are not."""
    shares = (
        ("logits-not-finite", "answers", "hold NaN or infinite values", _share_not_finite(answers), 0.0),
        ("map-not-finite", "maps", "hold NaN or infinite values", table.state.count("non_finite") / len(table), 0.0),
        ("map-vanished", "maps", "are empty on one side only", table.state.count("one_zero") / len(table), 0.01),
    )
    return [
        Finding(fault, f"{share:.1%} of the {what} {words}.", share, share)
        for fault, what, words, share, allowed in shares
        if share > allowed
    ]


def _share_not_finite(answers: EngineAnswers) -> float:
    return float(np.mean(~np.isfinite(answers.logits).all(axis=1)))


def _unexplained(suspect: Suspect) -> Finding:
    golden, cosine, agreement = suspect.golden, suspect.cosine, suspect.agreement
    classes = len(golden.card.classes)
    counts = np.bincount(golden.teacher_class, minlength=classes) / len(golden)
    chance = float(np.max(counts))
    # Nearer to guessing than to the teacher: no compression that anybody would try does that.
    if agreement < 0.5 * (1 + chance):
        return Finding(
            "answers-unrelated",
            f"The predictions hardly agree ({agreement:.1%}; guessing would reach {chance:.1%}): the head is random, "
            "its channels are out of order, or the engine belongs to another model.",
            agreement,
            agreement,
        )
    if cosine >= _HEALTHY_COSINE and agreement < _HEALTHY_AGREEMENT:
        return Finding(
            "predictions-flipped",
            f"The maps of the teacher's classes match (mean cosine {cosine:.3f}), but predictions agree on "
            f"{agreement:.1%} only: compression moved the answers and not what they rest on.",
            agreement,
            agreement,
        )
    return Finding(
        "maps-drifted",
        f"Predictions agree on {agreement:.1%} but the maps do not match (mean cosine {cosine:.3f}), and no layout or "
        "input fault explains it: compression moved the maps, or the engine is stale, of earlier weights or of another "
        "build. Answers cannot tell these apart, since either is a sound network that differs a little, and what the "
        "engine says it was made of shows no difference or is not known: compare its digest with the build's record "
        "first. If it is the build's own, prune less, train longer, or hold "
        "the map (compress.matching).",
        cosine,
        cosine,
    )
