"""Faults of one part of the network while the other is right: the map branch, or the head.

Both are told by exclusion, from which outputs still follow the teacher, so they speak only where nothing else does.
"""

from __future__ import annotations

import math

import numpy as np

from edgekit.verify.diagnosis.finding import Finding
from edgekit.verify.diagnosis.suspect import Suspect

__all__ = ["find_head_fault", "find_map_branch_fault"]

# INT8 moves maps as far as answers; a branch that answers another question moves them many times further.
_TIMES_FURTHER = 4.0
_ANSWERS_HOLD = 0.2
# Length of the difference of two maps of length 1; rounding leaves some hundredths.
_LEAST_MOVED = 0.1
# Some class's logit falls where the teacher's rises, while logits still vary: other weights read it. Where a body was
# pruned or rounded to pieces, logits hardly vary any more. Channels in another order leave a fifth and more of the
# spread (two networks, six orders each), pruning leaves an eighth and less before any logit turns round. On a third, a
# ResNet-20 that neither number was taken from, pruning without training left 0.18 to 0.58 and predictions as good as
# chance: there the two are one, which the text says.
_SPREADS = 0.17
_AGREES = 0.8


def find_map_branch_fault(suspect: Suspect) -> list[Finding]:
    """The answers are the teacher's and the maps are not: the network is right, and its map branch is not."""
    moved = math.sqrt(max(2 * (1 - suspect.cosine), 0.0))
    error = suspect.logit_error
    states = suspect.table.state
    if states.count("non_finite") or states.count("one_zero") > len(states) / 2:
        return []
    if error > _ANSWERS_HOLD or moved < _LEAST_MOVED or moved < _TIMES_FURTHER * max(error, 1e-3):
        return []
    spec = suspect.golden.map_spec
    text = (
        f"The logits are the teacher's (off by {error:.1%} of their spread) and the maps are not (cosine "
        f"{suspect.cosine:.3f}), and nothing that is done to a map restores them: the network is right and its map "
        f"branch is not. It reads another tap than {spec.tap!r}, weighs that tap's channels in another order, or is "
        f"another method than {spec.method}; maps alone cannot tell these apart, since each is another sum over "
        "channels. Compare the tap in the export's interface.json with the golden set's."
    )
    return [Finding("wrong-tap", text, suspect.cosine, suspect.cosine)]


def find_head_fault(suspect: Suspect) -> list[Finding]:
    """Logits vary as the teacher's do but do not follow them: the body sees the image, and the head misreads it."""
    golden, answers = suspect.golden, suspect.answers
    if len(golden) < 2 * golden.logits.shape[1] or not np.isfinite(answers.logits).all():
        return []
    teacher, engine = (part - part.mean(axis=0, dtype=np.float64) for part in (golden.logits, answers.logits))
    norms = np.linalg.norm(teacher, axis=0) * np.linalg.norm(engine, axis=0)
    follows = (teacher * engine).sum(axis=0) / np.maximum(norms, 1e-30)
    spread = float(engine.std() / max(teacher.std(), 1e-30))
    if follows.min() >= 0 or not _SPREADS <= spread <= 1 / _SPREADS or suspect.agreement > _AGREES:
        return []
    worst = int(np.argmin(follows))
    text = (
        f"Predictions agree on {suspect.agreement:.1%} only. Logits still vary ({spread:.2f} times the teacher's "
        f"spread), but that of {golden.card.classes[worst]!r} correlates by {float(follows[worst]):.2f} with the "
        "teacher's: the head misreads what the body sees. Channels are swapped between them, the head's weights are "
        "random, the engine is another network's, or compression wrecked the body and nothing trained it after that; "
        "answers cannot tell which, since in each the head reads features with other weights than their own."
    )
    return [Finding("head-scrambled", text, suspect.agreement, suspect.agreement)]
