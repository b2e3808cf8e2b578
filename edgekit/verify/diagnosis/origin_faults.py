"""Engines that say themselves that they were made of something else than what they are judged by."""

from __future__ import annotations

from edgekit.engines.made_of import said_to_be_made_of
from edgekit.verify.diagnosis.finding import Finding
from edgekit.verify.diagnosis.suspect import Suspect

__all__ = ["find_stale_engine"]

_SHOWN = 12


def find_stale_engine(suspect: Suspect) -> list[Finding]:
    """The engine's digest of its teacher or student is another than that of golden set or bundle.

    Certain where it is found, however well the maps match; an engine or a bundle that names no digest says nothing.
    """
    details = {} if suspect.runner is None else suspect.runner.info.details
    wanted = {"teacher": ("golden set", suspect.golden.teacher), "student": ("bundle", suspect.student)}
    parted = []
    for name, (whose, digest) in wanted.items():
        said = said_to_be_made_of(details, name)
        if said and digest and said != digest:
            parted.append(f"{name} {said[:_SHOWN]}, where the {whose} names {digest[:_SHOWN]}")
    if not parted:
        return []
    text = (
        f"The engine is stale or of another build, by its own word: it was made of {' and of '.join(parted)}. Export "
        "the student of this teacher again and build the engine of it."
    )
    return [Finding("stale-engine", text, suspect.cosine, suspect.cosine)]
