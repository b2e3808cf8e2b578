"""Whether a signed statement still holds, by this machine's clock. Times are UTC."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Final

from edgekit.errors import EvidenceNeededError
from edgekit.signing.statement import Statement, time_text

__all__ = ["CLOCK_TOLERANCE", "check_freshness"]

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far a device's clock may be behind the one that signed. It lengthens nothing: an expiry is taken as it is."""


def check_freshness(statement: Statement, now: datetime, max_age: timedelta | None, *, where: str) -> timedelta:
    """Refuse a statement that has expired, is too old, or was made in what this clock calls the future.

    Args:
        statement: Signed by a trusted key.
        now: The time here, with a time zone.
        max_age: How old it may be; None for as old as it says.
        where: The bundle, for messages.

    Returns:
        Its age, not below zero.

    Raises:
        EvidenceNeededError: It is stale, or the clock cannot be right.
    """
    created, now = statement.created, now.astimezone(timezone.utc)
    if now < created - CLOCK_TOLERANCE:
        raise EvidenceNeededError(
            "The release was signed in the future, by this machine's clock: its age cannot be told.",
            where=where,
            expected=f"a clock past {time_text(created)}",
            found=time_text(now),
            hint="set this machine's clock, for example by NTP, and check again",
        )
    if statement.expires is not None and now >= statement.expires:
        raise EvidenceNeededError(
            "The release has expired.",
            where=where,
            expected=f"a time before {time_text(statement.expires)}",
            found=time_text(now),
            hint="install a newer release, or have this one judged and signed again with 'edgekit release'",
        )
    age = max(now - created, timedelta(0))
    if max_age is not None and age > max_age:
        raise EvidenceNeededError(
            "The release is older than this check allows.",
            where=where,
            expected=f"signed after {time_text(now - max_age)}",
            found=f"signed {time_text(created)}",
            hint="install a newer release, or have this one judged and signed again with 'edgekit release'",
        )
    return age
