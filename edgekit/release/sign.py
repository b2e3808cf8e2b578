"""The release stage: a signature under what the gate passes, and under nothing else.

Nothing is signed because somebody says so. The gate judges the stored scores anew, and the statement is worked out of
the bundle; whoever holds the key adds the time and how long it holds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from edgekit import __version__
from edgekit.bundle.layout import ENVELOPE, MANIFEST, POLICY
from edgekit.bundle.open import Bundle, open_bundle
from edgekit.bundle.pack import write_tar
from edgekit.core.files import STAGING_PREFIX, foreign_os_errors
from edgekit.errors import BadInputError, DefectError, ExitCode
from edgekit.signing.about import check_about, claims_of, subjects_of
from edgekit.signing.dsse import Envelope
from edgekit.signing.private import PrivateKey
from edgekit.signing.statement import Statement
from edgekit.verify.gate import GateResult, gate

__all__ = ["Release", "release", "sign_bundle"]


@dataclass(frozen=True)
class Release:
    """How signing ended.

    Attributes:
        digest: Of the bundle's manifest.
        gate: What the gate said.
        refusal: Why nothing was signed; empty where it was.
        envelope: What was signed; None where nothing was.
        statement: What it states; None where nothing was signed.
        signed: The folder and tar file that hold the envelope now.
    """

    digest: str
    gate: GateResult
    refusal: str = ""
    envelope: Envelope | None = None
    statement: Statement | None = None
    signed: tuple[Path, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """0 when signed; else 1 where the gate fails, and 6 where it did not come to a pass that can be relied on."""
        if self.envelope is not None:
            return ExitCode.OK
        return ExitCode.GATE_FAILED if self.gate.outcome == "fail" else ExitCode.INCONCLUSIVE


def release(path: Path, key: PrivateKey, *, lifetime: timedelta | None = None, now: datetime | None = None) -> Release:
    """Sign a bundle that passes its gate; an older signature is replaced.

    Where a folder and the tar file of the same name hold the same bundle, both are signed, each in one step: whoever
    looks sees it signed or unsigned, never half of it.

    Args:
        path: The bundle, a folder or a tar file.
        key: Whose signature it is.
        lifetime: After which the statement ends to hold; None for never.
        now: The time of signing, with a time zone; the clock's unless given.

    Returns:
        What was signed, or why nothing was.

    Raises:
        BadInputError: No bundle, one without evidence, a lifetime that is none, or a folder that cannot be written.
        EvidenceNeededError: A candidate that its device has yet to complete.
        IntegrityError: The bundle is damaged, or its evidence is not its own.
    """
    if lifetime is not None and lifetime < timedelta(seconds=1):
        raise BadInputError(
            "A release cannot expire before it begins.", expected="a lifetime above 0", found=str(lifetime)
        )
    with open_bundle(path) as opened:
        twins = _twin(path, opened)
        judged = gate(opened)
        refusal = _refusal(opened, judged)
        if refusal:
            return Release(opened.manifest.digest, judged, refusal)
        envelope, statement = sign_bundle(opened, judged, key, lifetime=lifetime, now=now)
        _store(opened, path, twins, envelope.to_bytes())
        return Release(opened.manifest.digest, judged, "", envelope, statement, (path, *twins))


def sign_bundle(
    bundle: Bundle, judged: GateResult, key: PrivateKey, *, lifetime: timedelta | None, now: datetime | None
) -> tuple[Envelope, Statement]:
    """The signed statement about a bundle that `judged` passes; nothing is written.

    Raises:
        DefectError: It does not pass, or the signature does not verify.
    """
    if judged.outcome != "pass":
        raise DefectError("A bundle was to be signed that does not pass.", where=str(bundle.source))
    created = (now or datetime.now(timezone.utc)).astimezone(timezone.utc).replace(microsecond=0)
    statement = Statement(
        subjects=subjects_of(bundle),
        policy=bundle.manifest.files[POLICY].sha256,
        passed=tuple(clause.text for clause in judged.verdict.clauses),
        claims=claims_of(bundle),
        controls=judged.controls_state,
        created=created,
        created_with=__version__,
        expires=None if lifetime is None else created + timedelta(seconds=int(lifetime.total_seconds())),
    )
    payload = statement.to_bytes()
    unsigned = Envelope(payload, key.public.key_id, b"")
    envelope = Envelope(payload, key.public.key_id, key.sign(unsigned.signed_bytes))
    # Two implementations had to agree, and a bit flipped in memory would otherwise be found on a device.
    if not envelope.is_signed_by(key.public):
        raise DefectError("A signature that was just made does not verify.", where=str(bundle.source))
    check_about(bundle, statement)
    return envelope, statement


def _refusal(bundle: Bundle, judged: GateResult) -> str:
    if judged.outcome == "fail":
        return "the gate fails: the maps did not hold"
    if judged.too_weak:
        return "the policy passes controls that it has to fail: " + ", ".join(judged.too_weak)
    if judged.outcome != "pass":
        return "the gate is inconclusive: more evidence is needed"
    if judged.controls_state == "off":
        return "the controls were turned off, so nothing shows that the policy can fail"
    if bundle.manifest.status != "released":
        return f"the bundle has status {bundle.manifest.status}, and only a release is signed"
    return ""


def _twin(path: Path, opened: Bundle) -> list[Path]:
    """The tar file beside a folder, or the folder beside a tar file, where it is the same bundle."""
    if path.is_dir():
        twin = path.resolve().with_name(f"{path.resolve().name}.tar")
    elif path.suffix == ".tar":
        twin = path.with_suffix("")
    else:
        return []
    with foreign_os_errors(twin, "look for the other form of the bundle"):
        if not (twin.is_file() if path.is_dir() else (twin / MANIFEST).is_file()):
            return []
    with open_bundle(twin) as other:
        return [twin] if other.manifest.digest == opened.manifest.digest else []


def _store(opened: Bundle, path: Path, twins: list[Path], envelope: bytes) -> None:
    """Put an envelope into a bundle in every form that it lies here in; `opened` is `path`, or was unpacked from it."""
    _put(opened.folder.resolve(), envelope)
    for place in (path, *twins):
        if not place.is_dir():
            write_tar(opened.folder, place)
        elif place is not path:
            _put(place.resolve(), envelope)


def _put(folder: Path, envelope: bytes) -> None:
    # Written beside the folder: a file more inside it, even for a moment, would make it another bundle.
    staging = folder.with_name(f"{STAGING_PREFIX}{os.getpid()}-{folder.name}-{ENVELOPE}")
    with foreign_os_errors(folder / ENVELOPE, "write the envelope"):
        try:
            with staging.open("wb") as stream:
                stream.write(envelope)
                stream.flush()
                os.fsync(stream.fileno())
            staging.replace(folder / ENVELOPE)
        finally:
            staging.unlink(missing_ok=True)
