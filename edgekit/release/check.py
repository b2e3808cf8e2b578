"""The check at install time: whose signature, over which bytes, how old, for which device, and does the evidence pass.

It runs on the device, on numpy and the standard library. The keys are the caller's: a bundle that brought the key it is
to be held against would vouch for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from edgekit.bundle.layout import ENVELOPE
from edgekit.bundle.open import Bundle, open_bundle
from edgekit.errors import EvidenceNeededError, IntegrityError, UsageError
from edgekit.release.freshness import check_freshness
from edgekit.release.installation import Installation, match_device, this_installation
from edgekit.signing.about import check_about
from edgekit.signing.dsse import Envelope, parse_envelope
from edgekit.signing.keys import PublicKey
from edgekit.signing.statement import Statement, read_statement, time_text
from edgekit.verify.gate import GateResult, device_notice, gate

__all__ = ["CheckOptions", "Checked", "check"]


@dataclass(frozen=True)
class CheckOptions:
    """What is asked besides signature and digests.

    Attributes:
        max_age: How long ago the bundle may have been signed; None for as long as the statement itself allows.
        any_device: Do not compare the device.
        now: The time, with a time zone; the clock's unless given.
        here: The device; this machine unless given.
    """

    max_age: timedelta | None = None
    any_device: bool = False
    now: datetime | None = None
    here: Installation | None = None


@dataclass(frozen=True)
class Checked:
    """What was found good. There is no such object for anything else.

    Attributes:
        digest: Of the bundle's manifest.
        key_id: Of the key that signed it, one of those that were given.
        statement: What was signed.
        gate: What the gate says of the stored scores, worked out again here.
        age: Since it was signed.
        device: What was compared of the device; empty where the comparison was turned off.
        notice: What a device that completed the release said of its engine's standing; empty where none did.
    """

    digest: str
    key_id: str
    statement: Statement
    gate: GateResult
    age: timedelta
    device: tuple[str, ...] = ()
    notice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        claims = self.statement.claims
        return {
            "outcome": "pass",
            "bundle": self.digest,
            "key": self.key_id,
            "created": time_text(self.statement.created),
            "expires": time_text(self.statement.expires) if self.statement.expires else None,
            "age_seconds": int(self.age.total_seconds()),
            "target": claims.target,
            "engine": claims.engine,
            "precision": claims.precision,
            "device_compared": list(self.device),
            "notice": self.notice,
            "controls": self.statement.controls,
            "subjects": dict(self.statement.subjects),
        }


def check(path: Path, keys: Sequence[PublicKey], options: CheckOptions | None = None) -> Checked:
    """Check a signed bundle before it is installed.

    Args:
        path: The bundle, a folder or a tar file.
        keys: Whoever's signature is trusted, from anywhere but the bundle; one of them has to have signed.
        options: What is asked besides.

    Raises:
        UsageError: No key was given.
        BadInputError: `path` is no bundle.
        IntegrityError: A byte was changed, it is not signed, not by one of the keys, or the signature is of something
            else.
        UnavailableError: It was verified for another device than this.
        EvidenceNeededError: It has expired or is too old, or the clock cannot be right; or its policy does not fail
            the controls that the bundle holds.
    """
    if not keys:
        raise UsageError("A signature is checked against keys, and none was given.", hint="name one with --key")
    options = options or CheckOptions()
    with open_bundle(path) as opened:
        envelope = _signed_envelope(opened, keys, f"{path}: {ENVELOPE}")
        statement = read_statement(envelope.payload, where=f"{path}: payload of {ENVELOPE}")
        check_about(opened, statement)
        judged = gate(opened)
        _check_verdict(opened, statement, judged)
        age = check_freshness(statement, options.now or datetime.now(timezone.utc), options.max_age, where=str(path))
        device: tuple[str, ...] = ()
        if not options.any_device:
            tested = statement.claims.device
            here = options.here or this_installation(tensorrt=bool(tested and tested.tensorrt))
            device = match_device(statement.claims, here, where=str(path))
        notice = device_notice(opened)
    return Checked(opened.manifest.digest, envelope.key_id, statement, judged, age, device, notice)


def _signed_envelope(opened: Bundle, keys: Sequence[PublicKey], where: str) -> Envelope:
    """The envelope, signed by one of the keys; nothing inside it was looked at before that was known."""
    data = opened.envelope()
    known = {key.key_id: key for key in keys}
    expected = "a signature by " + " or ".join(sorted(known))
    if data is None:
        raise IntegrityError(
            "The bundle is not signed.",
            where=where,
            expected=expected,
            found=f"no {ENVELOPE}",
            hint="sign it with 'edgekit release BUNDLE --key KEY' on the host, where the private key is",
        )
    envelope = parse_envelope(data, where=where)
    if envelope.key_id not in known:
        raise IntegrityError(
            "The bundle is signed by a key that is not trusted here.",
            where=where,
            expected=expected,
            found=f"a signature by {envelope.key_id}",
            hint="where that key is right, give its public half with --key; never take a key from the bundle's sender",
        )
    if not envelope.is_signed_by(known[envelope.key_id]):
        raise IntegrityError(
            "The bundle's signature is wrong.",
            where=where,
            expected=f"a signature by {envelope.key_id} over the envelope's payload",
            found="bytes that are none: payload or signature was changed, or another key signed under this name",
            hint="take the bundle again from where it was signed; do not install this one",
        )
    return envelope


def _check_verdict(opened: Bundle, statement: Statement, judged: GateResult) -> None:
    where = str(opened.folder)
    stated = (len(statement.passed), statement.controls)
    own = (len(judged.verdict.clauses), judged.controls_state)
    if stated != own or opened.manifest.status != "released" or judged.verdict.outcome != "pass":
        raise IntegrityError(
            "The signed statement is not what the bundle's evidence says.",
            where=where,
            expected=f"status released, pass, {stated[0]} clauses, controls {stated[1]}",
            found=f"status {opened.manifest.status}, {judged.verdict.outcome}, {own[0]} clauses, controls {own[1]}",
            hint="have the bundle judged and signed again with 'edgekit release'",
        )
    if judged.outcome != "pass":
        raise EvidenceNeededError(
            "The release's policy does not fail the controls that it has to fail.",
            where=where,
            expected="every control caught",
            found=", ".join(judged.too_weak),
            hint="release it again under a policy that can tell an engine from nonsense",
        )
