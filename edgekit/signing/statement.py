"""What is signed: an in-toto Statement v1 that a bundle's files passed their policy, with the test-result predicate.

The predicate's own fields say what any in-toto tool understands: the verdict, the policy, the clauses that hold. What
only edgekit understands (target, engine, device, times) stands in one extension field, `edgekit`, which in-toto's
parsing rules allow in any object. Only a pass is ever stated, so that is the only thing this can express.
Sources: github.com/in-toto/attestation, spec/v1/statement.md, spec/v1/README.md, spec/predicates/test-result.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, Final

from edgekit.bundle.layout import POLICY
from edgekit.core.canonical import dump_canonical
from edgekit.core.strict import canonical_document, checked_keys, sha256_text
from edgekit.errors import IntegrityError

__all__ = [
    "PREDICATE_TYPE",
    "STATEMENT_FORMAT",
    "STATEMENT_TYPE",
    "BundleClaims",
    "DeviceClaims",
    "Statement",
    "read_statement",
    "time_text",
]

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://in-toto.io/attestation/test-result/v0.1"
STATEMENT_FORMAT: Final = "edgekit.release/1"

_WHAT = "A statement"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_CONTROLS = ("absent", "ran")

_STATEMENT: Mapping[str, tuple[type, ...]] = {
    "_type": (str,),
    "subject": (list,),
    "predicateType": (str,),
    "predicate": (dict,),
}
_SUBJECT: Mapping[str, tuple[type, ...]] = {"name": (str,), "digest": (dict,)}
_DIGEST: Mapping[str, tuple[type, ...]] = {"sha256": (str,)}
_PREDICATE: Mapping[str, tuple[type, ...]] = {
    "result": (str,),
    "configuration": (list,),
    "passedTests": (list,),
    "warnedTests": (list,),
    "failedTests": (list,),
    "edgekit": (dict,),
}
_TEXTS = (
    "bundle",
    "controls",
    "created",
    "createdWith",
    "engine",
    "format",
    "precision",
    "status",
    "target",
    "verdict",
)
_EDGEKIT: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(_TEXTS, (str,)),
    "expires": (str, type(None)),
    "environment": (dict,),
    "device": (dict, type(None)),
}
_DEVICE: Mapping[str, tuple[type, ...]] = dict.fromkeys(
    ("module", "base_module", "l4t", "jetpack", "tensorrt", "gpu"), (str,)
)


@dataclass(frozen=True)
class DeviceClaims:
    """The device that an engine was built and verified on, where one says so. Texts are empty where it does not tell.

    Attributes:
        module: Name of the target that the module was, in its power mode.
        base_module: Name of the module's own target.
        l4t: Jetson Linux version.
        jetpack: Release that brings it.
        tensorrt: Version, exactly.
        gpu: Name of the GPU.
    """

    module: str = ""
    base_module: str = ""
    l4t: str = ""
    jetpack: str = ""
    tensorrt: str = ""
    gpu: str = ""


@dataclass(frozen=True)
class BundleClaims:
    """What a statement repeats of a bundle: all of it can be worked out of the bundle again, and is, to compare.

    Attributes:
        bundle: Digest of the manifest, the bundle's identity.
        target: Name of its target.
        engine: Registry name of its engine.
        precision: "int8" or "fp32".
        status: Of the manifest.
        verdict: SHA-256 of the stored verdict.
        environment: `environment_print()` of the machine that verified the engine; empty where the bundle has none.
        device: The device that built and verified it, where one did.
    """

    bundle: str
    target: str
    engine: str
    precision: str
    status: str
    verdict: str
    environment: Mapping[str, Any]
    device: DeviceClaims | None = None


@dataclass(frozen=True)
class Statement:
    """That the subjects passed their policy.

    Attributes:
        subjects: Bundle path to SHA-256; "golden" stands for the golden set as a whole (see `golden_digest`).
        policy: SHA-256 of the policy.
        passed: The policy's clauses in words, in their order.
        claims: What the statement is about.
        controls: "ran" where the policy was also held against controls, and failed them; "absent" where the evidence
            is from before there were any.
        created: When it was signed: UTC, whole seconds.
        created_with: edgekit version.
        expires: When it ends to hold, UTC, whole seconds; None for never.
    """

    subjects: Mapping[str, str]
    policy: str
    passed: tuple[str, ...]
    claims: BundleClaims
    controls: str
    created: datetime
    created_with: str
    expires: datetime | None = None

    def to_bytes(self) -> bytes:
        """The payload of an envelope: canonical JSON."""
        claims = {key: value for key, value in vars(self.claims).items() if key not in ("device", "environment")}
        return dump_canonical(
            {
                "_type": STATEMENT_TYPE,
                "subject": [
                    {"name": name, "digest": {"sha256": self.subjects[name]}} for name in sorted(self.subjects)
                ],
                "predicateType": PREDICATE_TYPE,
                "predicate": {
                    "result": "PASSED",
                    "configuration": [{"name": POLICY, "digest": {"sha256": self.policy}}],
                    "passedTests": list(self.passed),
                    "warnedTests": [],
                    "failedTests": [],
                    "edgekit": {
                        "format": STATEMENT_FORMAT,
                        **claims,
                        "environment": dict(self.claims.environment),
                        "device": asdict(self.claims.device) if self.claims.device else None,
                        "controls": self.controls,
                        "created": time_text(self.created),
                        "createdWith": self.created_with,
                        "expires": time_text(self.expires) if self.expires else None,
                    },
                },
            }
        )


def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(timezone.utc).strftime(_TIME_FORMAT)


def read_statement(data: bytes, *, where: str) -> Statement:
    """Read a signed payload.

    Raises:
        IntegrityError: Anything but the bytes that `Statement.to_bytes` writes: another type of statement or predicate,
            an unknown, missing or repeated key, a result that is no pass, other spelling, order or spacing.
    """
    raw = checked_keys(canonical_document(data, where=where), _STATEMENT, where=where, what=_WHAT)
    predicate = checked_keys(raw["predicate"], _PREDICATE, where=f"{where}: predicate", what=_WHAT)
    ours = checked_keys(predicate["edgekit"], _EDGEKIT, where=f"{where}: edgekit", what=_WHAT)
    if ours["format"] != STATEMENT_FORMAT:
        raise _malformed(f"{where}: format", STATEMENT_FORMAT, ours["format"])
    if ours["controls"] not in _CONTROLS:
        raise _malformed(f"{where}: controls", " or ".join(_CONTROLS), ours["controls"])
    policies = _digests(predicate["configuration"], f"{where}: configuration")
    passed = predicate["passedTests"]
    if not all(isinstance(text, str) for text in passed):
        raise _malformed(f"{where}: passedTests", "a list of texts", passed)
    statement = Statement(
        subjects=_digests(raw["subject"], f"{where}: subject"),
        policy=policies.get(POLICY, ""),
        passed=tuple(passed),
        claims=_claims(ours, where),
        controls=ours["controls"],
        created=_time(ours["created"], f"{where}: created"),
        created_with=ours["createdWith"],
        expires=None if ours["expires"] is None else _time(ours["expires"], f"{where}: expires"),
    )
    # Types, constants and order are those that are written, or the bytes differ.
    if statement.to_bytes() != data:
        raise _malformed(where, "a pass, stated as edgekit does", "another statement")
    return statement


def _claims(ours: Mapping[str, Any], where: str) -> BundleClaims:
    device = ours["device"]
    if device is not None:
        device = DeviceClaims(**checked_keys(device, _DEVICE, where=f"{where}: device", what=_WHAT))
    return BundleClaims(
        bundle=sha256_text(ours["bundle"], where=f"{where}: bundle"),
        target=ours["target"],
        engine=ours["engine"],
        precision=ours["precision"],
        status=ours["status"],
        verdict=sha256_text(ours["verdict"], where=f"{where}: verdict"),
        environment=ours["environment"],
        device=device,
    )


def _digests(items: list[Any], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        raw = checked_keys(item, _SUBJECT, where=where, what=_WHAT)
        digest = checked_keys(raw["digest"], _DIGEST, where=where, what=_WHAT)
        found[raw["name"]] = sha256_text(digest["sha256"], where=where)
    return found


def _time(text: str, where: str) -> datetime:
    try:
        if _TIME.fullmatch(text) is None:
            raise ValueError(text)
        return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=timezone.utc)
    except ValueError as cause:
        raise _malformed(where, "a time in UTC, such as 2026-01-31T12:00:00Z", text) from cause


def _malformed(where: str, expected: str, found: object) -> IntegrityError:
    return IntegrityError(f"{_WHAT} is malformed.", where=where, expected=expected, found=ascii(found)[:200])
