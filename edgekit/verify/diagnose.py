"""Why did the maps not match? Each known fault is undone on the engine's side; what restores the match is named.

A finding is a hint for a person and never changes a verdict: the verdict is computed from the scores alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgekit.bundle.golden import GoldenSet
from edgekit.engines.protocol import Runner
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.answer_faults import find_class_index_fault, find_class_order_fault
from edgekit.verify.answers import EngineAnswers
from edgekit.verify.finding import Finding
from edgekit.verify.input_faults import find_input_faults
from edgekit.verify.map_faults import find_map_faults

__all__ = ["diagnose"]

# What plain INT8 done well reaches: nothing to explain.
_HEALTHY_COSINE = 0.98
_HEALTHY_AGREEMENT = 0.95
# Samples for questions that the engine has to be asked again for.
_SAMPLES = 32
# Runs of neighbouring samples whose maps are looked at, where there are many, and the samples of one: enough of them
# for a mixed-up order to show.
_RUNS = 4
_RUN = 256


def diagnose(
    golden: GoldenSet, answers: EngineAnswers, table: ScoreTable, runner: Runner | None
) -> tuple[Finding, ...]:
    """Look for known faults behind a mismatch, most convincing first; empty when maps and answers match.

    Args:
        golden: The golden set.
        answers: What the engine said.
        table: The scores of those answers.
        runner: The engine, to ask it again with differently prepared inputs; None leaves out whatever needs that.
    """
    broken = _broken_values(answers, table)
    cosine = _mean_cosine_of(table, golden)
    agreement = float(np.mean(table.agrees))
    if cosine >= _HEALTHY_COSINE and agreement >= _HEALTHY_AGREEMENT:
        return tuple(broken)
    rows = _looked_at(len(golden))
    findings = [
        *find_map_faults(golden.maps[rows], answers.maps[rows]),
        *find_class_order_fault(golden, answers, rows),
    ]
    if runner is not None:
        part = _part(golden)
        findings += find_input_faults(part, runner)
        findings += find_class_index_fault(part, runner)
    # What leaves the smallest gap explains most; what cannot be undone comes last.
    findings.sort(key=lambda finding: (finding.after <= finding.before, 1 - finding.after))
    findings += broken
    return tuple(findings) or (_unexplained(golden, cosine, agreement),)


def _looked_at(count: int) -> npt.NDArray[np.intp]:
    """Samples whose maps are looked at: of many some runs, in each of which neighbours stay neighbours."""
    if count <= _RUNS * _RUN:
        return np.arange(count)
    starts = np.linspace(0, count - _RUN, _RUNS).astype(np.intp)
    return (starts[:, None] + np.arange(_RUN)).reshape(-1)


def _mean_cosine_of(table: ScoreTable, golden: GoldenSet) -> float:
    """Mean cosine of the first map, as `mean_cosine` would find it again."""
    columns = table.views[golden.map_spec.views[0].name] if table.views else table.metrics
    compared = columns["cosine"][~np.isnan(columns["cosine"])]
    return float(np.mean(compared)) if len(compared) else 0.0


def _part(golden: GoldenSet) -> GoldenSet:
    return replace(
        golden,
        pixels=golden.pixels[:_SAMPLES],
        labels=golden.labels[:_SAMPLES],
        logits=golden.logits[:_SAMPLES],
        maps=golden.maps[:_SAMPLES],
        names=golden.names[:_SAMPLES],
        masks=None,
        random=None,
        further=tuple(replace(item, maps=item.maps[:_SAMPLES]) for item in golden.further),
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


def _unexplained(golden: GoldenSet, cosine: float, agreement: float) -> Finding:
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
    if cosine >= _HEALTHY_COSINE:
        return Finding(
            "predictions-flipped",
            f"The maps of the teacher's classes match (mean cosine {cosine:.3f}), but predictions agree on "
            f"{agreement:.1%} only: compression moved the answers and not what they rest on.",
            agreement,
            agreement,
        )
    return Finding(
        "maps-drifted",
        f"Predictions agree on {agreement:.1%} but the maps' mean cosine is {cosine:.3f}, and no layout or input fault "
        "explains it: compression moved the maps. Prune less, train longer, or hold the map (compress.matching).",
        cosine,
        cosine,
    )
