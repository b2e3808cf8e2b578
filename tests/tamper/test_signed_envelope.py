"""The envelope of a signed bundle: every byte of it changed, trimmed, moved, replayed, and signed by somebody else."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from faulty import with_weights
from signed_bundles import KEY, NOW, OPTIONS, OTHER_KEY
from tampering import changed_at, copied, counted, forged_envelope, put, signed_bundle
from tiny_golden import GRAPH

from edgekit.bundle.layout import ENVELOPE, MAX_ENVELOPE_BYTES
from edgekit.bundle.open import open_bundle
from edgekit.core.canonical import dump_canonical
from edgekit.errors import EdgekitError
from edgekit.release.check import check
from edgekit.release.sign import release, sign_bundle
from edgekit.signing.dsse import PAYLOAD_TYPE, Envelope, pae, parse_envelope
from edgekit.verify.gate import gate

ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed_bundle(tmp_path_factory.mktemp("signed-envelope"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles by the same signer that differ in one thing each."""
    work = tmp_path_factory.mktemp("others")
    graph = with_weights(GRAPH, work / "other.onnx", lambda w: w * 1.0001 if w.shape == (4, 3) else None)
    return {
        "engine file": signed_bundle(work / "1", graph=graph),
        "policy": signed_bundle(work / "2", policy="default", count=80),
        "golden set": signed_bundle(work / "3", seed=1),
        "number of samples": signed_bundle(work / "4", count=40),
        "target": signed_bundle(work / "5", target="cpu-arm", environment={"machine": "aarch64", "system": "Linux"}),
        "engine": signed_bundle(work / "6", engine="ort-cpu"),
        "precision": signed_bundle(work / "7", precision="fp32"),
        "environment": signed_bundle(work / "8", environment=None),
    }


def envelope_of(folder: Path) -> Envelope:
    return parse_envelope((folder / ENVELOPE).read_bytes(), where="envelope")


def test_every_byte_of_the_envelope(signed: Path, tmp_path: Path) -> None:
    """Most of it is Base64, where many a change is text as good as the old one."""
    victim = copied(signed, tmp_path / "victim")
    path = victim / ENVELOPE
    with counted(tmp_path, 3000) as tally:
        for position in range(path.stat().st_size):
            with changed_at(path, position, 1 << position % 7):
                tally.attempt(victim, f"envelope at {position}")
    assert check(victim, [KEY.public], OPTIONS).digest


def test_an_envelope_moved_to_another_bundle(signed: Path, others: dict[str, Path], tmp_path: Path) -> None:
    """Replayed for another engine, policy, golden set, device: every one by the right key, about something else."""
    places = {"this": signed, **others}
    with counted(tmp_path, 72) as tally:
        for source, folder in places.items():
            for target, other in places.items():
                if source == target:
                    continue
                victim = copied(other, tmp_path / "victim")
                shutil.copy(folder / ENVELOPE, victim / ENVELOPE)
                tally.attempt(victim, f"envelope of {source} in {target}")
    assert len(places) == 9


def rewritten(folder: Path, change: Callable[[dict[str, Any]], Any]) -> list[bytes]:
    """Envelopes whose statement was changed: with the old signature, and signed by somebody else under both names."""
    envelope = envelope_of(folder)
    raw = json.loads(envelope.payload)
    change(raw)
    payload = dump_canonical(raw)
    theirs = OTHER_KEY.sign(pae(PAYLOAD_TYPE, payload))
    return [
        Envelope(payload, KEY.public.key_id, envelope.signature).to_bytes(),
        Envelope(payload, KEY.public.key_id, theirs).to_bytes(),
        Envelope(payload, OTHER_KEY.public.key_id, theirs).to_bytes(),
    ]


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an older statement made young": lambda raw: raw["predicate"]["edgekit"].update(created="2026-01-31T12:00:01Z"),
    "an expiry": lambda raw: raw["predicate"]["edgekit"].update(expires="2099-01-01T00:00:00Z"),
    "another status": lambda raw: raw["predicate"]["edgekit"].update(status="blocked"),
    "another device": lambda raw: raw["predicate"]["edgekit"].update(target="cpu-arm"),
    "another machine": lambda raw: raw["predicate"]["edgekit"]["environment"].update(machine="aarch64"),
    "controls": lambda raw: raw["predicate"]["edgekit"].update(controls="ran"),
    "a clause less": lambda raw: raw["predicate"]["passedTests"].pop(),
    "no policy": lambda raw: raw["predicate"]["configuration"].clear(),
    "another verdict": lambda raw: raw["predicate"]["edgekit"].update(verdict="0" * 64),
    "nothing at all": lambda raw: None,
}


def test_a_statement_rewritten_and_signed_by_somebody_else(signed: Path, tmp_path: Path) -> None:
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 60) as tally:
        names = [item["name"] for item in json.loads(envelope_of(signed).payload)["subject"]]
        trims = {f"without {name}": removing(name) for name in names}
        swaps = {f"with another {name}": digesting(name) for name in names}
        for what, change in {**CHANGES, **trims, **swaps}.items():
            for number, data in enumerate(rewritten(signed, change)):
                if data != (signed / ENVELOPE).read_bytes():
                    put(victim / ENVELOPE, data)
                    tally.attempt(victim, f"{what}, {number}")


def removing(name: str) -> Callable[[dict[str, Any]], Any]:
    def change(raw: dict[str, Any]) -> None:
        raw["subject"] = [item for item in raw["subject"] if item["name"] != name]

    return change


def digesting(name: str) -> Callable[[dict[str, Any]], Any]:
    def change(raw: dict[str, Any]) -> None:
        for item in raw["subject"]:
            if item["name"] == name:
                item["digest"]["sha256"] = "0" * 64

    return change


def test_a_payload_trimmed_anywhere(signed: Path, tmp_path: Path) -> None:
    envelope = envelope_of(signed)
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 400) as tally:
        for length in range(0, len(envelope.payload), 5):
            for payload in (envelope.payload[:length], envelope.payload[length + 1 :]):
                trimmed = Envelope(payload, envelope.key_id, envelope.signature)
                put(victim / ENVELOPE, trimmed.to_bytes())
                tally.attempt(victim, f"payload cut at {length}")


def test_every_spelling_of_the_signature(signed: Path, tmp_path: Path) -> None:
    """The same point in another form, S beyond the order, halves exchanged, empty, twice."""
    envelope = envelope_of(signed)
    point, number = envelope.signature[:32], int.from_bytes(envelope.signature[32:], "little")
    spellings = {
        **{f"S + {n} L": point + (number + n * ORDER).to_bytes(32, "little") for n in range(1, 15)},
        "S negated": point + ((ORDER - number) % ORDER).to_bytes(32, "little"),
        "R negated": point[:31] + bytes([point[31] ^ 128]) + envelope.signature[32:],
        "exchanged": envelope.signature[32:] + point,
        "zeros": bytes(64),
        "ones": b"\xff" * 64,
        "R neutral, S zero": b"\1" + bytes(63),
    }
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 20) as tally:
        for what, signature in spellings.items():
            put(victim / ENVELOPE, Envelope(envelope.payload, envelope.key_id, signature).to_bytes())
            tally.attempt(victim, what)


def test_several_signatures_and_none(signed: Path, tmp_path: Path) -> None:
    raw = json.loads((signed / ENVELOPE).read_bytes())
    good = raw["signatures"][0]
    payload = base64.b64decode(raw["payload"])
    theirs = base64.b64encode(OTHER_KEY.sign(pae(PAYLOAD_TYPE, payload))).decode()
    foreign = {"keyid": OTHER_KEY.public.key_id, "sig": theirs}
    posing = {"keyid": KEY.public.key_id, "sig": theirs}
    lists: list[list[Any]] = [
        [],
        [good, good],
        [good, foreign],
        [foreign, good],
        [good, posing],
        [posing, good],
        [foreign],
        [posing],
        [{**good, "keyid": OTHER_KEY.public.key_id}],
        [{**good, "keyid": ""}],
        [{"sig": good["sig"]}],
        [{**good, "key": KEY.public.to_pem().decode()}],
        [good] * 500,
        [None],
    ]
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, len(lists)) as tally:
        for number, signatures in enumerate(lists):
            put(victim / ENVELOPE, dump_canonical({**raw, "signatures": signatures}))
            tally.attempt(victim, f"signatures {number}")


def test_a_bundle_signed_by_somebody_else(signed: Path, others: dict[str, Path], tmp_path: Path) -> None:
    """A whole and sound release, under a key of its own, under the name of ours, and with the key put inside."""
    with counted(tmp_path, 27) as tally:
        for name, folder in {"this": signed, **others}.items():
            victim = copied(folder, tmp_path / "victim")
            for key_id in (OTHER_KEY.public.key_id, KEY.public.key_id, "0" * 64):
                put(victim / ENVELOPE, forged_envelope(victim, key_id))
                tally.attempt(victim, f"{name} signed under {key_id[:8]}")


def test_an_envelope_of_impossible_size_or_of_something_else(signed: Path, tmp_path: Path) -> None:
    data = (signed / ENVELOPE).read_bytes()
    nested: Any = json.loads(data)
    for _ in range(70):
        nested = {"payload": nested}
    contents = [
        b"",
        b"\0",
        b"null",
        b"[]",
        b"{}",
        data * 2,
        data + bytes(MAX_ENVELOPE_BYTES),
        b" " * MAX_ENVELOPE_BYTES,
        b"[" * 100_000,
        b'{"payload":' * 20_000,
        dump_canonical(nested),
        json.dumps(json.loads(data)).encode(),
        b"\xef\xbb\xbf" + data,
        data.decode().encode("utf-16"),
        data.replace(b'"keyid"', b'"keyid": "", "keyid"'),
        data.replace(b"\n", b"\r\n"),
    ]
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, len(contents)) as tally:
        for number, content in enumerate(contents):
            put(victim / ENVELOPE, content)
            tally.attempt(victim, f"content {number}")
        (victim / ENVELOPE).unlink()
        tally.attempt(victim, "no envelope")


def test_an_expired_envelope_is_not_renewed_by_its_reader(signed: Path, tmp_path: Path) -> None:
    """A day's release, and the same payload with every other time written into it."""
    victim = copied(signed, tmp_path / "victim")
    release(victim, KEY, now=NOW - timedelta(days=2), lifetime=timedelta(days=1))
    with pytest.raises(EdgekitError, match="has expired") as raised:
        check(victim, [KEY.public], OPTIONS)
    assert raised.value.exit_code == 6
    envelope = envelope_of(victim)
    with counted(tmp_path, 20) as tally:
        for year in range(2026, 2047):
            payload = envelope.payload.replace(b'"expires": "2026', b'"expires": "%d' % (year + 1))
            assert payload != envelope.payload
            changed = Envelope(payload, envelope.key_id, envelope.signature)
            put(victim / ENVELOPE, changed.to_bytes())
            tally.attempt(victim, f"expires in {year}")


def test_signing_is_what_makes_the_difference(signed: Path, tmp_path: Path) -> None:
    """The forgers' tools, used with the right key, make an envelope that is accepted: the refusals are no accident."""
    victim = copied(signed, tmp_path / "victim")
    (victim / ENVELOPE).unlink()
    with open_bundle(victim) as opened:
        envelope, _ = sign_bundle(opened, gate(opened), KEY, lifetime=None, now=NOW)
    put(victim / ENVELOPE, envelope.to_bytes())
    assert check(victim, [KEY.public], OPTIONS).key_id == KEY.public.key_id
