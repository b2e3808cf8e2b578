"""What edgekit signs is what others read: securesystemslib's DSSE, OpenSSL's Ed25519, in-toto's published shape."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives import serialization
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey
from signed_bundles import KEY, NOW, OPTIONS, OTHER_KEY, make_bundle

from edgekit.release.check import check
from edgekit.release.sign import release
from edgekit.signing.dsse import Envelope, parse_envelope
from edgekit.signing.keys import PublicKey
from edgekit.signing.private import PrivateKey

# in-toto's attestation framework: spec/v1/statement.md, spec/v1/resource_descriptor.md, spec/predicates/test-result.md.
DIGESTS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string", "pattern": "^[0-9a-f]+$"}}
DESCRIPTOR = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "uri": {"type": "string"},
        "digest": DIGESTS,
        "content": {"type": "string"},
        "downloadLocation": {"type": "string"},
        "mediaType": {"type": "string"},
        "annotations": {"type": "object"},
    },
}
NAMES = {"type": "array", "items": {"type": "string"}}
STATEMENT_SHAPE = {
    "type": "object",
    "required": ["_type", "subject", "predicateType", "predicate"],
    "properties": {
        "_type": {"const": "https://in-toto.io/Statement/v1"},
        "subject": {"type": "array", "minItems": 1, "items": {**DESCRIPTOR, "required": ["digest"]}},
        "predicateType": {"const": "https://in-toto.io/attestation/test-result/v0.1"},
        "predicate": {
            "type": "object",
            "required": ["result", "configuration"],
            "properties": {
                "result": {"enum": ["PASSED", "WARNED", "FAILED"]},
                "configuration": {"type": "array", "items": DESCRIPTOR},
                "url": {"type": "string"},
                "passedTests": NAMES,
                "warnedTests": NAMES,
                "failedTests": NAMES,
            },
        },
    },
}


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_bundle(tmp_path_factory.mktemp("elsewhere"))
    assert release(folder, KEY, now=NOW).envelope is not None
    return folder


@pytest.fixture(scope="module")
def envelope(signed: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((signed / "release.intoto.json").read_bytes())
    return raw


def their_key(key: PublicKey) -> SSlibKey:
    return SSlibKey.from_crypto(serialization.load_pem_public_key(key.to_pem()), keyid=key.key_id)


def test_securesystemslib_verifies_the_envelope(envelope: dict[str, Any]) -> None:
    theirs = TheirEnvelope.from_dict(json.loads(json.dumps(envelope)))
    assert set(theirs.verify([their_key(KEY.public)], 1)) == {KEY.public.key_id}
    with pytest.raises(VerificationError):
        theirs.verify([their_key(OTHER_KEY.public)], 1)


def test_securesystemslib_refuses_it_once_it_was_changed(envelope: dict[str, Any]) -> None:
    theirs = TheirEnvelope.from_dict(json.loads(json.dumps(envelope)))
    theirs.payload = theirs.payload.replace(b"PASSED", b"FAILED")
    with pytest.raises(VerificationError):
        theirs.verify([their_key(KEY.public)], 1)


def test_both_sign_the_same_bytes(envelope: dict[str, Any], signed: Path) -> None:
    ours = parse_envelope((signed / "release.intoto.json").read_bytes(), where="envelope")
    assert TheirEnvelope.from_dict(json.loads(json.dumps(envelope))).pae() == ours.signed_bytes


def test_what_securesystemslib_signs_is_accepted(signed: Path, tmp_path: Path) -> None:
    """The same statement, signed by their signer with a key of its own."""
    signer = CryptoSigner.generate_ed25519()
    public = PublicKey(bytes.fromhex(signer.public_key.keyval["public"]))
    ours = parse_envelope((signed / "release.intoto.json").read_bytes(), where="envelope")
    theirs = bytes.fromhex(signer.sign(ours.signed_bytes).signature)
    folder = make_bundle(tmp_path)
    (folder / "release.intoto.json").write_bytes(Envelope(ours.payload, public.key_id, theirs).to_bytes())
    assert check(folder, [public], OPTIONS).key_id == public.key_id


def test_openssl_verifies_the_signature_over_the_specified_bytes(signed: Path) -> None:
    ours = parse_envelope((signed / "release.intoto.json").read_bytes(), where="envelope")
    kind = b"application/vnd.in-toto+json"
    signed_bytes = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(ours.payload)).encode(), ours.payload])
    key: Any = serialization.load_pem_public_key(KEY.public.to_pem())
    key.verify(ours.signature, signed_bytes)


def test_the_statement_has_the_published_shape(signed: Path) -> None:
    ours = parse_envelope((signed / "release.intoto.json").read_bytes(), where="envelope")
    statement = json.loads(ours.payload)
    jsonschema.Draft202012Validator(STATEMENT_SHAPE).validate(statement)
    names = [item["name"] for item in statement["subject"]]
    assert len(names) == len(set(names))
    extensions = set(statement["predicate"]) - set(STATEMENT_SHAPE["properties"]["predicate"]["properties"])  # type: ignore[index]
    assert extensions == {"edgekit"}, "extension fields are allowed where their name is nobody else's"


def test_the_subjects_are_what_sha256sum_says(signed: Path) -> None:
    statement = json.loads(parse_envelope((signed / "release.intoto.json").read_bytes(), where="e").payload)
    subjects = {item["name"]: item["digest"]["sha256"] for item in statement["subject"]}
    files = {name: digest for name, digest in subjects.items() if name != "golden"}
    assert files == {name: hashlib.sha256((signed / name).read_bytes()).hexdigest() for name in files}
    assert set(files) == {
        "engine/model.onnx",
        "engine/reference.onnx",
        "golden/golden.json",
        "manifest.json",
        "policy.json",
        "scales.json",
    }
    lines = {
        f"golden/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in (signed / "golden").iterdir()
    }
    listing = json.dumps(lines, sort_keys=True, indent=1, separators=(",", ": ")) + "\n"
    assert subjects["golden"] == hashlib.sha256(listing.encode()).hexdigest()


def test_the_key_identifier_is_the_digest_of_the_der_form() -> None:
    der = serialization.load_pem_public_key(KEY.public.to_pem()).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert KEY.public.key_id == hashlib.sha256(der).hexdigest()
    assert isinstance(KEY, PrivateKey)
