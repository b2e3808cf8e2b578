"""Envelopes and statements: one byte sequence for what they say, and every other is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_bundles import KEY, NOW, OTHER_KEY

from edgekit.bundle.layout import MAX_ENVELOPE_BYTES
from edgekit.core.canonical import dump_canonical
from edgekit.errors import DefectError, IntegrityError
from edgekit.signing.dsse import PAYLOAD_TYPE, Envelope, pae, parse_envelope
from edgekit.signing.keys import PublicKey
from edgekit.signing.statement import BundleClaims, DeviceClaims, Statement, read_statement, time_text

Change = Callable[[dict[str, Any]], Any]

STATEMENT = Statement(
    subjects={"engine/model.onnx": "a" * 64, "golden": "b" * 64, "manifest.json": "c" * 64},
    policy="d" * 64,
    passed=("mean cosine >= 0.9", "share of samples ..."),
    claims=BundleClaims(
        bundle="e" * 64,
        target="jetson-orin-nano",
        engine="tensorrt",
        precision="int8",
        status="released",
        verdict="f" * 64,
        environment={"machine": "aarch64", "logical_cpus": 6, "packages": {}},
        device=DeviceClaims("jetson-orin-nano-super", "jetson-orin-nano-8gb", "36.4.3", "6.2", "10.3.0", "Orin"),
    ),
    controls="ran",
    created=NOW,
    created_with="0.1.0",
    expires=NOW + timedelta(days=180),
)


def sealed(payload: bytes = b"payload") -> Envelope:
    return Envelope(payload, KEY.public.key_id, KEY.sign(pae(PAYLOAD_TYPE, payload)))


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    """The example of DSSE's protocol.md."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("\u00e9", b"") == b"DSSEv1 2 \xc3\xa9 0 "


@settings(max_examples=80, derandomize=True, deadline=None)
@given(
    one=st.tuples(st.text(max_size=8), st.binary(max_size=8)), two=st.tuples(st.text(max_size=8), st.binary(max_size=8))
)
def test_two_messages_are_never_signed_as_one(one: tuple[str, bytes], two: tuple[str, bytes]) -> None:
    assert (pae(*one) == pae(*two)) is (one == two)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(payload=st.binary(max_size=200))
def test_an_envelope_reads_back(payload: bytes) -> None:
    envelope = sealed(payload)
    read = parse_envelope(envelope.to_bytes(), where="envelope")
    assert read == envelope
    assert read.is_signed_by(KEY.public)
    assert not read.is_signed_by(OTHER_KEY.public)


def test_the_name_of_a_key_proves_nothing() -> None:
    """Signed by one key, said to be signed by another."""
    payload = b"payload"
    forged = Envelope(payload, KEY.public.key_id, OTHER_KEY.sign(pae(PAYLOAD_TYPE, payload)))
    renamed = Envelope(payload, OTHER_KEY.public.key_id, sealed(payload).signature)
    keys: tuple[PublicKey, ...] = (KEY.public, OTHER_KEY.public)
    assert not any(envelope.is_signed_by(key) for envelope in (forged, renamed) for key in keys)


def test_an_envelope_cannot_be_written_too_large() -> None:
    with pytest.raises(DefectError):
        sealed(bytes(MAX_ENVELOPE_BYTES)).to_bytes()


def envelope_cases() -> dict[str, bytes]:
    sound = json.loads(sealed().to_bytes())
    signature = sound["signatures"][0]
    padded = base64.b64encode(b"payloa").decode()
    texts: dict[str, Any] = {
        "a list": [],
        "no signature": {**sound, "signatures": []},
        "two signatures": {**sound, "signatures": [signature, signature]},
        "signatures that are none": {**sound, "signatures": {"0": signature}},
        "no key": {**sound, "signatures": [{"sig": signature["sig"]}]},
        "a key more": {**sound, "note": ""},
        "a key more in the signature": {**sound, "signatures": [{**signature, "cert": ""}]},
        "a key less": {key: value for key, value in sound.items() if key != "payloadType"},
        "another type": {**sound, "payloadType": "application/json"},
        "a type in capitals": {**sound, "payloadType": PAYLOAD_TYPE.upper()},
        "no text": {**sound, "payload": 1},
        "spaces": {**sound, "payload": sound["payload"] + "\n"},
        "the other alphabet": {
            **sound,
            "signatures": [{**signature, "sig": signature["sig"].replace("/", "_").replace("+", "-") + "-_"}],
        },
        "no padding": {**sound, "payload": base64.b64encode(b"payloads").decode().rstrip("=")},
        "spare bits": {**sound, "payload": padded[:-1] + "b" + "=="},
        "not ASCII": {**sound, "payload": "p\u00e4yload"},
        "a short signature": {**sound, "signatures": [{**signature, "sig": base64.b64encode(bytes(63)).decode()}]},
        "a long signature": {**sound, "signatures": [{**signature, "sig": base64.b64encode(bytes(65)).decode()}]},
        "a name in capitals": {**sound, "signatures": [{**signature, "keyid": signature["keyid"].upper()}]},
        "an empty name": {**sound, "signatures": [{**signature, "keyid": ""}]},
    }
    cases = {name: dump_canonical(value) for name, value in texts.items()}
    canonical = sealed().to_bytes()
    cases |= {
        "empty": b"",
        "no JSON": b"{",
        "another spelling": json.dumps(sound).encode(),
        "another order": json.dumps({key: sound[key] for key in reversed(sound)}, indent=1).encode(),
        "a line less": canonical.rstrip(b"\n"),
        "a line more": canonical + b"\n",
        "a mark": b"\xef\xbb\xbf" + canonical,
        "UTF-16": canonical.decode().encode("utf-16"),
        "a repeated key": canonical.replace(b'"payloadType"', b'"payload": "",\n "payloadType"'),
        "an escape": canonical.replace(b"payloadType", b"p\\u0061yloadType"),
        "too large": dump_canonical({**sound, "payload": "A" * MAX_ENVELOPE_BYTES}),
        "nested": b"[" * 5000 + b"]" * 5000,
    }
    return cases


@pytest.mark.parametrize("name", envelope_cases())
def test_anything_else_is_no_envelope(name: str) -> None:
    with pytest.raises(IntegrityError):
        parse_envelope(envelope_cases()[name], where="envelope")


def test_a_statement_reads_back() -> None:
    assert read_statement(STATEMENT.to_bytes(), where="payload") == STATEMENT
    bare = replace(STATEMENT, expires=None, claims=replace(STATEMENT.claims, device=None), passed=(), controls="absent")
    assert read_statement(bare.to_bytes(), where="payload") == bare


def test_times_are_told_in_utc() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert time_text(east) == "2026-01-31T12:00:00Z"
    assert replace(STATEMENT, created=east).to_bytes() == STATEMENT.to_bytes()


def changed(change: Change) -> bytes:
    raw = json.loads(STATEMENT.to_bytes())
    change(raw)
    return dump_canonical(raw)


def set_at(*path: str | int, value: Any) -> Change:
    def change(raw: dict[str, Any]) -> None:
        place: Any = raw
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


STATEMENT_CASES: dict[str, Change] = {
    "another type": set_at("_type", value="https://in-toto.io/Statement/v0.1"),
    "another predicate": set_at("predicateType", value="https://slsa.dev/provenance/v1"),
    "a failure": set_at("predicate", "result", value="FAILED"),
    "a warning": set_at("predicate", "result", value="WARNED"),
    "a failed test": set_at("predicate", "failedTests", value=["mean cosine >= 0.9"]),
    "a warned test": set_at("predicate", "warnedTests", value=["mean cosine >= 0.9"]),
    "a test that is no text": set_at("predicate", "passedTests", value=[1]),
    "no policy": set_at("predicate", "configuration", value=[]),
    "another configuration": set_at("predicate", "configuration", 0, "name", value="recipe.json"),
    "a second configuration": lambda raw: raw["predicate"]["configuration"].append(
        {"name": "x", "digest": {"sha256": "a" * 64}}
    ),
    "a subject of another digest": set_at("subject", 0, "digest", value={"sha1": "a" * 40}),
    "a subject of two digests": set_at("subject", 0, "digest", value={"sha256": "a" * 64, "sha1": "a" * 40}),
    "a digest in capitals": set_at("subject", 0, "digest", "sha256", value="A" * 64),
    "subjects in another order": lambda raw: raw["subject"].reverse(),
    "a subject twice": lambda raw: raw["subject"].append(raw["subject"][0]),
    "a subject without a name": lambda raw: raw["subject"][0].pop("name"),
    "an unknown key": set_at("note", value=""),
    "an unknown key in the predicate": set_at("predicate", "url", value="https://example.org"),
    "an unknown key of ours": set_at("predicate", "edgekit", "note", value=""),
    "another format": set_at("predicate", "edgekit", "format", value="edgekit.release/2"),
    "controls off": set_at("predicate", "edgekit", "controls", value="off"),
    "a time with a zone": set_at("predicate", "edgekit", "created", value="2026-01-31T12:00:00+00:00"),
    "a time with a fraction": set_at("predicate", "edgekit", "created", value="2026-01-31T12:00:00.0Z"),
    "a day that is none": set_at("predicate", "edgekit", "created", value="2026-02-30T12:00:00Z"),
    "a time in other digits": set_at("predicate", "edgekit", "created", value="\u0662026-01-31T12:00:00Z"),
    "an expiry that is none": set_at("predicate", "edgekit", "expires", value="never"),
    "no expiry": lambda raw: raw["predicate"]["edgekit"].pop("expires"),
    "a device with a key more": set_at("predicate", "edgekit", "device", "serial", value="1"),
    "a device that is a text": set_at("predicate", "edgekit", "device", value="orin"),
    "a verdict that is no digest": set_at("predicate", "edgekit", "verdict", value="pass"),
    "a predicate that is none": set_at("predicate", value=[]),
}


@pytest.mark.parametrize("name", STATEMENT_CASES)
def test_anything_else_is_no_statement(name: str) -> None:
    with pytest.raises(IntegrityError):
        read_statement(changed(STATEMENT_CASES[name]), where="payload")


def test_another_spelling_of_a_statement_is_refused() -> None:
    raw = json.loads(STATEMENT.to_bytes())
    for data in (
        json.dumps(raw).encode(),
        STATEMENT.to_bytes() + b" ",
        STATEMENT.to_bytes().replace(b": 6,", b": 6e0,"),
    ):
        assert json.loads(data) == raw
        with pytest.raises(IntegrityError):
            read_statement(data, where="payload")
