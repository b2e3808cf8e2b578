"""Faults of one part of the network while the other is right: the map branch, or the head.

Both are told by exclusion, from which outputs still follow the teacher, so they speak only where nothing else does.
"""

from __future__ import annotations

import math

import numpy as np

from edgekit.verify.finding import Finding, mean_cosine
from edgekit.verify.suspect import Suspect

__all__ = ["find_head_fault", "find_map_branch_fault"]

# INT8 moves maps as far as answers; a branch that answers another question moves them many times further.
_TIMES_FURTHER = 4.0
_ANSWERS_HOLD = 0.2
# A logit that follows the teacher's less than this is not that class's any more. Pruned and badly rounded ones, biased
# as they are, still rise and fall with the teacher's while the maps hold.
_FOLLOWS = 0.6


def find_map_branch_fault(suspect: Suspect) -> list[Finding]:
    """The answers are the teacher's and the maps are not: the network is right, and its map branch is not."""
    moved = math.sqrt(max(2 * (1 - suspect.cosine), 0.0))
    error = suspect.logit_error
    if error > _ANSWERS_HOLD or moved < _TIMES_FURTHER * max(error, 1e-3):
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
    """Maps still lie where the teacher's lie while logits do not follow: the body sees, and the head misreads."""
    golden, answers = suspect.golden, suspect.answers
    if len(golden) < 2 * golden.logits.shape[1] or not np.isfinite(answers.logits).all():
        return []
    teacher, engine = (part - part.mean(axis=0, dtype=np.float64) for part in (golden.logits, answers.logits))
    norms = np.linalg.norm(teacher, axis=0) * np.linalg.norm(engine, axis=0)
    follows = (teacher * engine).sum(axis=0) / np.maximum(norms, 1e-30)
    # What maps have in common, whatever the image: the teacher's own, paired with another sample's.
    common = mean_cosine(golden.maps, np.roll(golden.maps, 1, axis=0))
    if follows.min() >= _FOLLOWS or suspect.cosine < 0.5 * (1 + common) or suspect.agreement > 0.9:
        return []
    worst = int(np.argmin(follows))
    text = (
        f"The maps lie where the teacher's do (cosine {suspect.cosine:.2f}; maps of other images reach {common:.2f}), "
        f"but the answers do not follow: the logit of {golden.card.classes[worst]!r} correlates by "
        f"{float(follows[worst]):.2f} with the teacher's. The body sees the image and the head misreads it: channels are "
        "swapped between them, or the head's weights are random or another network's. Which of these, answers cannot "
        "tell, since each is the same features under other weights."
    )
    return [Finding("head-scrambled", text, suspect.agreement, suspect.agreement)]
