"""Which samples of two bundles are the same images, and whether their scores speak about the same thing at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.attribution.spec import MapSpec
from edgekit.bundle.open import Bundle
from edgekit.errors import BadInputError
from edgekit.interface.card import ModelCard
from edgekit.metrics.scores import ScoreTable
from edgekit.verify.gate import bundle_scores

__all__ = ["Pairing", "Scored", "pair_samples", "require_same_question", "same_question", "scored"]


@dataclass(frozen=True)
class Scored:
    """A verified bundle's scores and what they are about. Of its golden set without the pixels, which may be many.

    Attributes:
        digest: Of its manifest.
        where: Its folder, for messages.
        teacher: SHA-256 of the teacher's file.
        card: The teacher's.
        map_spec: What the maps are.
        names: Relative file name of each sample. Foreign text.
        table: The scores.
    """

    digest: str
    where: str
    teacher: str
    card: ModelCard
    map_spec: MapSpec
    names: tuple[str, ...]
    table: ScoreTable


def scored(bundle: Bundle) -> Scored:
    """Read a verified bundle. Raises like `edgekit.verify.gate.bundle_scores`."""
    golden = bundle.golden()
    return Scored(
        digest=bundle.manifest.digest,
        where=str(bundle.source),
        teacher=golden.teacher,
        card=golden.card,
        map_spec=golden.map_spec,
        names=golden.names,
        table=bundle_scores(bundle, golden),
    )


@dataclass(frozen=True)
class Pairing:
    """Rows of two score tables that are about the same pixels.

    Attributes:
        before: int [P], rows of the older table.
        after: int [P], rows of the newer one.
        only_before: Images that the newer set lacks.
        only_after: Images that the older set lacks.
    """

    before: npt.NDArray[np.intp]
    after: npt.NDArray[np.intp]
    only_before: int
    only_after: int

    def __len__(self) -> int:
        return len(self.before)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: counts of distinct images."""
        return {"paired": len(self), "only_before": self.only_before, "only_after": self.only_after}


def pair_samples(before: Sequence[str], after: Sequence[str]) -> Pairing:
    """Pair samples by the digests of their pixels, in the order of `after`.

    An image that a set holds several times is paired once, by its first row: an engine answers equal pixels alike, and
    counting them again would show more than was shown.
    """
    old, new = _first_rows(before), _first_rows(after)
    both = [digest for digest in new if digest in old]
    return Pairing(
        before=np.array([old[digest] for digest in both], dtype=np.intp),
        after=np.array([new[digest] for digest in both], dtype=np.intp),
        only_before=len(old) - len(both),
        only_after=len(new) - len(both),
    )


def _first_rows(digests: Sequence[str]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, digest in enumerate(digests):
        rows.setdefault(digest, row)
    return rows


def same_question(before: Scored, after: Scored) -> str:
    """Why these scores are not about the same thing; empty where they are.

    A score is the distance of an engine to its teacher. Of another teacher, or of another kind of map, it is another
    quantity, whatever the images are.
    """
    differing = []
    if before.teacher != after.teacher:
        differing.append("the teachers are other files")
    if before.card.classes != after.card.classes:
        differing.append("the classes are others")
    old, new = before.map_spec.to_dict(), after.map_spec.to_dict()
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if keys:
        differing.append("the maps differ in " + ", ".join(keys))
    return "; ".join(differing)


def require_same_question(before: Scored, after: Scored) -> None:
    """Raise `BadInputError` where `same_question` finds a reason, or where the sets share no image."""
    reason = same_question(before, after)
    if reason:
        raise BadInputError(
            "The baseline's scores are not about the same thing as the bundle's, so nothing got better or worse.",
            where=before.where,
            expected="a release of the same teacher, with maps of the same kind",
            found=reason,
            hint="'edgekit compare' shows two bundles side by side without pairing their scores",
        )
    if not len(pair_samples(before.table.sample, after.table.sample)):
        raise BadInputError(
            "The baseline's golden set shares no image with the bundle's.",
            where=before.where,
            expected="at least one image with the same pixels",
            found=f"{len(before.table)} and {len(after.table)} samples, none in both",
            hint="'edgekit compare' shows two bundles side by side without pairing their scores",
        )
