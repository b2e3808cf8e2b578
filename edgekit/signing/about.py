"""Which statement a bundle calls for: its subjects and claims, worked out of its own files.

Whether a statement is about a bundle needs no key: everything that it says of the bundle is worked out again and
compared. Who said it is another question, and `edgekit.release` asks that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.bundle.golden_digest import golden_digest
from edgekit.bundle.layout import (
    DEVICE_EVIDENCE,
    ENVELOPE,
    GOLDEN,
    GOLDEN_INDEX,
    LINEAGE,
    MANIFEST,
    MODEL,
    PLAN,
    POLICY,
    SCALES,
    VERDICT,
)
from edgekit.bundle.open import Bundle
from edgekit.core.digests import digest_bytes
from edgekit.engines.tensorrt.plan_file import read_plan
from edgekit.errors import IntegrityError
from edgekit.signing.dsse import Envelope, parse_envelope
from edgekit.signing.statement import BundleClaims, DeviceClaims, Statement, read_statement

__all__ = ["check_about", "claims_of", "stated_envelope", "subjects_of"]

_ENGINE_FOLDER = "engine/"
_AGAIN = f"take envelope and bundle from one release; or delete {ENVELOPE} from the unpacked bundle and sign it anew"


def subjects_of(bundle: Bundle) -> dict[str, str]:
    """Name to SHA-256 of what a statement about `bundle` is about.

    The manifest, every file of the engine (ONNX and plan), the scale table where there is one, the golden set's index,
    the golden set as a whole under "golden", and the policy. The manifest names every other file.
    """
    files = {name: ref.sha256 for name, ref in bundle.manifest.files.items()}
    chosen = {
        name: digest
        for name, digest in files.items()
        if name.startswith(_ENGINE_FOLDER) or name in (SCALES, GOLDEN_INDEX, POLICY)
    }
    return {**chosen, GOLDEN: golden_digest(files), MANIFEST: digest_bytes(bundle.manifest.to_bytes())}


def claims_of(bundle: Bundle) -> BundleClaims:
    """What a statement repeats of `bundle`, which holds a verdict.

    Raises:
        IntegrityError: Its lineage, device evidence or plan is malformed.
    """
    manifest = bundle.manifest
    return BundleClaims(
        bundle=manifest.digest,
        target=manifest.target,
        engine=manifest.engine,
        precision=manifest.precision,
        status=manifest.status,
        verdict=manifest.files[VERDICT].sha256,
        environment=_environment(bundle),
        device=_device(bundle),
    )


def stated_envelope(bundle: Bundle) -> tuple[Envelope, Statement] | None:
    """The envelope in a bundle and what it states, neither believed nor compared yet; None where there is none.

    Raises:
        IntegrityError: It is malformed.
    """
    data = bundle.envelope()
    if data is None:
        return None
    where = str(bundle.folder / ENVELOPE)
    envelope = parse_envelope(data, where=where)
    return envelope, read_statement(envelope.payload, where=f"{where}: payload")


def check_about(bundle: Bundle, statement: Statement) -> None:
    """Refuse a statement about anything else than this bundle.

    Raises:
        IntegrityError: A digest or a claim is not the bundle's own, one is missing, or one is too many.
    """
    if VERDICT not in bundle:
        raise _of_another(bundle, "a bundle with a verdict", "a statement beside one without")
    _compare(bundle, subjects_of(bundle), statement.subjects)
    policy = bundle.manifest.files[POLICY].sha256
    _compare(bundle, {"configuration": policy}, {"configuration": statement.policy})
    _compare(bundle, vars(claims_of(bundle)), vars(statement.claims))


def _compare(bundle: Bundle, own: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    if own == stated:
        return
    different = sorted(key for key in own.keys() | stated.keys() if own.get(key) != stated.get(key))
    name = different[0]
    raise _of_another(bundle, f"{name}: {own.get(name, 'nothing')}", f"{name}: {stated.get(name, 'nothing')}")


def _of_another(bundle: Bundle, expected: str, found: str) -> IntegrityError:
    return IntegrityError(
        "The statement beside a bundle is about something else.",
        where=str(bundle.folder / ENVELOPE),
        expected=expected[:300],
        found=ascii(found)[1:300],
        hint=_AGAIN,
    )


def _environment(bundle: Bundle) -> Mapping[str, Any]:
    """Of the verification of the very artifact that ships, from the stage records; empty where none tells."""
    where = str(bundle.path(LINEAGE))
    raw = bundle.read_json(LINEAGE)
    if not isinstance(raw, dict):
        raise IntegrityError("A bundle's lineage is malformed.", where=where, expected="stage records by name")
    artifact = bundle.manifest.files[PLAN if PLAN in bundle else MODEL].sha256
    try:
        told = [
            record["options"]["environment"]
            for name, record in sorted(raw.items())
            if name.startswith("verify")
            and record["inputs"].get("artifact") == artifact
            and record["options"].get("engine") == bundle.manifest.engine
        ]
        if not all(isinstance(environment, dict) for environment in told):
            raise TypeError("an environment that is no mapping")
    except (AttributeError, KeyError, TypeError) as cause:
        raise IntegrityError("A bundle's lineage is malformed.", where=where, found=repr(cause)) from cause
    return told[0] if told else {}


def _device(bundle: Bundle) -> DeviceClaims | None:
    tensorrt, gpu = "", ""
    if PLAN in bundle:
        header, _ = read_plan(bundle.path(PLAN))
        tensorrt, gpu = header.tensorrt, header.device
    if DEVICE_EVIDENCE not in bundle:
        return DeviceClaims(tensorrt=tensorrt, gpu=gpu) if tensorrt else None
    where = str(bundle.path(DEVICE_EVIDENCE))
    try:
        raw = bundle.read_json(DEVICE_EVIDENCE)["device"]
        names = {key: raw[key] for key in ("module", "base_module", "l4t", "jetpack", "tensorrt")}
    except (KeyError, TypeError) as cause:
        raise IntegrityError("The bundle's device evidence is malformed.", where=where, found=repr(cause)) from cause
    if not all(isinstance(text, str) for text in names.values()) or names["tensorrt"] != (
        tensorrt or names["tensorrt"]
    ):
        raise IntegrityError(
            "The bundle's device evidence is not of its engine.",
            where=where,
            expected=f"TensorRT {tensorrt}",
            found=ascii(names["tensorrt"])[:100],
        )
    return DeviceClaims(**names, gpu=gpu)
