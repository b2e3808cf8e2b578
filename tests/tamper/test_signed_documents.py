"""Every JSON document of a signed bundle: a key changed, removed, repeated, renamed, added or moved, none accepted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from signed_bundles import KEY
from tampering import Tally, copied, counted, put, resealed, signed_bundle

from edgekit.bundle.layout import ENVELOPE, MANIFEST
from edgekit.core.canonical import dump_canonical
from edgekit.signing.dsse import Envelope, parse_envelope

_TWIN = "edgekit-tests: the twin of another key"
_ENDS = 1
"""Of a list, only so many items at each end are gone into: a column of scores is one list."""


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return signed_bundle(tmp_path_factory.mktemp("signed-documents"))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside, keys and positions."""
    if isinstance(value, dict):
        for key in value:
            yield (*path, key)
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        inside = [index for index in range(len(value)) if index < _ENDS or index >= len(value) - _ENDS]
        for index in inside:
            yield (*path, index)
            yield from places(value[index], (*path, index))


def other_value(value: Any) -> Any:
    """Something else of the same kind, as near as can be."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * (1 + 2**-40) + 2**-60
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case None:
            return 0
        case list():
            return [*value, *value[:1]] if value else [0]
        case _:
            return {}


def changed(document: Any, path: tuple[Any, ...], how: str) -> bytes | None:
    """The document with the value at a path changed in one way; None where that is no change."""
    copy = json.loads(json.dumps(document))
    parent = copy
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    value = parent[key]
    text = None
    match how:
        case "changed":
            parent[key] = other_value(value)
        case "another kind":
            parent[key] = [value]
        case "null":
            parent[key] = None if value is not None else False
        case "removed":
            del parent[key]
        case "repeated" if isinstance(parent, list):
            parent.insert(key, value)
        case "repeated":
            parent[_TWIN] = other_value(value)
            text = dump_canonical(copy).replace(json.dumps(_TWIN).encode(), json.dumps(key).encode())
        case "renamed" if isinstance(parent, dict):
            parent[f"{key}_"] = parent.pop(key)
        case "moved" if isinstance(parent, dict) and len(parent) > 1:
            last = list(parent)[-1] if list(parent)[-1] != key else next(iter(parent))
            order = [item for item in parent if item != key]
            order.insert(order.index(last) + (last == list(parent)[-1]), key)
            items = {item: parent[item] for item in order}
            parent.clear()
            parent.update(items)
            text = (json.dumps(copy, ensure_ascii=False, indent=1, separators=(",", ": ")) + "\n").encode()
        case "moved" if isinstance(parent, list) and len(parent) > 1:
            parent[key], parent[key - 1] = parent[key - 1], parent[key]
        case _:
            return None
    return dump_canonical(copy) if text is None else text


WAYS = ("changed", "another kind", "null", "removed", "repeated", "renamed", "moved")


def variants(data: bytes) -> Iterator[tuple[str, bytes]]:
    document = json.loads(data)
    for path in places(document):
        for how in WAYS:
            text = changed(document, path, how)
            if text is not None and text != data:
                yield f"{'.'.join(map(str, path))} {how}", text


def documents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json"))


def test_there_is_a_change_of_every_kind() -> None:
    tried = dict(variants(dump_canonical({"a": 1, "b": [1, 2], "c": {"d": None, "e": "x"}})))
    assert all(any(name.endswith(how) for name in tried) for how in WAYS)
    assert len(set(tried.values())) > 30
    assert b'"a": 1,' in tried["a repeated"]
    assert b'"a": 2' in tried["a repeated"]


def try_document(signed: Path, victim: Path, name: str, tally: Tally) -> None:
    """Each variant as it is, and once more in a bundle whose manifest agrees with it."""
    data = (signed / name).read_bytes()
    manifest = (signed / MANIFEST).read_bytes()
    for what, text in variants(data):
        put(victim / name, text)
        tally.attempt(victim, f"{name}: {what}")
        if name not in (MANIFEST, ENVELOPE):
            resealed(victim, {name: text})
            tally.attempt(victim, f"{name}: {what}, resealed")
            put(victim / MANIFEST, manifest)
    put(victim / name, data)


SMALL = ("lineage.json", "manifest.json", "policy.json", "recipe.json", ENVELOPE, "scales.json")


def test_the_small_documents(signed: Path, tmp_path: Path) -> None:
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 800) as tally:
        for name in SMALL:
            try_document(signed, victim, name, tally)


def test_the_evidence_and_the_golden_index(signed: Path, tmp_path: Path) -> None:
    victim = copied(signed, tmp_path / "victim")
    rest = [name for name in documents(signed) if name not in SMALL]
    assert rest == ["evidence/scores.json", "evidence/verdict.json", "golden/golden.json"]
    with counted(tmp_path, 1500) as tally:
        for name in rest:
            try_document(signed, victim, name, tally)


def test_a_manifest_that_was_changed_and_agrees_with_itself(signed: Path, tmp_path: Path) -> None:
    victim = copied(signed, tmp_path / "victim")
    raw = (signed / MANIFEST).read_bytes()
    with counted(tmp_path, 280) as tally:
        for what, text in variants(raw):
            if b'"digest"' not in text or "repeated" in what:
                continue
            put(victim / MANIFEST, text)
            document = json.loads(text)
            if isinstance(document, dict) and isinstance(document.get("files"), dict):
                resealed(victim, {})
                if (victim / MANIFEST).read_bytes() != raw:
                    tally.attempt(victim, f"manifest {what}, resealed")


def test_the_statement_inside_the_envelope(signed: Path, tmp_path: Path) -> None:
    """Every change of the signed payload, under the old signature."""
    victim = copied(signed, tmp_path / "victim")
    envelope = parse_envelope((signed / ENVELOPE).read_bytes(), where="envelope")
    with counted(tmp_path, 250) as tally:
        for what, text in variants(envelope.payload):
            forged = Envelope(text, KEY.public.key_id, envelope.signature)
            put(victim / ENVELOPE, forged.to_bytes())
            tally.attempt(victim, f"payload: {what}")
        assert base64.b64encode(envelope.payload) in (signed / ENVELOPE).read_bytes()


def test_other_spellings_of_the_same_documents(signed: Path, tmp_path: Path) -> None:
    """The same values to every JSON reader, in other bytes."""
    victim = copied(signed, tmp_path / "victim")
    with counted(tmp_path, 100) as tally:
        for name in documents(signed):
            data = (signed / name).read_bytes()
            document = json.loads(data)
            spellings = [
                json.dumps(document).encode(),
                json.dumps(document, indent=1, sort_keys=True, separators=(",", ": ")).encode(),
                data + b"\n",
                b" " + data,
                data[:-1],
                data.replace(b"\n", b"\r\n"),
                data.replace(b'"', b'"\\u0000', 1).replace(b"\\u0000", b"", 1) + b" ",
                b"\xef\xbb\xbf" + data,
                data.decode().encode("utf-16"),
                data + data,
            ]
            for number, text in enumerate(spellings):
                for agree in (False, True):
                    put(victim / name, text)
                    if agree and name not in (MANIFEST, ENVELOPE):
                        resealed(victim, {name: text})
                    tally.attempt(victim, f"{name} spelling {number}")
                    put(victim / MANIFEST, (signed / MANIFEST).read_bytes())
            put(victim / name, data)
